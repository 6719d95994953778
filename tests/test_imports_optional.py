"""Optional libraries: what is missing is named with the command that installs it, and torchaudio does no harm."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codecbay.errors import MissingDependencyError
from codecbay.imports import harmless_torchaudio, import_library

USER = """
import torchaudio
import torchaudio.functional as F
from torchaudio.transforms import Resample
from torchaudio import load

class Louder(torchaudio.transforms.Vol):
    pass

def resample(wav: torchaudio.Anything = None):
    return F.resample(wav, 1, 2)
"""
BROKEN = {
    "absent": None,
    "library": "raise OSError('Could not load this library: libtorchaudio.so')",
    "version": "raise RuntimeError('compiled with different CUDA versions')",
    "half": "import sys\nsys.modules['torchaudio._half'] = sys\nraise ImportError('half way')",
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory at the head of the import path, in a process that has not met torchaudio yet."""
    before = dict(sys.modules)
    for name in [name for name in sys.modules if name.startswith("torchaudio")]:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "audio_library.py").write_text(USER)
    yield tmp_path
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


def install(path: Path, source: str) -> None:
    (path / "torchaudio").mkdir()
    (path / "torchaudio" / "__init__.py").write_text(source)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_library_that_merely_imports_torchaudio_can_be_imported(path: Path, kind: str) -> None:
    source = BROKEN[kind]
    if source is None:
        install(path, "raise ModuleNotFoundError(\"No module named 'torchaudio'\")")
    else:
        install(path, source)
    library = import_library("audio_library", needed_by="a test", install="pip install it")
    with pytest.raises(MissingDependencyError, match="cannot be loaded here") as error:
        library.resample(None)
    assert error.value.__cause__ is not None
    with pytest.raises(MissingDependencyError, match=r"Vol|Louder"):
        library.Louder()
    assert not [name for name in sys.modules if name.startswith("torchaudio")]


def test_the_real_one_is_used_where_it_loads(path: Path) -> None:
    install(path, "import types\nfunctional = types.ModuleType('f')\nfunctional.resample = lambda *args: args")
    with harmless_torchaudio():
        torchaudio = importlib.import_module("torchaudio")
        assert torchaudio.functional.resample(1, 2) == (1, 2)
    assert "torchaudio" in sys.modules


def test_a_library_that_asks_whether_torchaudio_is_installed_hears_the_truth(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(path)])  # with no torchaudio
    asks = "import importlib.util\nfound = importlib.util.find_spec('torchaudio')\nimport torchaudio"
    (path / "asking.py").write_text(asks)
    assert import_library("asking", needed_by="a test", install="pip install it").found is None
    del sys.modules["asking"]
    install(path, "raise OSError")
    importlib.invalidate_caches()
    found = import_library("asking", needed_by="a test", install="pip install it").found
    assert found.origin == str(path / "torchaudio" / "__init__.py")


def test_the_stand_in_of_one_thread_does_not_vanish_under_another(path: Path) -> None:
    install(path, "raise OSError")
    (path / "slow.py").write_text("import time, torchaudio\ntime.sleep(0.2)\nimport torchaudio.functional")
    with ThreadPoolExecutor() as pool, harmless_torchaudio():
        importlib.import_module("torchaudio")
        other = pool.submit(import_library, "slow", needed_by="a test", install="pip install it")
        time.sleep(0.1)
    assert other.result().torchaudio.functional


def test_what_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        MissingDependencyError, match=r"The plugin 'x' needs 'no_such_library'.*pip install no-such"
    ) as error:
        import_library("no_such_library", needed_by="The plugin 'x'", install="pip install no-such")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
