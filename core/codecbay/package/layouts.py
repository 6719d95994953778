"""The layouts of packages: which files there are, and where in them configuration and tensors stand.

- ``audiocraft``: an export package, ``state_dict.bin`` or ``compression_state_dict.bin``, or its safetensors twin;
- ``transformers``: a directory with ``config.json`` and weights;
- ``descript``: a file with ``state_dict`` and ``metadata``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from codecbay.errors import PackageError
from codecbay.package.config import Config, read_json
from codecbay.package.container import Container, read_container
from codecbay.package.header import Header, header_of, role_of
from codecbay.package.pickles import TensorStub
from codecbay.package.safetensors_file import read_safetensors
from codecbay.remote.paths import AnyPath

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CHECKPOINTS = (".pt", ".pth", ".ckpt")
CODES = ".codes"  # the ending of files of codes
TWIN_FORMAT = "codecbay.package.1"
_HASH = re.compile(r"[0-9a-f]{64}")


def read_header(path: AnyPath, part: str | None = None) -> Header:
    """Read the header of a package, a file or a directory, without its tensor data and without running anything.

    Args:
        path: of the package.
        part: which of the packages in a file that holds several, ``all_in_one.pt``, by their names.

    Raises:
        PackageError: it is no package, or damaged; the message says what it is instead.
    """
    if path.is_dir():
        return _read_directory(path)
    if path.suffix == ".safetensors":
        return _read_twin(path)
    if path.suffix == CODES:
        raise PackageError(f"{path}: this is a file of codes, not a package. 'codecbay decode' turns it into sound.")
    container = read_container(path)
    root = container.root
    if not isinstance(root, dict):
        raise PackageError(f"{path}: expected a dictionary with the keys best_state and xp.cfg, found something else.")
    if part is not None and "best_state" not in root and isinstance(root.get(part), dict):
        return replace(_read_root(path, container, root[part], (part,)), part=part)
    return _read_root(path, container, root, ())


def _read_root(path: AnyPath, container: Container, root: dict[str, Any], state_path: tuple[str, ...]) -> Header:
    """The header of a package that was saved as a dictionary; ``state_path`` leads to it."""
    if not all(isinstance(key, str) for key in root):
        raise PackageError(f"{path}: expected a dictionary with the keys best_state and xp.cfg, found something else.")
    if "pretrained" in root:
        return _reference(path, root["pretrained"])
    if isinstance(root.get("state_dict"), dict) and isinstance(root.get("metadata"), dict):
        arguments = root["metadata"].get("kwargs")
        if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
            raise PackageError(f"{path}: the metadata should hold the model's arguments in 'kwargs'.")
        config = Config(arguments, f"{path}: metadata.kwargs")
        return header_of(path, "descript", "codec", config, path, container, *state_path, "state_dict")
    _require_export(path, root)
    return _export(path, root, container, *state_path, "best_state")


def _reference(path: AnyPath, name: Any) -> Header:
    if not isinstance(name, str):
        raise PackageError(f"{path}: 'pretrained' should be the name of a codec, found {type(name).__name__}.")
    return Header.for_reference(name, path)


def _export(path: AnyPath, facts: Mapping[str, Any], container: Container, *state_path: str) -> Header:
    """The header of an export package, of what stands in it beside the tensors."""
    text = facts["xp.cfg"]
    if not isinstance(text, str):
        raise PackageError(f"{path}: 'xp.cfg' should be YAML text, found {type(text).__name__}.")
    config = Config.parse(text, f"{path}: xp.cfg")
    header = header_of(path, "audiocraft", role_of(config, path), config, path, container, *state_path)
    version, fingerprint = facts.get("version"), facts.get("codec_fingerprint")
    return replace(
        header,
        version=version if isinstance(version, str) and len(version) <= 64 and version.isprintable() else None,
        codec_fingerprint=fingerprint if isinstance(fingerprint, str) and _HASH.fullmatch(fingerprint) else None,
    )


def _read_twin(path: AnyPath) -> Header:
    """A safetensors file that holds an export package; see :mod:`codecbay.package.twin`."""
    container = read_safetensors(path)
    facts = container.facts
    if facts.get("format") != TWIN_FORMAT:
        raise PackageError(
            f"{path}: these are bare weights, without the configuration that a package has: 'format' in the metadata "
            f"is {facts.get('format', 'absent')[:40]!r}, expected {TWIN_FORMAT!r}."
        )
    try:
        source = None
        if "source" in facts:
            told = json.loads(facts["source"])
            source = (told["file"], told["digest"])
            if not isinstance(source[0], str) or not _HASH.fullmatch(source[1]):
                raise ValueError("'source' names no file and digest")
        checksums = json.loads(facts["checksums"])
        blocks = {key: replace(block, crc=int(checksums[key])) for key, block in container.blocks.items()}
        # In the order that they were saved in, which safetensors does not keep.
        container = replace(container, blocks=blocks, root={key: container.root[key] for key in checksums})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise PackageError(f"{path}: the metadata are not those of a package: {str(error)[:100]}.") from None
    if "pretrained" in facts:
        return replace(_reference(path, facts["pretrained"]), source=source)
    if "xp.cfg" not in facts:
        raise PackageError(f"{path}: the metadata hold neither 'xp.cfg' nor 'pretrained'.")
    return replace(_export(path, facts, container), source=source)


def _read_directory(path: AnyPath) -> Header:
    """A directory in the layout of the transformers library, or with a trainer's checkpoint in place of its weights."""
    config = read_json(path / CONFIG_FILE)
    file = _weights_in(path)
    container = read_safetensors(file) if file.suffix == ".safetensors" else read_container(file)
    state: Any = container.root
    state_path: tuple[str, ...] = ()
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state, state_path = state["state_dict"], ("state_dict",)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise PackageError(f"{file}: expected a dictionary of tensors, found {type(state).__name__}.")
    nested = next((name for name, value in state.items() if isinstance(value, dict)), None)
    if nested is not None:
        raise PackageError(
            f"{file}: {nested[:60]!r} is a dict, not a tensor: expected tensors at the top, or under 'state_dict'."
        )
    return header_of(path, "transformers", "codec", config, file, container, *state_path)


