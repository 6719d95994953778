"""A whole package to be written: its files, the directories beside them, and the model card of one that is shared."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from codecbay.errors import CodecbayError, nearest
from codecbay.files import written_directory
from codecbay.package.card import model_card
from codecbay.package.writing import WRITERS, Contents
from codecbay.remote.hub import upload


@dataclass(frozen=True)
class Parts:
    """What a package is made of.

    Attributes:
        files: what its files are made of, by their names in AudioCraft's layout.
        beside: directories that belong beside them: text encoders.
        origin: what it is made from, for the model card.
    """

    files: Mapping[str, Contents]
    beside: tuple[Path, ...]
    origin: str

    def write(self, out: Path, *, format: str, overwrite: bool = False) -> None:
        """Write the package as a directory, which appears whole or not at all.

        Args:
            out: the directory.
            format: ``safetensors`` or ``audiocraft``.
            overwrite: take the place of a directory that is there.

        Raises:
            CodecbayError: there is no such format.
            OutputError: the directory cannot be written, or is there already.
        """
        with written_directory(out, overwrite=overwrite) as directory:
            self._write(directory, format)

    def push(self, repository: str, *, format: str, private: bool, licence: str | None) -> str:
        """Share the package on the Hub, with a model card.

        Args:
            repository: ``owner/name``; it is made where there is none.
            format: ``safetensors`` or ``audiocraft``.
            private: keep it private, if it is made now.
            licence: of the weights; that of the codec's spec, where none is given.

        Returns:
            The address of the commit.

        Raises:
            SourceError: the Hub does not take it.
        """
        known = next((str(part.spec["licence"]) for part in self.files.values() if part.spec.get("licence")), None)
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary)
            self._write(directory, format)
            card = model_card(self.files, name=repository, licence=licence or known, origin=self.origin)
            (directory / "README.md").write_text(card, encoding="utf-8")
            return upload(directory, repository, private=private)

    def _write(self, directory: Path, format: str) -> None:
        if format not in WRITERS:
            raise CodecbayError(f"format={format!r} is not one of {', '.join(WRITERS)}.{nearest(format, WRITERS)}")
        ending, write = WRITERS[format]
        for name, contents in tqdm(self.files.items(), desc=format, unit="file", disable=None):
            write(contents, (directory / name).with_suffix(ending))
        for folder in self.beside:
            shutil.copytree(folder, directory / folder.name)
