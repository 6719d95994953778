"""Plugins that read packages carelessly fail the checks of packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codecbay.testing import CHECKS, Result, run_checks
from testing.broken import MONO

START = """
from dataclasses import replace

from codecbay import hookimpl
from codecbay_encodec.backend import EncodecBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends():
    return [Careless()]


def build_from(file, config, device, dtype, strict):
    import torch
    from codecbay_encodec.codec import EncodecCodec, _finish

    codec = EncodecCodec(config, "careless")
    state = torch.load(file.header.weights, weights_only=True)["best_state"]
    codec.load_state_dict(state, strict=strict)
    return _finish(codec, device, dtype)


class Careless(EncodecBackend):
    name = "{name}"
"""

CARELESS = {
    "imports_torch": (
        "header",
        "without torch; found that torch was imported",
        """
    def spec(self, header):
        import torch

        return super().spec(header)
""",
    ),
    "other_spec": (
        "header",
        "lookahead of the header's spec",
        """
    def spec(self, header):
        return replace(super().spec(header), lookahead=0)
""",
    ),
    "by_path": (
        "round-trip",
        "the fingerprint of a copy to be .*; found",
        """
    def build(self, file, *, device, dtype):
        import hashlib

        codec = super().build(file, device=device, dtype=dtype)
        codec._fingerprint = hashlib.sha256(str(file.header.path).encode()).hexdigest()
        return codec
""",
    ),
    "not_strict": (
        "weights",
        "without its tensor .* to be refused with WeightsError or ConfigError; found it was let through",
        """
    def build(self, file, *, device, dtype):
        return build_from(file, self._config(file.header), device, dtype, strict=False)
""",
    ),
    "not_finite": (
        "weights",
        "NaN in .* to be refused with PackageError; found it was let through",
        """
    def build(self, file, *, device, dtype):
        from codecbay.package.weights import check_tensors
        from codecbay_encodec.codec import EncodecCodec

        config = self._config(file.header)
        own = EncodecCodec(config, "careless").state_dict()
        check_tensors(file.header, {name: tuple(tensor.shape) for name, tensor in own.items()})
        return build_from(file, config, device, dtype, strict=True)
""",
    ),
    "other_error": (
        "weights",
        "refused with WeightsError or ConfigError; found .*RuntimeError: .*[Mm]issing key",
        """
    def build(self, file, *, device, dtype):
        return build_from(file, self._config(file.header), device, dtype, strict=True)
""",
    ),
}


@pytest.mark.parametrize("name", CARELESS)
def test_a_careless_plugin_fails_its_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, message, code = CARELESS[name]
    module = f"careless_{name}"
    (tmp_path / f"{module}.py").write_text(START.replace("{name}", name) + code)
    facts = tmp_path / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[codecbay.plugins]\n{module} = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CODECBAY_PLUGINS", module)
    failed = _failed(MONO)
    assert list(failed) == [check], failed
    assert re.search(message, str(failed[check].message)), failed[check].message


def test_nothing_is_written_into_a_package(tmp_path: Path) -> None:
    path = tmp_path / "compression_state_dict.bin"
    path.write_bytes((MONO / path.name).read_bytes())
    before = path.stat()
    assert not _failed(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def _failed(package: Path) -> dict[str, Result]:
    checks = [check for check in CHECKS if check.name in ("spec", "header", "round-trip", "weights")]
    return {result.check: result for result in run_checks(package, checks=checks) if not result.ok}
