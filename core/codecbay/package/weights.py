"""Tensor data: read from a package file whose header was found good, and put into a model, strictly."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from codecbay.errors import PackageError, WeightsError, nearest
from codecbay.package.container import content_offset
from codecbay.package.header import FLOATS, Header

_SHOWN = 5  # names listed of a kind of mismatch


def check_tensors(header: Header, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the tensors that a header lists with those that its configuration describes.

    Raises:
        WeightsError: some are missing, unexpected, of another shape, or not floating point; all are named.
    """
    found = header.tensors
    problems = []
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing:
        problems.append(f"missing: {_names(missing)}.{nearest(missing[0], unexpected)}")
    if unexpected:
        problems.append(f"unexpected: {_names(unexpected)}.")
    misshapen = [
        f"'{name}' {list(found[name].shape)} where the configuration asks for {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != tuple(shape)
    ]
    if misshapen:
        problems.append(f"of another shape: {_names(misshapen)}.")
    others = [f"'{name}' ({found[name].dtype})" for name in found if found[name].dtype not in FLOATS]
    if others:
        problems.append(f"not floating point: {_names(others)}.")
    if problems:
        raise WeightsError(f"{header.path}: the tensors do not fit the configuration. " + " ".join(problems))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def load_tensors(header: Header) -> dict[str, Tensor]:
    """The tensors of a package file, by name, on the CPU; memory-mapped where the container allows it.

    Raises:
        PackageError: the file cannot be read, or a checksum is wrong.
        WeightsError: a tensor holds NaN or infinity.
    """
    _verify_checksums(header)
    try:
        with _numpy_scalars():
            package = torch.load(
                str(header.path),
                map_location="cpu",
                weights_only=True,
                mmap=header.container == "zip" or None,
            )
        state = {name: package["best_state"][name].detach() for name in header.tensors}
    except Exception as error:  # torch raises whatever its reader meets
        raise PackageError(f"{header.path}: torch cannot read it: {' '.join(str(error).split())[:300]}") from None
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor):
            raise WeightsError(f"{header.path}: the tensor '{name}' holds NaN or infinity.")
    return state


def _is_finite(tensor: Tensor) -> bool:
    low, high = torch.aminmax(tensor)  # one pass without a temporary; NaN comes through
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _numpy_scalars() -> AbstractContextManager[Any]:
    # Metadata beside the tensors may hold numpy numbers, pickled by numpy 1 or 2.
    import numpy as np

    try:
        from numpy._core.multiarray import scalar
    except ImportError:  # numpy 1
        from numpy.core.multiarray import scalar
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__] if hasattr(np, "dtypes") else []
    aliases: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return torch.serialization.safe_globals([*aliases, np.dtype, *dtypes])


def _verify_checksums(header: Header) -> None:
    if header.container != "zip" or not header.blocks:
        return
    with header.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        with memoryview(data) as view:
            for block in header.blocks.values():
                try:
                    start = content_offset(stream, block)
                except ValueError as error:
                    raise PackageError(f"{header.path}: the file is damaged: {error}.") from None
                if start + block.size > len(view) or zlib.crc32(view[start : start + block.size]) != block.crc:
                    raise PackageError(
                        f"{header.path}: the file is damaged: a checksum is wrong. Fetch or export it again."
                    )


def assign(module: nn.Module, tensors: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype) -> None:
    """Give a module that was built on the meta device its tensors, without a copy where none is needed.

    Rotary frequencies stay in float32 whatever ``dtype`` is: positions need its precision.

    Args:
        module: every parameter and buffer of it gets its value from ``tensors``.
        tensors: by the names of the module's state dict.
        device: where the module shall live.
        dtype: floating-point type of the parameters.
    """
    converted = {
        name: tensor.to(device=device, dtype=torch.float32 if ".rope." in f".{name}" else dtype)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(converted, strict=True, assign=True)
