"""Files and directories that appear whole or not at all.

Each is written beside its place, under a hidden name, flushed to the disk, and renamed: at any point where the program
or the machine may stop, the old one is there, or the new one, and never a part of it. Two writers of one target do not
mix, as each has a hidden name of its own.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codecbay.errors import OutputError

_RENAME_EXCHANGE = 2  # of renameat2(2)
_AT_FDCWD = -100


@contextmanager
def written_whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A path beside ``path`` to write a file to; it becomes ``path`` when that is done, and goes if it fails.

    Args:
        path: of the file.
        overwrite: take the place of a file that is there.

    Raises:
        OutputError: it cannot be written, or is there already.
    """
    with _told(path):
        _refuse(path, overwrite)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _flush(temporary)
            if overwrite:
                temporary.replace(path)
            else:
                _place(temporary, path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def written_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A directory beside ``path`` to write files into; it becomes ``path`` when that is done, and goes if it fails.

    Args:
        path: of the directory.
        overwrite: take the place of what is there, with all that it holds.

    Raises:
        OutputError: it cannot be written, or is there already and not empty.
    """
    with _told(path):
        _refuse(path, overwrite)
        make_parents(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for folder, _, names in os.walk(temporary):
                for name in names:
                    _flush(Path(folder, name))
                _flush(Path(folder))
            if overwrite and path.exists():
                _exchange(temporary, path)
            else:
                temporary.rename(path)  # fails where a directory that is not empty has come up meanwhile
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def make_parents(path: Path) -> None:
    """Make the directories above ``path``.

    Raises:
        OutputError: they cannot be made.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}.") from None


def _refuse(path: Path, overwrite: bool) -> None:
    there = path.is_dir() and any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()
    if there and not overwrite:
        raise OutputError(f"{path}: is there already. Give another name, or take its place: overwrite=True (--force).")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some file systems cannot for directories
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def _place(temporary: Path, path: Path) -> None:
    """Rename, unless something has come up at ``path`` meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        _refuse(path, overwrite=False)
    except OSError:  # a file system without links
        _refuse(path, overwrite=False)
        temporary.replace(path)


def _exchange(first: Path, second: Path) -> None:
    """Swap two directories, in one step where the system can."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        renameat2 = None
    names = os.fsencode(first), os.fsencode(second)
    if renameat2 and not renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return
    aside = Path(tempfile.mkdtemp(dir=second.parent, prefix=f".{second.name}."))
    second.rename(aside / "old")
    first.rename(second)
    (aside / "old").rename(first)  # where the caller clears away
    aside.rmdir()
