"""From what a user typed to files on disk: a file or a directory for now; names of the Hub are recognised."""

from __future__ import annotations

import os
import re
from pathlib import Path

from codecbay.errors import SourceError

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
_CONFIG_FILE = "config.json"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


def local_path(source: str | os.PathLike[str]) -> Path | None:
    """The path that ``source`` names, or ``None`` where nothing is there.

    Raises:
        SourceError: it is an address that this version does not read, or no text at all.
    """
    text = os.fspath(source)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise SourceError(f"Expected the path or name of a package, found {text!r}.")
    if re.match(r"[a-z]+://", text):
        raise SourceError(f"{text}: only local files are read so far. Download the package and give its directory.")
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except RuntimeError:  # the home of a user that does not exist
        return None
    except OSError as error:
        raise SourceError(f"{text[:200]}: {error.strerror}.") from None


def missing(source: str | os.PathLike[str]) -> SourceError:
    """The error for a source where nothing was found."""
    text = os.fspath(source)
    if _HUB_ID.fullmatch(text) and not text.endswith((".bin", ".th", ".pt")):
        return SourceError(
            f"{text}: there is no such file or directory. If you mean the model of that name on the Hugging Face "
            f"Hub, download it ('hf download {text} --local-dir DIR') and give the directory: "
            "only local files are read so far."
        )
    return SourceError(f"{text[:200]}: there is no such file or directory.")


def find_files(path: Path, *names: str) -> list[Path]:
    """``path`` itself, where it is a file; else the files of those names in the directory, at least one.

    Raises:
        SourceError: the directory has none of them; the message says what it holds.
    """
    if not path.is_dir():
        return [path]
    found = [path / name for name in names if (path / name).is_file()]
    if found:
        return found
    try:
        there = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}.") from None
    hint = ""
    if _CONFIG_FILE in there:
        hint = " It looks like a model in the layout of the transformers library."
    elif any(name.endswith(".th") for name in there):
        hint = " It looks like a training run; export its checkpoint first."
    for name in names:
        if name in there:
            raise SourceError(f"{path / name}: not a file.")
    shown = ", ".join(there[:8]) + (", …" if len(there) > 8 else "") if there else "nothing"
    raise SourceError(f"{path}: there is no {' or '.join(names)} in this directory, only {shown}.{hint}")


def is_transformers_codec(path: Path) -> bool:
    """Whether ``path`` is a directory that is laid out as the transformers library does, and not an export package."""
    return (path / _CONFIG_FILE).is_file() and not any((path / name).is_file() for name in (LM_FILE, CODEC_FILE))


def find_file(path: Path, name: str) -> Path:
    """The one file of that name; see :func:`find_files`."""
    return find_files(path, name)[0]
