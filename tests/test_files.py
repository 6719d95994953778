"""Files and directories appear whole or not at all: when writing fails, when the writer is killed, when two write."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from codecbay.errors import OutputError
from codecbay.files import written_directory, written_whole

Write = Callable[..., AbstractContextManager[Path]]
PARTS = 40  # of a file, and files of a directory
PART = 20_000  # bytes

WRITER = f"""
import itertools, sys
from pathlib import Path
from codecbay.files import written_directory, written_whole

kind, target, mark = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
print(flush=True)
for version in itertools.count():
    content = f"{{mark}}{{version % 10}}".encode() * {PART // 2}
    if kind == "file":
        with written_whole(target) as path, path.open("wb") as stream:
            for _ in range({PARTS}):
                stream.write(content)
                stream.flush()
    else:
        with written_directory(target, overwrite=True) as path:
            (path / "folder").mkdir()
            for i in range({PARTS}):
                (path / "folder" / f"{{i}}").write_bytes(content)
"""


def start(kind: str, target: Path, mark: str = "a") -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, kind, str(target), mark], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it is about to write
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()


def check(kind: str, target: Path) -> None:
    """What is there is one version, whole."""
    if kind == "file":
        content = target.read_bytes()
    else:
        parts = list((target / "folder").iterdir())
        assert len(parts) == PARTS
        content = b"".join(part.read_bytes() for part in parts)
    assert len(content) == PARTS * PART
    assert len({content[i : i + 2] for i in range(0, len(content), 2)}) == 1


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_writer_that_is_killed_leaves_the_old_or_the_new(kind: str, tmp_path: Path) -> None:
    target, chance = tmp_path / "target", random.Random(0)
    process = start(kind, target)
    while not target.exists():
        time.sleep(0.001)
    kill(process)
    for _ in range(20):
        process = start(kind, target)
        time.sleep(chance.uniform(0.0, 0.03))
        kill(process)
        check(kind, target)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_two_writers_of_one_target_do_not_mix(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    processes = [start(kind, target, mark) for mark in "ab"]
    time.sleep(0.5)
    for process in processes:
        kill(process)
    check(kind, target)


def fill(path: Path, text: str = "new") -> None:
    """Write something, whether it is a file or a directory."""
    (path / "inside" if path.is_dir() else path).write_text(text)


def content(path: Path) -> str:
    return (path / "inside" if path.is_dir() else path).read_text()


def failing(path: Path, error: Exception) -> None:
    fill(path)
    raise error


@pytest.mark.parametrize("write", [written_whole, written_directory])
def test_what_fails_leaves_what_was_there(write: Write, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with write(target) as path:
        fill(path, "old")
    with (
        pytest.raises(OutputError, match=r"target: cannot be written: disk full"),
        write(target, overwrite=True) as path,
    ):
        failing(path, OSError("disk full"))
    with pytest.raises(KeyError), write(target, overwrite=True) as path:
        failing(path, KeyError())
    assert content(target) == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("write", [written_whole, written_directory])
def test_what_is_there_stays_unless_asked_for(write: Write, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with write(target, overwrite=False) as path:
        fill(path, "old")
    with pytest.raises(OutputError, match=r"is there already.*--force"), write(target, overwrite=False) as path:
        pytest.fail("it is refused before anything is written")
    assert content(target) == "old"
    with write(target, overwrite=True) as path:
        fill(path)
    assert content(target) == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("write", [written_whole, written_directory])
def test_what_comes_up_meanwhile_stays(write: Write, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(OutputError), write(target, overwrite=False) as path:  # noqa: PT012
        fill(path)
        with write(target, overwrite=False) as other:
            fill(other, "of another")
    assert content(target) == "of another"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_directory_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with written_directory(tmp_path / "target") as path:
        fill(path)
    assert content(tmp_path / "target") == "new"


def test_a_directory_takes_the_place_of_another_where_the_system_cannot_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_library(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    for text in ("old", "new"):
        with written_directory(tmp_path / "target", overwrite=True) as path:
            fill(path, text)
    assert content(tmp_path / "target") == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


LIMITED = """
import resource, sys
from pathlib import Path
from codecbay import files
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with getattr(files, sys.argv[1])(Path(sys.argv[2]), overwrite=True) as path:
    (path / "inside" if path.is_dir() else path).write_bytes(bytes(200_000))
"""


@pytest.mark.parametrize("name", ["written_whole", "written_directory"])
def test_a_disk_that_takes_no_more_is_named(name: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, name, str(tmp_path / "target")], capture_output=True, text=True
    )
    assert "OutputError" in run.stderr
    assert "target: cannot be written: File too large" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [written_whole, written_directory])
def test_a_place_that_takes_no_files_is_named(write: Write) -> None:
    with pytest.raises(OutputError, match="/proc/target: cannot be written"), write(Path("/proc/target")):
        pytest.fail("nothing can be written here")
