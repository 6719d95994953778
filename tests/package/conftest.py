"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

import codecbay
from codecbay.package import Header
from codecbay.package.layouts import read_header
from package.forge import MONO, harmless

settings.register_profile("package", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("package")

Read = Callable[[bytes], Header]


@pytest.fixture(scope="session", autouse=True)
def _imports(text_encoder: Path) -> None:
    """Import now what is imported late, so that it is not taken for the work of a package."""
    codecbay.load(MONO, text_encoder=text_encoder, device="cpu")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read the header of a file with the given content."""

    def reader(data: bytes) -> Header:
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        with harmless():
            return read_header(path)

    return reader
