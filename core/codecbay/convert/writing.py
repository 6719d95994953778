"""Files as transformers writes them: a model in a directory, and the tokenizer of a text encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codecbay.errors import UnresolvedReferenceError
from codecbay.package.config import read_json
from codecbay.package.layouts import CONFIG_FILE, WEIGHT_FILES
from codecbay.package.weights import compact
from codecbay.package.writing import write_safetensors
from codecbay.remote import AnyPath, RemotePath

_TOKENIZERS = ("tokenizer.json", "spiece.model")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_FILES = (*_TOKENIZERS, _TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_model(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write configuration and weights as transformers does."""
    write_json(directory / CONFIG_FILE, {**config, "dtype": _widest(tensors)})
    write_safetensors(compact(tensors), directory / WEIGHT_FILES[0], {"format": "pt"})


def _widest(tensors: Mapping[str, Tensor]) -> str:
    """The type that transformers loads all of a model in: one that holds every tensor as it is."""
    dtype = None
    for tensor in tensors.values():
        dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    return str(dtype).removeprefix("torch.")


def find_tokenizer(directory: AnyPath) -> list[AnyPath]:
    """The files of a tokenizer.

    Raises:
        UnresolvedReferenceError: there is none.
    """
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        raise UnresolvedReferenceError(
            f"{directory}: the tokenizer of the text encoder is missing ({' or '.join(_TOKENIZERS)}). Put the one "
            "there that comes with the model's T5."
        )
    return [directory / name for name in _TOKENIZER_FILES if (directory / name).is_file()]


def copy_tokenizer(files: Iterable[AnyPath], target: Path) -> None:
    """Copy the files of a tokenizer, without what refers to code.

    Raises:
        SourceError: a file cannot be fetched.
        ConfigError: its configuration cannot be read.
    """
    for file in files:
        if file.name == _TOKENIZER_CONFIG:
            config = read_json(file)
            write_json(target / file.name, {key: config[key] for key in config if key != "auto_map"})
        else:
            shutil.copyfile(file.fetch() if isinstance(file, RemotePath) else file, target / file.name)
