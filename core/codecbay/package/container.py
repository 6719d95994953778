"""The two containers ``torch.save`` has written: a zip of records, and before torch 1.6 a chain of pickles.

Both are opened far enough to know every tensor and where its bytes lie; the bytes themselves are not read.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from dataclasses import dataclass, field
from typing import IO, Any

from codecbay.errors import PackageError, SourceError, UnsafePickleError
from codecbay.package.pickles import ITEM_SIZES, StorageStub, load_stub
from codecbay.remote.paths import BUFFER, AnyPath

# The pickle of the largest published package has under 200 kB and 700 tensors, of under 100 reads each.
MAX_PICKLE = 2 << 20  # bytes
MAX_READS = 250_000  # of an opcode or its argument: each may take a hundred bytes of memory
_OF_CHECKPOINTS = 4  # times as many: they hold the weights several times over, for the optimizer and as averages
MAX_READ = 4 << 20  # bytes at once; what the zip reader may take for an archive's directory, which has under 100 kB
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a number, in a pickle of its own
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run 'git lfs pull'"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"\x80\x04\x95", "a plain pickle, not a file that torch.save wrote"),
    (b"RIFF", "a sound file"),
    (b"fLaC", "a sound file"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
)


@dataclass(frozen=True)
class Block:
    """The bytes of one storage within the file.

    Attributes:
        offset: of the first byte.
        size: in bytes.
        crc: the CRC-32 that the container records, if it does.
    """

    offset: int
    size: int
    crc: int | None


@dataclass(frozen=True)
class Container:
    """What a file holds, short of tensor data.

    Attributes:
        kind: ``zip``, ``legacy`` or ``safetensors``.
        root: the saved object, with stubs for tensors.
        blocks: where the storages lie, by key.
        facts: text that a safetensors file holds beside its tensors.
    """

    kind: str
    root: Any
    blocks: dict[str, Block]
    facts: dict[str, str] = field(default_factory=dict)


def read_container(path: AnyPath, *, inert: bool = False) -> Container:
    """Open a file that ``torch.save`` wrote.

    Args:
        path: of the file.
        inert: take objects of any class, as :class:`~codecbay.package.pickles.InertObject`, as training checkpoints
            hold them; else they are refused.

    Raises:
        PackageError: it is not such a file, or it is damaged.
        UnsafePickleError: its pickle asks for more than dictionaries of tensors.
    """
    try:
        if not path.is_file():
            raise PackageError(f"{path}: not a file.")
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(64)
            if start.startswith(b"PK\x03\x04"):
                raw: Any = path.open("rb", buffering=0)
                with _Sparing(raw, BUFFER) as sparing:
                    return _read_zip(path, sparing, size, inert)
            if start.startswith(b"\x80") and _LEGACY_MAGIC in start:
                stream.seek(0)
                return _read_legacy(path, stream, size, inert)
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror or error}.") from None
    raise PackageError(f"{path}: {_describe(start, size)}. Expected a file that torch.save wrote.")


def _describe(start: bytes, size: int) -> str:
    if not size:
        return "the file is empty"
    for magic, text in _FOREIGN:
        if start.lstrip().startswith(magic):
            return f"this is {text}"
    if size > 8 and 2 <= int.from_bytes(start[:8], "little") < size and start[8:9] == b"{":
        return "this is a safetensors file"
    return "this is no file of a kind that is known here"


def _damaged(path: AnyPath, problem: str) -> PackageError:
    return PackageError(f"{path}: the file is damaged: {problem}. Fetch or export it again.")


class _Sparing(io.BufferedReader):
    """Gives the zip reader at most ``MAX_READ`` bytes at once, whatever sizes the archive declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(MAX_READ + 1 if size is None or size < 0 else min(size, MAX_READ + 1))
        if len(data) > MAX_READ:
            raise ValueError(f"a part of it is larger than {MAX_READ >> 20} MiB")
        return data


class _Bounded:
    """Feeds pickles from a stream, up to ``MAX_PICKLE`` bytes and ``MAX_READS`` reads in all."""

    def __init__(self, stream: IO[bytes], inert: bool) -> None:
        self.inert = inert
        self._stream = stream
        self._bytes = MAX_PICKLE
        self._reads = MAX_READS * (_OF_CHECKPOINTS if inert else 1)

    def read(self, size: int, /) -> bytes:
        self._count(size)
        data = self._stream.read(size)
        if len(data) < size:
            raise UnsafePickleError("its pickle is cut short")
        return data

    def readline(self) -> bytes:
        line = self._stream.readline(1 << 16)
        self._count(len(line))
        return line

    def _count(self, size: int) -> None:
        self._bytes -= size
        self._reads -= 1
        if size < 0 or self._bytes < 0 or self._reads < 0:
            raise UnsafePickleError("its pickle is larger than any package needs")


