"""Makes packages for tests: the golden ones with something changed, and pickles written opcode by opcode."""

from __future__ import annotations

import copy
import io
import resource
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

MONO = Path(__file__).parents[1] / "fixtures" / "audiocraft" / "musicgen-mono"
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
FILES = {"lm": "state_dict.bin", "codec": "compression_state_dict.bin"}


@cache
def golden(role: str) -> bytes:
    """The file of the golden package that plays a role."""
    return (MONO / FILES[role]).read_bytes()


@cache
def _saved(role: str) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(io.BytesIO(golden(role)), weights_only=True)
    return saved


@cache
def _config(role: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(_saved(role)["xp.cfg"])
    return config


def package(role: str, **changes: Any) -> dict[str, Any]:
    """What a golden file holds, with some keys changed; ``xp_cfg`` for ``xp.cfg``."""
    return {**_saved(role), **{key.replace("xp_cfg", "xp.cfg"): value for key, value in changes.items()}}


def tensors(role: str, **changes: Any) -> dict[str, Any]:
    """The tensors of a golden file, with some changed (``__`` for dots in names) or, by ``None``, left out."""
    state = {**_saved(role)["best_state"], **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


def config_text(role: str) -> str:
    """The YAML text of a golden file."""
    text: str = _saved(role)["xp.cfg"]
    return text


def configured(role: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A golden file's content with values of the configuration changed, by dotted path; ``...`` takes one out."""
    config = copy.deepcopy(_config(role))
    for path, value in changes.items():
        *parents, last = path.split(".")
        section = config
        for key in parents:
            section = section[key]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return package(role, xp_cfg=yaml.dump(config, Dumper=_Dumper, sort_keys=False))


def config_paths(role: str, *sections: str) -> list[str]:
    """The dotted paths of all values in some sections of a golden configuration."""

    def walk(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for key, child in value.items():
                yield from walk(child, f"{path}.{key}")
        else:
            yield path

    return [path for section in sections for path in walk(_config(role)[section], section)]


def saved(content: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def legacy(content: Any, **options: Any) -> bytes:
    """What ``torch.save`` wrote before version 1.6."""
    return saved(content, _use_new_zipfile_serialization=False, **options)


Change = Callable[[str, bytes], tuple[str, bytes] | None]


def rezipped(data: bytes, change: Change = lambda *record: record, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive written again, its records changed or, by ``None``, left out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w", compression) as target:
        for name in source.namelist():
            record = change(name, source.read(name))
            if record is not None:
                target.writestr(*record)
    return stream.getvalue()


def with_record(data: bytes, suffix: str, content: bytes | None) -> bytes:
    """An archive with the content of one record replaced, or without it."""

    def change(name: str, old: bytes) -> tuple[str, bytes] | None:
        if not name.endswith(suffix):
            return name, old
        return None if content is None else (name, content)

    return rezipped(data, change)


def record(data: bytes, suffix: str) -> bytes:
    """The content of one record of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(suffix)))


def with_pickle(pickle: bytes, role: str = "lm") -> bytes:
    """A golden file with another pickle in its archive, and right checksums."""
    return with_record(golden(role), "/data.pkl", pickle)


def appended(data: bytes, name: str, content: bytes) -> bytes:
    """An archive with one more record."""
    stream = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        archive.writestr(name, content)
    return stream.getvalue()


def directory(path: Path, **files: bytes) -> Path:
    """A package's directory: the golden files, some of them replaced by role."""
    path.mkdir(exist_ok=True)
    for role, name in FILES.items():
        (path / name).write_bytes(files.get(role, golden(role)))
    return path


# ------------------------------------------------------------------------------------------------------ opcodes


def text(value: str | bytes) -> bytes:
    """The opcode that puts a text on the stack."""
    data = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(data)) + data


def mapping(**items: bytes) -> bytes:
    """The opcodes of a dictionary, its values given as opcodes; ``xp_cfg`` for ``xp.cfg``."""
    return b"}" + b"".join(text(key.replace("xp_cfg", "xp.cfg")) + value + b"s" for key, value in items.items())


def tensor(
    *,
    key: str = "0",
    numel: bytes = b"K\x04",
    offset: bytes = b"K\0",
    shape: bytes = b"K\x04\x85",
    stride: bytes = b"K\x01\x85",
) -> bytes:
    """The opcodes of a tensor, of four 32-bit numbers."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + numel + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89" + hooks + b"tR"


# ----------------------------------------------------------------------------------------------------- vigilance

_events: list[str] = []
_STARTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect")
_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.truncate", "os.link", "os.symlink")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _events and (event in _STARTS or event in _WRITES or (event == "open" and set(str(arguments[1])) & set("wax+"))):
        _events.append(f"{event}{arguments}"[:200])


sys.addaudithook(_audit)


@contextmanager
def harmless(seconds: float = 2.0, megabytes: float = 500.0) -> Iterator[None]:
    """Fails where what is done inside runs or writes something, or takes more than it may."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    _events.append("watching")
    try:
        yield
    finally:
        seen = _events[1:]
        _events.clear()
        taken = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        if seen or taken > seconds or grown > megabytes:
            pytest.fail(f"{taken:.1f} s, {grown:.0f} MB, {seen}")
