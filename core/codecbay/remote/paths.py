"""``RemotePath``: a file or directory of a tree that lies elsewhere."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from codecbay.errors import SourceError


class Tree(Protocol):
    """What can be told of files that lie elsewhere, by their paths from its root."""

    @property
    def address(self) -> str:
        """Of the root, as messages name it."""
        ...

    def names(self) -> list[str] | None:
        """The paths of all files, or ``None`` where they cannot be listed."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, or ``None`` where there is no such file."""
        ...

    def open(self, name: str) -> io.RawIOBase:
        """A file to read from, seekable; no more of it is moved than is read."""
        ...

    def fetch(self, name: str, *, progress: bool) -> Path:
        """The whole file, on the disk."""
        ...


class Stat(NamedTuple):
    """What :meth:`RemotePath.stat` tells."""

    st_size: int


@dataclass(frozen=True)
class RemotePath:
    """A path in a tree, with those methods of :class:`pathlib.Path` that reading needs.

    Attributes:
        tree: that it lies in.
        relative: from the tree's root; empty for the root itself.
    """

    tree: Tree
    relative: str = ""

    def __str__(self) -> str:
        return posixpath.join(self.tree.address, self.relative) if self.relative else self.tree.address

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.tree, posixpath.join(self.relative, name))

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self.relative or self.tree.address)

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> RemotePath:
        """The directory that it lies in."""
        return RemotePath(self.tree, posixpath.dirname(self.relative))

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(self.relative) and self.tree.size(self.relative) is not None

    def is_dir(self) -> bool:
        """Whether files lie below it; of a tree that cannot be listed, only the root is taken for a directory."""
        names = self.tree.names()
        if names is None:
            return not self.relative
        return not self.relative or any(name.startswith(f"{self.relative}/") for name in names)

    def exists(self) -> bool:
        """Whether it is a file or a directory."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies right below it, as far as it can be listed."""
        start = f"{self.relative}/" if self.relative else ""
        names = {name[len(start) :].split("/")[0] for name in self.tree.names() or () if name.startswith(start)}
        return (self / name for name in sorted(names))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What lies right below it and has a name of that pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def stat(self) -> Stat:
        """Its size."""
        size = self.tree.size(self.relative)
        if size is None:
            raise FileNotFoundError(2, "there is no such file", str(self))
        return Stat(size)

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None) -> IO[Any]:
        """The file, to read from; ``rb`` without buffering gives the raw stream, as of a :class:`pathlib.Path`."""
        raw: Any = self.tree.open(self.relative)
        if buffering == 0:
            return raw  # type: ignore[no-any-return]
        stream = io.BufferedReader(raw, BUFFER)
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding)

    def fetch(self, *, progress: bool = False) -> Path:
        """The whole file, on the disk.

        Raises:
            SourceError: it cannot be fetched.
        """
        return self.tree.fetch(self.relative, progress=progress)


class NoRangesError(SourceError):
    """A server sends whole files only, where a part was asked for."""


AnyPath = Path | RemotePath
BUFFER = 1 << 16  # bytes that are asked for at once, at least