def _unpickle(path: AnyPath, stream: _Bounded) -> Any:
    try:
        return load_stub(stream, inert=stream.inert)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path}: the pickle inside was refused: {error}.") from None


def _read_zip(path: AnyPath, stream: IO[bytes], size: int, inert: bool) -> Container:
    try:
        archive = zipfile.ZipFile(stream)
    except SourceError:
        raise
    except Exception as error:  # the zip reader fails in a dozen ways on damaged archives
        raise _damaged(path, f"{error}" or type(error).__name__) from None
    entries = archive.infolist()
    for entry in entries:
        name = entry.filename[:100]
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise PackageError(
                f"{path}: the record {name!r} is compressed; torch.save never does that. "
                "Save the package again with torch.save."
            )
        if entry.flag_bits & 1:
            raise PackageError(f"{path}: the record {name!r} is encrypted.")
        if entry.header_offset < 0 or entry.header_offset + entry.file_size > size:
            raise _damaged(path, f"the record {name!r} lies outside the file")
    records = {entry.filename: entry for entry in entries}
    if len(records) != len(entries):
        raise _damaged(path, "two records have one name")
    tops = [name[: -len("/data.pkl")] for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(tops) != 1:
        raise PackageError(f"{path}: this is a zip archive, but not one that torch.save wrote (no data.pkl).")
    prefix = tops[0]
    order = records.get(f"{prefix}/byteorder")
    if order is not None and order.file_size <= 16 and _content(path, archive, order) != b"little":
        raise PackageError(f"{path}: the tensors are stored big-endian; save them on a little-endian machine.")

    data = f"{prefix}/data/"
    blocks = {
        # The offset of the content stands in the record's own header; weights.py asks for it when it reads.
        name.removeprefix(data): Block(entry.header_offset, entry.file_size, entry.CRC)
        for name, entry in records.items()
        if name.startswith(data)
    }
    pickle_entry = records[f"{prefix}/data.pkl"]
    if pickle_entry.file_size > MAX_PICKLE:
        raise UnsafePickleError(f"{path}: the pickle inside is larger than {MAX_PICKLE >> 20} MiB.")
    root = _unpickle(path, _Bounded(io.BytesIO(_content(path, archive, pickle_entry)), inert))
    return Container("zip", root, blocks)


def _content(path: AnyPath, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except SourceError:
        raise
    except Exception as error:  # as above; this one also finds a wrong checksum
        raise _damaged(path, f"{error}" or type(error).__name__) from None


def content_offset(stream: IO[bytes], block: Block) -> int:
    """Where the content of a zip record starts: behind its own header, whose length varies.

    Raises:
        ValueError: there is no record.
    """
    stream.seek(block.offset)
    data = stream.read(_LOCAL_HEADER.size)
    if len(data) < _LOCAL_HEADER.size or not data.startswith(b"PK\x03\x04"):
        raise ValueError("a record's header is not where the directory says")
    _, name_size, extra_size = _LOCAL_HEADER.unpack(data)
    return block.offset + _LOCAL_HEADER.size + int(name_size) + int(extra_size)


def _read_legacy(path: AnyPath, stream: IO[bytes], size: int, inert: bool) -> Container:
    pickles = _Bounded(stream, inert)
    _, protocol, system = (_unpickle(path, pickles) for _ in range(3))
    if protocol != 1001:
        raise PackageError(f"{path}: written with a protocol of torch.save that is not known; only 1001 is.")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PackageError(f"{path}: the tensors are stored big-endian; save them on a little-endian machine.")
    root = _unpickle(path, pickles)
    keys = _unpickle(path, pickles)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _damaged(path, "the list of its storages is not one")
    item_sizes = {s.key: ITEM_SIZES[s.dtype] for s in _storages(root)}
    blocks: dict[str, Block] = {}
    for key in keys:
        if key not in item_sizes or key in blocks:
            raise _damaged(path, "its storages are not those that its tensors use")
        head = stream.read(8)
        count = int.from_bytes(head, "little", signed=True)
        start = stream.tell()
        if len(head) < 8 or count < 0 or start + count * item_sizes[key] > size:
            raise _damaged(path, "it ends before its tensors do")
        blocks[key] = Block(start, count * item_sizes[key], None)
        stream.seek(count * item_sizes[key], os.SEEK_CUR)
    return Container("legacy", root, blocks)


def _storages(root: Any) -> list[StorageStub]:
    found: list[StorageStub] = []
    seen: set[int] = set()
    pending = [root]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif hasattr(value, "storage"):
            found.append(value.storage)
    return found
