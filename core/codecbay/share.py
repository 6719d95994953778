"""Packages out to the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from codecbay.convert.packages import Source, convert_parts, read_parts
from codecbay.package import Package
from codecbay.package.card import model_card
from codecbay.remote.hub import upload


def push_package(
    source: Source | Package,
    repository: str,
    *,
    private: bool = False,
    licence: str | None = None,
    format: str = "safetensors",
) -> str:
    """Share a package on the Hub, with a model card.

    Args:
        source: a package; a codec's alone, or a language model's with its codec.
        repository: ``owner/name``; it is made where there is none.
        private: keep it private, if it is made now.
        licence: of the weights, for the card; that of the codec's spec, where none is given.
        format: ``safetensors`` or ``audiocraft``.

    Returns:
        The address of the commit.

    Raises:
        PackageError: the package cannot be read.
        SourceError: the Hub does not take it.
    """
    parts, beside = read_parts(source)
    origin = source.name if isinstance(source, Package) else os.fspath(source)
    known = next((str(c.spec["licence"]) for c in parts.values() if c.spec.get("licence")), None)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        convert_parts(parts, beside, directory, format)
        card = model_card(parts, name=repository, licence=licence or known, origin=origin)
        (directory / "README.md").write_text(card, encoding="utf-8")
        return upload(directory, repository, private=private)
