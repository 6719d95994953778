"""What the library asks torchaudio for, where torchaudio's own library does not load."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from codecbay.imports import harmless_torchaudio


@pytest.fixture(scope="session")
def torchaudio_files() -> SimpleNamespace:
    """``torchaudio`` as far as it needs nothing but torch, read from its files. Skips where there are none."""
    return SimpleNamespace(
        compliance=SimpleNamespace(kaldi=_read("compliance.kaldi")), functional=_read("functional.functional")
    )


def _read(name: str) -> ModuleType:
    found = importlib.util.find_spec("torchaudio")
    if found is None or not found.submodule_search_locations:
        pytest.skip("torchaudio is not installed")
    file = Path(found.submodule_search_locations[0], *name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"torchaudio.{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with harmless_torchaudio():
        spec.loader.exec_module(module)
    return module
