"""The two containers of torch.save: what is read, what is refused, and that a large file is not read for its header."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from codecbay.errors import PackageError, SourceError
from codecbay.factory import open_package
from codecbay.package.layouts import read_header
from codecbay.sources import local_path
from package.conftest import Read
from package.forge import (
    FILES,
    appended,
    golden,
    harmless,
    legacy,
    package,
    record,
    rezipped,
    saved,
    with_pickle,
    with_record,
)

LM = golden("lm")
CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"


def patched(signature: bytes, offset: int, value: bytes) -> bytes:
    """The golden file with bytes changed behind the fifth place where a signature stands, or behind the only one."""
    places = [i for i in range(len(LM)) if LM.startswith(signature, i)]
    start = places[min(5, len(places) - 1)] + offset
    return LM[:start] + value + LM[start + len(value) :]


READABLE = {
    "as it is": LM,
    "written by zip": rezipped(LM),
    "another top folder": rezipped(LM, lambda name, data: ("Modèle 1/" + name.split("/", 1)[1], data)),
    "no version": with_record(LM, "/version", None),
    "no byte order": with_record(LM, "/byteorder", None),
    "more data than needed": with_record(LM, "/data/0", record(LM, "/data/0") + bytes(100)),
    "more records": appended(LM, "../../elsewhere", b"content"),
    "old": legacy(package("lm")),
    **{f"protocol {p}": saved(package("lm"), pickle_protocol=p) for p in (3, 4, 5)},
    **{f"old, protocol {p}": legacy(package("lm"), pickle_protocol=p) for p in (3, 4, 5)},
}


@pytest.mark.parametrize("data", READABLE.values(), ids=READABLE)
def test_what_torch_may_have_written_is_read(data: bytes, read: Read) -> None:
    header, expected = read(data), package("lm")["best_state"]
    assert {name: info.shape for name, info in header.tensors.items()} == {k: v.shape for k, v in expected.items()}
    assert header.role == "lm"


def archive(content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as target:
        for name, data in content.items():
            target.writestr(name, data)
    return stream.getvalue()


def old(*values: Any) -> bytes:
    return b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, *values))


LITTLE = {"little_endian": True}
DAMAGED = {
    "compressed": rezipped(LM, compression=zipfile.ZIP_DEFLATED),
    "compressed by lzma": rezipped(LM, compression=zipfile.ZIP_LZMA),
    "bomb": archive({"a/data.pkl": b"]" * 50_000_000}, zipfile.ZIP_DEFLATED),
    "huge pickle": archive({"a/data.pkl": b"]" * 50_000_000}),
    "many records": archive({f"a/data/{i}" + "x" * 60: b"" for i in range(50_000)}),
    "two of a name": appended(LM, zipfile.ZipFile(io.BytesIO(LM)).namelist()[0], b"N."),
    "two pickles": appended(LM, "other/data.pkl", b"N."),
    "no pickle": with_record(LM, "/data.pkl", None),
    "no record at all": archive({}),
    "an archive in the archive": with_pickle(LM),
    "big-endian": with_record(LM, "/byteorder", b"big"),
    "data missing": with_record(LM, "/data/3", None),
    "data short": with_record(LM, "/data/3", record(LM, "/data/3")[:-1]),
    "something in front": b"x" * 100 + LM,
    "encrypted": patched(CENTRAL, 8, b"\x01\x08"),
    "unknown compression": patched(CENTRAL, 10, b"\x63\0"),
    "unknown version": patched(CENTRAL, 6, b"\x63\0"),
    "outside the file": patched(CENTRAL, 42, b"\xff\xff\xff\x7f"),
    "larger than the file": patched(CENTRAL, 20, b"\xff\xff\xff\x0f" * 2),
    "size elsewhere": patched(CENTRAL, 20, b"\xff" * 8),
    "checksum of the pickle": LM.replace(b"best_state", b"best_strte", 1),
    "no end": LM.replace(END, b"PK\x05\x07"),
    "old: nothing follows": old(),
    "old: other protocol": old(1002, LITTLE, {}, []),
    "old: protocol is a list": old([[1001]], LITTLE, {}, []),
    "old: big-endian": old(1001, {"little_endian": False}, {}, []),
    "old: no system": old(1001, 1, {}, []),
    "old: keys are none": old(1001, LITTLE, {}, {}),
    "old: keys are numbers": old(1001, LITTLE, {}, [1, 2]),
    "old: unknown key": old(1001, LITTLE, {}, ["0"]) + bytes(100),
    "old: cut": legacy(package("lm"))[:-1],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_container_is_refused(data: bytes, read: Read) -> None:
    with pytest.raises(PackageError):
        read(data)


FOREIGN = {
    "empty": b"",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "web page": b"\n<!DOCTYPE html><html></html>",
    "sound file": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(100),
    "gzip": gzip.compress(b"content"),
    "plain pickle": pickle.dumps({"best_state": {}, "xp.cfg": ""}),
    "safetensors": (100).to_bytes(8, "little") + b"{" + bytes(100),
    "no file of a kind": b"\x7fELF" + bytes(100),
    "not one that torch": archive({"word/document.xml": b"<xml/>"}),
}


@pytest.mark.parametrize(("what", "data"), FOREIGN.items(), ids=FOREIGN)
def test_a_foreign_file_is_named(what: str, data: bytes, read: Read) -> None:
    with pytest.raises(PackageError, match=what):
        read(data)


def test_a_large_file_is_not_read_for_its_header(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with torch.serialization.skip_data():  # 2 GB that take no room on the disk
        torch.save(package("lm", best_state={"emb.0.weight": torch.empty(1 << 29)}), path)
    assert path.stat().st_size > 2 << 30

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before, start = bytes_read(), time.perf_counter()
    with harmless(megabytes=50):
        header = read_header(path)
    assert bytes_read() - before < 1_000_000
    assert time.perf_counter() - start < 0.5
    assert header.num_bytes == 4 << 29


def test_an_archive_cannot_declare_a_directory_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.seek(2 << 30)
        stream.write(END + bytes(8) + (2 << 30).to_bytes(4, "little") + bytes(6))
    with harmless(megabytes=50), pytest.raises(PackageError, match="larger than"):
        read_header(path)


# ------------------------------------------------------------------------------------------------- the file system


def test_files_may_be_links_and_directories_may_be_called_anything(tmp_path: Path) -> None:
    directory = tmp_path / "mon modèle – 模型"
    directory.mkdir()
    for name in FILES.values():
        (tmp_path / f"blob {name}").write_bytes(golden("lm" if name == FILES["lm"] else "codec"))
        (directory / name).symlink_to(tmp_path / f"blob {name}")
    package = open_package(directory)
    assert (package.lm.header.role, package.codec is not None) == ("lm", True)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
@pytest.mark.parametrize("name", FILES.values())
def test_what_is_no_file_is_not_opened(make: Any, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with harmless(), pytest.raises(SourceError):
        open_package(tmp_path)
    with harmless(), pytest.raises(PackageError):
        read_header(tmp_path / name)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/self/environ"])
def test_devices_are_not_packages(path: str) -> None:
    with harmless(), pytest.raises(PackageError):
        open_package(path)


@pytest.mark.parametrize("source", ["", " ", "\0", "https://example.com/model", "hf://a/b", b"bytes"])
def test_a_source_that_is_no_path_is_refused(source: Any) -> None:
    with harmless(), pytest.raises(SourceError):
        local_path(source)


@pytest.mark.parametrize("source", ["no/such", "~no-such-user/x", "x" * 10_000, "a\nb", "a" * 200 + "/" + "b" * 300])
def test_a_source_that_leads_nowhere_is_refused(source: str) -> None:
    with harmless(), pytest.raises(SourceError) as caught:
        open_package(source)
    assert len(str(caught.value)) < 1000
