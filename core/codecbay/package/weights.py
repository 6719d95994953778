"""Tensor data: read from a package file whose header was found good, and put into a model, strictly."""

from __future__ import annotations

import os
import warnings
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from tqdm import tqdm
from zlib_ng import zlib_ng

from codecbay.errors import PackageError, PluginError, WeightsError, nearest
from codecbay.package.container import content_offset
from codecbay.package.header import FLOATS, Header
from codecbay.remote import RemotePath

_SHOWN = 5  # names listed of a kind of mismatch
_ALIGNMENT = 16  # bytes; the widest element has as many
_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # numbers by the bytes of one


def check_tensors(header: Header, expected: Mapping[str, tuple[int, ...]], *, whole: Container[str] = ()) -> None:
    """Compare the tensors that a header lists with those that its configuration describes.

    Args:
        header: of the package.
        expected: shapes by name.
        whole: names of tensors that hold whole numbers.

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
    others = [f"'{name}' ({found[name].dtype})" for name in found if (found[name].dtype in FLOATS) is (name in whole)]
    if others:
        problems.append(f"not floating point: {_names(others)}.")
    if problems:
        raise WeightsError(f"{header.path}: the tensors do not fit the configuration. " + " ".join(problems))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def load_tensors(header: Header, *, progress: bool = False) -> dict[str, Tensor]:
    """The tensors of a package file, by name, on the CPU, memory-mapped.

    A zip file is read by torch's own safe reader; what that does not take (the older container, safetensors, pickles of
    protocol 3 and above) is put together from what the header says. Either way they are the tensors of the header.

    Args:
        header: of the file.
        progress: show a progress bar.

    Raises:
        PackageError: the file cannot be read, or a checksum is wrong.
        WeightsError: a tensor holds NaN or infinity.
    """
    if isinstance(header.weights, RemotePath):
        raise PackageError(f"{header.path}: has to be fetched before its tensors can be read.")
    try:
        starts = _starts(header)
        state = _read_by_torch(header) if header.container == "zip" else None
        if state is None:
            state = _put_together(header, starts)
        _check(header, state, progress)
    except ValueError as error:
        raise PackageError(f"{header.path}: the file is damaged: {error}. Fetch or export it again.") from None
    except (OSError, RuntimeError) as error:
        raise PackageError(f"{header.path}: cannot be read: {' '.join(str(error).split())[:300]}.") from None
    return state


def _read_by_torch(header: Header) -> dict[str, Tensor] | None:
    """The tensors of a zip file, or ``None`` where its pickle holds what torch's safe reader does not know, or where
    they begin in the middle of a number.

    Raises:
        ValueError: they are not the tensors of the header: the file says two things at once.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols other than 2
            found = torch.load(str(header.weights), map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # it fails in many ways at what it does not know
        return None
    for key in header.state_path:
        found = found[key]
    state: dict[str, Tensor] = {}
    for name, info in header.tensors.items():
        tensor = found.get(name)
        read = tensor is not None and (tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype)
        if read != (info.shape, info.stride, info.offset, getattr(torch, info.dtype)):
            raise ValueError(f"the tensor {name!r} is not what the header says")
        if tensor.untyped_storage().data_ptr() % _ALIGNMENT:
            return None
        state[name] = tensor.detach()  # a parameter becomes a tensor
    return state


def _put_together(header: Header, starts: Mapping[str, int]) -> dict[str, Tensor]:
    whole = torch.UntypedStorage.from_file(str(header.weights), False, header.weights.stat().st_size)
    storages: dict[str, torch.UntypedStorage] = {}
    state: dict[str, Tensor] = {}
    for name, info in header.tensors.items():
        storage = storages.get(info.block)
        if storage is None:
            start = starts[info.block]
            storage = whole[start : start + header.blocks[info.block].size]
            if start % _ALIGNMENT:
                storage = storage.clone()
            storages[info.block] = storage
        dtype: torch.dtype = getattr(torch, info.dtype)
        state[name] = torch.empty(0, dtype=dtype, device="cpu").set_(storage, info.offset, info.shape, info.stride)
    return state


def _starts(header: Header) -> dict[str, int]:
    """Where the content of each block starts."""
    with header.weights.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        starts = {
            key: content_offset(stream, block) if header.container == "zip" else block.offset
            for key, block in header.blocks.items()
        }
    if any(starts[key] + block.size > size for key, block in header.blocks.items()):
        raise ValueError("it ends before its tensors do")
    return starts


def _check(header: Header, state: Mapping[str, Tensor], progress: bool) -> None:
    """Compare checksums, where there are any, and look for what is not finite, a block at a time while it is in cache.

    Blocks are shared out among as many threads as torch uses. Nothing here is torch's, whose operations would each
    start as many threads again.
    """
    names: dict[str, list[str]] = {}
    for name, info in header.tensors.items():
        names.setdefault(info.block, []).append(name)

    def check(key: str) -> None:
        block = header.blocks[key]
        if block.crc is not None and zlib_ng.crc32(_content(state[names[key][0]])) != block.crc:
            raise ValueError("a checksum is wrong")
        for name in names[key]:
            if not _is_finite(state[name]):
                raise WeightsError(f"{header.path}: the tensor '{name}' holds NaN or infinity.")

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        checked = pool.map(check, names)
        for _ in tqdm(checked, "reading", len(names), unit="block", disable=None if progress else True):
            pass


def _content(tensor: Tensor) -> memoryview:
    """The block that a tensor lies in."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,)).numpy().data


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    whole, unsigned = _WHOLE[tensor.itemsize], f"u{tensor.itemsize}"
    bits = tensor.view(whole).numpy()
    plus, minus = torch.tensor([torch.inf, -torch.inf], dtype=tensor.dtype).view(whole).numpy()
    # Read as a whole number, what is not finite is the largest of its sign, and negative is largest without a sign.
    return bool(bits.max() < plus and bits.view(unsigned).max() < minus.view(unsigned))


def compact(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, contiguous and each with memory of its own, no larger than it: writers save all of it."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        start = tensor.untyped_storage().data_ptr()
        alone = start not in seen and tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        result[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(start)
    return result


def _type_of(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if ".rope." in f".{name}" else dtype


def assign(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    as_stored: Container[str] = (),
) -> None:
    """Give a module that was built on the meta device its tensors, without a copy where none is needed.

    Rotary frequencies stay in float32 whatever ``dtype`` is: positions need its precision.

    Args:
        module: every parameter and buffer of it gets its value from ``tensors``.
        tensors: by the names of the module's state dict.
        device: where the module shall live.
        dtype: floating-point type of the parameters.
        as_stored: names of the tensors that keep the type they have.

    Raises:
        PluginError: a buffer that is not in the state dict was left on the meta device, without a value.
    """
    converted = {
        name: tensor.to(device, _type_of(name, dtype) if tensor.is_floating_point() and name not in as_stored else None)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(converted, strict=True, assign=True)
    for name, buffer in module.named_buffers():
        if buffer.is_meta:
            raise PluginError(
                f"{type(module).__name__}: the buffer '{name}' has no value: it is not in the state dict, and was "
                'computed under torch.device("meta"). Compute it with device="cpu".'
            )
