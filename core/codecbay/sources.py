"""From what a user typed to files: on the disk, on an https server, or on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from codecbay.errors import SourceError
from codecbay.remote import AnyPath, HubTree, RemotePath, WebTree

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
ALL_IN_ONE = "all_in_one.pt"  # both, under their names
LM_TWIN = "state_dict.safetensors"
CODEC_TWIN = "compression_state_dict.safetensors"
_CONFIG_FILE = "config.json"
_OF_PACKAGES = (LM_FILE, CODEC_FILE, ALL_IN_ONE, LM_TWIN, CODEC_TWIN)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_HUB_ADDRESS = re.compile(rf"hf://({_HUB_ID.pattern})(?:@([\w./-]{{1,128}}?))?(?:/([\w./ -]+?))?/?")
_HUB_PAGE = re.compile(rf"https://huggingface\.co/({_HUB_ID.pattern})(?:/tree/([\w.-]+)(?:/([\w./-]+))?)?/?")
_FILE_NAMES = (".bin", ".th", ".pt", ".pth", ".safetensors", ".json", ".wav")


def locate(source: str | os.PathLike[str], revision: str | None = None) -> AnyPath | None:
    """The path that ``source`` names: on the disk, or as an address; ``None`` where it is only a name.

    Nothing is asked over the network.

    Args:
        source: a path, ``hf://owner/name@revision/folder``, or an ``https://`` address of a file or, with a slash at
            its end, of a directory.
        revision: of a repository on the Hub, where the source tells none.

    Raises:
        SourceError: it is an address that cannot be read, or no text at all.
    """
    text = os.fspath(source)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise SourceError(f"Expected the path or name of a package, found {text!r}.")
    if text.startswith("hf://") or _HUB_PAGE.fullmatch(text):
        found = (_HUB_ADDRESS if text.startswith("hf://") else _HUB_PAGE).fullmatch(text)
        if found is None or ".." in text:
            raise SourceError(f"{text[:200]}: expected hf://owner/name, hf://owner/name@revision or …/folder after it.")
        name, own_revision, folder = found.groups()
        return hub_path(name, own_revision or revision, folder or "")
    if re.match(r"[a-z]+://", text):
        return RemotePath(*WebTree.of(text))
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except RuntimeError:  # the home of a user that does not exist
        return None
    except OSError as error:
        raise SourceError(f"{text[:200]}: {error.strerror}.") from None


def local_path(source: str | os.PathLike[str]) -> Path | None:
    """The path on the disk that ``source`` names, or ``None`` where nothing is there.

    Raises:
        SourceError: it is an address, or no text at all.
    """
    found = locate(source)
    if isinstance(found, RemotePath):
        raise SourceError(f"{found}: only what lies on the disk is taken here. Download it first.")
    return found


def hub_path(name: str, revision: str | None = None, folder: str = "") -> RemotePath:
    """A repository on the Hub, or a folder of it."""
    return RemotePath(HubTree(name, revision), folder)


def is_hub_id(text: str) -> bool:
    """Whether a name may be that of a repository, and is not rather a mistyped path."""
    return (
        _HUB_ID.fullmatch(text) is not None
        and ".." not in text
        and not text.endswith(_FILE_NAMES)
        and not Path(text).parent.exists()
    )


def missing(source: str | os.PathLike[str], kind: str | None = None) -> SourceError:
    """The error for a source where nothing was found; ``kind`` is what a name was looked for in the registry as."""
    text = os.fspath(source)
    named = "" if kind is None else f", and no {kind} is called so"
    hint = " See 'codecbay codecs'." if kind == "codec" else ""
    if _HUB_ID.fullmatch(text) and not text.endswith(_FILE_NAMES):
        hint += f" If you mean the repository of that name on the Hugging Face Hub, write hf://{text}."
    return SourceError(f"{text[:200]}: there is no such file or directory{named}.{hint}")


def find_files(path: AnyPath, *names: str) -> list[AnyPath]:
    """``path`` itself, where it is a file; else the files of those names in the directory, at least one.

    Raises:
        SourceError: the directory has none of them; the message says what it holds.
    """
    if not path.is_dir():
        if isinstance(path, RemotePath) and not path.is_file():
            raise SourceError(f"{path}: there is no such file.")
        return [path]
    found: list[AnyPath] = [path / name for name in names if (path / name).is_file()]
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
    wanted = [*names, f"{_CONFIG_FILE} with weights"] if CODEC_FILE in names else names
    raise SourceError(f"{path}: there is no {' or '.join(wanted)} in this directory, only {shown}.{hint}")


def is_transformers_codec(path: AnyPath) -> bool:
    """Whether ``path`` is a directory that is laid out as the transformers library does, and not an export package."""
    return (
        path.is_dir() and (path / _CONFIG_FILE).is_file() and not any((path / name).is_file() for name in _OF_PACKAGES)
    )
