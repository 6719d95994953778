"""What starting up costs: neither importing codecbay nor asking for help or facts loads torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "omegaconf", "huggingface_hub", "soundfile", "codecbay_encodec")


def loaded_after(code: str) -> set[str]:
    code += f"\nimport sys; print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import codecbay",
        "import codecbay.errors, codecbay.spec, codecbay.package",
        "from codecbay.cli import cli\ncli.main(['--help'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not loaded_after(code)


@pytest.mark.parametrize("args", [["codecs"], ["plugins"], ["check", "{package}"], ["info", "{package}"]])
def test_facts_come_without_torch(args: list[str], packages: object) -> None:
    args = [arg.format(package=f"{packages}/musicgen-mono") for arg in args]
    code = f"from codecbay.cli import cli\ntry: cli.main({args!r}, standalone_mode=False)\nexcept SystemExit: pass"
    assert not loaded_after(code) & {"torch", "transformers", "numpy", "omegaconf"}


def test_every_export_is_there() -> None:
    import codecbay

    for name in codecbay.__all__:
        assert getattr(codecbay, name) is not None
    assert set(codecbay.__all__) <= set(dir(codecbay))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        codecbay.nonsense  # noqa: B018
