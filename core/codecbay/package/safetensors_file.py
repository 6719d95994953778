"""The header of a safetensors file (https://github.com/huggingface/safetensors#format)."""

from __future__ import annotations

import json
import math
from typing import Any

from codecbay.errors import PackageError
from codecbay.package.container import Block, Container
from codecbay.package.pickles import ITEM_SIZES, StorageStub, TensorStub
from codecbay.remote.paths import AnyPath

MAX_HEADER = 8 << 20  # bytes
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(path: AnyPath) -> Container:
    """What a safetensors file holds, with stubs for tensors, in the form of any other container.

    Raises:
        PackageError: it is no such file, or damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER):
                raise ValueError(f"its header claims {length} bytes")
            entries = json.loads(stream.read(length))
        if not isinstance(entries, dict):
            raise ValueError("its header is no dictionary")
        facts = entries.pop("__metadata__", {})
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ValueError("its metadata are not text")
        stubs: dict[str, TensorStub] = {}
        blocks: dict[str, Block] = {}
        for name, entry in entries.items():
            stubs[name], blocks[name] = _tensor(name, entry, 8 + length, size)
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackageError(f"{path}: this is no safetensors file, or it is damaged: {str(error)[:200]}.") from None
    return Container("safetensors", stubs, blocks, facts)


def _tensor(name: str, entry: Any, start: int, size: int) -> tuple[TensorStub, Block]:
    dtype, shape, (first, last) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, first, last)) or len(shape) > 16:
        raise ValueError(f"the tensor {name[:60]!r} has a shape or place that is none")
    count = math.prod(shape)
    if last - first != count * ITEM_SIZES[dtype] or start + last > size:
        raise ValueError(f"the tensor {name[:60]!r} does not lie within the file")
    stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return TensorStub(StorageStub(name, dtype, count), 0, tuple(shape), stride), Block(
        start + first, last - first, None
    )
