"""A package as its files: one for the language model, one for the codec, and the directory they lie in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codecbay.errors import PackageError
from codecbay.package.header import Header
from codecbay.package.layouts import read_header

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PackageFile:
    """One file of a package: its header now, its tensors when asked for."""

    header: Header

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, on the CPU; see :func:`codecbay.package.weights.load_tensors`."""
        from codecbay.package.weights import load_tensors

        return load_tensors(self.header)


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
    directory: Path
    lm: PackageFile
    codec: PackageFile | None


_ROLES = {
    "lm": "a language model",
    "codec": "a codec",
    "reference": "a reference to a published codec",
}


def read_package_file(path: Path, *roles: str) -> PackageFile:
    """Read the header of a package file.

    Args:
        path: the file.
        roles: what it may be: ``lm``, ``codec``, ``reference``; anything where none is given.

    Raises:
        PackageError: it is no package file, or plays another role.
    """
    header = read_header(path)
    if roles and header.role not in roles:
        wanted = " or ".join(_ROLES[role] for role in roles)
        raise PackageError(
            f"{path}: this file is {_ROLES[header.role]}, where {wanted} is needed. "
            "Language models are stored in state_dict.bin, codecs in compression_state_dict.bin."
        )
    return PackageFile(header)
