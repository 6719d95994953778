"""The header of a package file: everything it says short of tensor data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from codecbay.errors import ConfigError, PackageError
from codecbay.package.config import Config, Section
from codecbay.package.container import Block, Container
from codecbay.package.pickles import ITEM_SIZES, TensorStub
from codecbay.remote.paths import AnyPath

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
    """What a package says, short of tensor data.

    Attributes:
        path: the file, or the directory of a package that is one; it may lie on the other side of a network.
        layout: how it is laid out: ``audiocraft`` (an export package), ``transformers`` (a directory with
            ``config.json`` and weights), or ``descript`` (a file with ``state_dict`` and ``metadata``).
        container: of the weights: ``zip``, ``legacy`` or ``safetensors``; ``none`` for a reference.
        role: ``lm``, ``codec``, or ``reference`` to a published codec.
        config: the configuration: ``xp.cfg``, ``config.json``, or the arguments in the metadata.
        tensors: every tensor, by name.
        weights: the file that holds them.
        blocks: where their bytes lie in it.
        state_path: keys that lead to the tensors in what was saved.
        reference: the name of the published codec, for a reference.
        version: of the program that exported the package, where it is recorded.
        codec_fingerprint: of this codec, or of the codec that this language model was trained on, where it is recorded.
        part: which of the packages in the file it is, where the file holds several.
        source: name and digest of the file that a twin was made from; see :mod:`codecbay.package.twin`.
    """

    path: AnyPath
    layout: str
    container: str
    role: str
    config: Config
    tensors: Mapping[str, TensorInfo]
    weights: AnyPath
    blocks: Mapping[str, Block]
    state_path: tuple[str, ...] = ()
    reference: str | None = None
    version: str | None = None
    codec_fingerprint: str | None = None
    part: str | None = None
    source: tuple[str, str] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel * ITEM_SIZES[t.dtype] for t in self.tensors.values())

    def check_shape(self, section: Section, name: str, shape: tuple[int, ...], *keys: str) -> None:
        """Compare a tensor with what the configuration makes of it.

        Args:
            section: of the configuration.
            name: of the tensor.
            shape: that it should have.
            keys: of the section, which ask for the first of these sizes, the second, and so on.

        Raises:
            ConfigError: it is not there, or has another shape; the message names the key.
        """
        info = self.tensors.get(name)
        if info is None:
            raise section.error(keys[0], f"asks for the tensor '{name}' {list(shape)}, which is not in the package.")
        if info.shape != shape:
            sizes = zip(keys, info.shape, shape, strict=False)
            key = next((key for key, found, wanted in sizes if found != wanted), keys[0])
            raise section.error(key, f"asks for {list(shape)}, but the tensor '{name}' is {list(info.shape)}.")

    @classmethod
    def for_reference(cls, name: str, path: AnyPath | None = None) -> Header:
        """The header of a reference to the published codec ``name``."""
        where: AnyPath = Path(name) if path is None else path
        return cls(where, "audiocraft", "none", "reference", Config({}), {}, where, {}, reference=name)


def role_of(config: Config, path: AnyPath) -> str:
    """What AudioCraft's configuration describes: ``lm`` or ``codec``.

    Raises:
        ConfigError: neither.
    """
    if "transformer_lm" in config or "lm_model" in config:
        return "lm"
    if "compression_model" in config:
        return "codec"
    raise ConfigError(f"{path}: xp.cfg describes neither a language model nor a codec.")


def header_of(
    path: AnyPath, layout: str, role: str, config: Config, file: AnyPath, container: Container, *state_path: str
) -> Header:
    """The header of a container whose tensors lie where ``state_path`` leads.

    Raises:
        PackageError: they are no tensors, or their data is not there.
    """
    state = container.root
    for key in state_path:
        state = state[key]
    tensors = _tensors(file, state, container.blocks)
    used = {info.block: container.blocks[info.block] for info in tensors.values()}
    return Header(
        path, layout, container.kind, role, config, MappingProxyType(tensors), file, MappingProxyType(used), state_path
    )


def _tensors(path: AnyPath, state: dict[str, Any], blocks: Mapping[str, Block]) -> dict[str, TensorInfo]:
    infos: dict[str, TensorInfo] = {}
    for name, stub in state.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise PackageError(f"{path}: {name[:60]!r} is no name of a tensor.")
        if not isinstance(stub, TensorStub):
            raise PackageError(f"{path}: '{name}' is a {type(stub).__name__}, not a tensor.")
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