def _weights_in(path: AnyPath) -> AnyPath:
    """The file of a directory that holds its weights; trainers name theirs as they like, so there may be only one."""
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    entries: Iterator[AnyPath] = (file for end in CHECKPOINTS for file in path.glob(f"*{end}"))
    found = sorted((file for file in entries if file.is_file()), key=str)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(repr(file.name) for file in found[:8]) + (", …" if len(found) > 8 else "")
        raise PackageError(f"{path}: there are {len(found)} checkpoints beside {CONFIG_FILE}: {names}. Leave only one.")
    raise PackageError(
        f"{path}: there is a {CONFIG_FILE}, but no weights: neither {' nor '.join(WEIGHT_FILES)}, nor a file "
        f"*{', *'.join(CHECKPOINTS)}."
    )


def _require_export(path: AnyPath, root: dict[str, Any]) -> None:
    state = root.get("best_state")
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        raise PackageError(f"{path}: this is a training checkpoint, not an export package; export it first.")
    missing = [key for key in ("best_state", "xp.cfg") if key not in root]
    if missing == ["best_state", "xp.cfg"] and any(isinstance(value, TensorStub) for value in root.values()):
        raise PackageError(
            f"{path}: these are bare weights, without the configuration that an export package has in 'xp.cfg'."
        )
    if missing:
        found = ", ".join(repr(key[:60]) for key in sorted(root)[:8]) or "nothing"
        raise PackageError(f"{path}: the key {' and '.join(map(repr, missing))} is missing; found {found}.")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise PackageError(f"{path}: 'best_state' should be a dictionary of tensors, found {type(state).__name__}.")
