"""The header of a package file: everything it says short of tensor data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from codecbay.errors import ConfigError, PackageError
from codecbay.package.config import Config
from codecbay.package.container import Block, read_container
from codecbay.package.pickles import ITEM_SIZES, TensorStub

MAX_NAME = 256  # characters
FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


@dataclass(frozen=True)
class TensorInfo:
    """A tensor.

    Attributes:
        shape: its sizes.
        dtype: by torch's name, such as ``float16``.
        block: key of the block that holds its elements.
        offset: of its first element in the block, in elements.
        stride: steps between elements in each dimension, in elements.
    """

    shape: tuple[int, ...]
    dtype: str
    block: str
    offset: int
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What one package file says.

    Attributes:
        path: the file.
        container: ``zip`` or ``legacy``.
        role: ``lm``, ``codec``, or ``reference`` to a published codec.
        config: the parsed ``xp.cfg``; empty for a reference.
        tensors: every tensor in ``best_state``, by name.
        reference: the name of the published codec, for a reference.
        version: of the program that exported the file, where it is recorded.
        blocks: where the tensors' bytes lie.
    """

    path: Path
    container: str
    role: str
    config: Config
    tensors: Mapping[str, TensorInfo]
    reference: str | None
    version: str | None
    blocks: Mapping[str, Block]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel * ITEM_SIZES[t.dtype] for t in self.tensors.values())


def read_header(path: Path) -> Header:
    """Read a package file's header, without its tensor data and without running anything.

    Raises:
        PackageError: the file is no export package, or damaged; the message says what it is instead.
    """
    container = read_container(path)
    root = container.root
    if not isinstance(root, dict) or not all(isinstance(key, str) for key in root):
        raise PackageError(f"{path}: expected a dictionary with the keys best_state and xp.cfg, found something else.")
    version = root.get("version")
    known = isinstance(version, str) and len(version) <= 64 and version.isprintable()
    common: dict[str, Any] = {
        "path": path,
        "container": container.kind,
        "version": version if known else None,
        "blocks": MappingProxyType(container.blocks),
    }
    if "pretrained" in root:
        name = root["pretrained"]
        if not isinstance(name, str):
            raise PackageError(f"{path}: 'pretrained' should be the name of a codec, found {type(name).__name__}.")
        return Header(**common, role="reference", config=Config({}), tensors={}, reference=name)

    _require_export(path, root)
    text = root["xp.cfg"]
    if not isinstance(text, str):
        raise PackageError(f"{path}: 'xp.cfg' should be YAML text, found {type(text).__name__}.")
    config = Config.parse(text, f"{path}: xp.cfg")
    if "transformer_lm" in config or "lm_model" in config:
        role = "lm"
    elif "compression_model" in config:
        role = "codec"
    else:
        raise ConfigError(f"{path}: xp.cfg describes neither a language model nor a codec.")
    tensors = _tensors(path, root["best_state"], container.blocks)
    return Header(**common, role=role, config=config, tensors=MappingProxyType(tensors), reference=None)


def _require_export(path: Path, root: dict[str, Any]) -> None:
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


def _tensors(path: Path, state: dict[str, Any], blocks: Mapping[str, Block]) -> dict[str, TensorInfo]:
    infos: dict[str, TensorInfo] = {}
    for name, stub in state.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise PackageError(f"{path}: {name[:60]!r} in best_state is no name of a tensor.")
        if not isinstance(stub, TensorStub):
            raise PackageError(f"{path}: '{name}' in best_state is a {type(stub).__name__}, not a tensor.")
        info = TensorInfo(stub.shape, stub.storage.dtype, stub.storage.key, stub.offset, stub.stride)
        item = ITEM_SIZES[info.dtype]
        block = blocks.get(info.block)
        last = stub.offset + sum((n - 1) * s for n, s in zip(stub.shape, stub.stride, strict=True))
        if block is None:
            raise PackageError(f"{path}: the data of the tensor '{name}' is missing from the file.")
        if block.size < stub.storage.numel * item or (info.numel and last >= stub.storage.numel):
            raise PackageError(f"{path}: the tensor '{name}' {list(info.shape)} reaches beyond the data stored for it.")
        if info.numel > stub.storage.numel:
            raise PackageError(f"{path}: the tensor '{name}' {list(info.shape)} has more elements than are stored.")
        infos[name] = info
    return infos
