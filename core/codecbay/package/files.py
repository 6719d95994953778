"""A package as its files: one for the language model, one for the codec, and the directory they lie in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codecbay.errors import PackageError
from codecbay.package.header import Header
from codecbay.package.layouts import WEIGHT_FILES, read_header
from codecbay.remote import AnyPath, RemotePath
from codecbay.remote.paths import NoRangesError

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)
_SMALL = ("*.json", "*.txt", "*.model", "*.yaml")  # files beside weights: configurations, vocabularies


@dataclass(frozen=True)
class PackageFile:
    """One file of a package: its header now, its tensors when asked for."""

    header: Header

    def tensors(self, *, progress: bool = False) -> dict[str, Tensor]:
        """The tensors by name, on the CPU; see :func:`codecbay.package.weights.load_tensors`."""
        from codecbay.package.weights import load_tensors

        return load_tensors(self.header, progress=progress)

    @property
    def is_remote(self) -> bool:
        """Whether it lies on the other side of a network, so that its tensors cannot be read yet."""
        return isinstance(self.header.path, RemotePath)

    def fetch(self, *, progress: bool = False) -> PackageFile:
        """The same file on the disk, its header read anew.

        Raises:
            SourceError: it cannot be fetched.
            PackageError: what came is no package.
        """
        path, weights = self.header.path, self.header.weights
        if not isinstance(path, RemotePath) or not isinstance(weights, RemotePath):
            return self
        local = path.fetch(progress=progress) if path == weights else fetch_directory(path, weights, progress=progress)
        return PackageFile(read_header(local, self.header.part))


def fetch_directory(path: RemotePath, weights: RemotePath | None = None, *, progress: bool = False) -> Path:
    """A directory in the layout of transformers: configurations, vocabularies, and one file of weights.

    Args:
        path: of the directory.
        weights: the file; the first that there is, where none is given.
        progress: show progress bars.

    Raises:
        SourceError: something cannot be fetched.
    """
    if weights is None:
        weights = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    small = {entry for pattern in _SMALL for entry in path.glob(pattern) if entry.is_file()} or {path / "config.json"}
    for entry in sorted(small, key=str):
        local = entry.fetch(progress=progress)
    if weights is not None:
        local = weights.fetch(progress=progress)
    return local.parent


@dataclass(frozen=True)
class Package:
    """A language model and the codec that was packed with it.

    Attributes:
        name: what it was asked for by.
        directory: where its files lie; a text encoder may lie beside them.
        lm: the language model's file.
        codec: the codec's file, or ``None`` where the package has none.
    """

    name: str
    directory: AnyPath
    lm: PackageFile
    codec: PackageFile | None


_ROLES = {
    "lm": "a language model",
    "codec": "a codec",
    "reference": "a reference to a published codec",
}


def read_package_file(path: AnyPath, *roles: str, part: str | None = None) -> PackageFile:
    """Read the header of a package file; of one on the other side of a network, that alone is moved.

    Args:
        path: the file.
        roles: what it may be: ``lm``, ``codec``, ``reference``; anything where none is given.
        part: which of the packages in a file that holds several.

    Raises:
        PackageError: it is no package file, or plays another role.
    """
    try:
        header = read_header(path, part)
    except NoRangesError:
        assert isinstance(path, RemotePath)
        _log.warning("%s: the server sends whole files only, so that all of it is fetched to read its header.", path)
        header = read_header(path.fetch(progress=True), part)
    if roles and header.role not in roles:
        wanted = " or ".join(_ROLES[role] for role in roles)
        raise PackageError(
            f"{path}: this file is {_ROLES[header.role]}, where {wanted} is needed. "
            "Language models are stored in state_dict.bin, codecs in compression_state_dict.bin."
        )
    return PackageFile(header)
