"""Codec packages as the tests of back-ends need them: written once, copied, damaged, and read in a fresh process."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from codecbay.errors import PackageError, WeightsError

State = dict[str, Any]


class Package(os.PathLike[str]):
    """A package that is written when it is first asked for.

    Args:
        name: of the file or directory.
        write: writes it to a path.
    """

    def __init__(self, name: str, write: Callable[[Path], object]) -> None:
        self.name = name
        self._write = write

    def __fspath__(self) -> str:
        return str(self.path)

    @cached_property
    def path(self) -> Path:
        """Where it lies; tests that change it change a copy."""
        directory = Path(tempfile.mkdtemp(prefix="codecbay-"))
        atexit.register(shutil.rmtree, directory)
        self._write(directory / self.name)
        return directory / self.name

    def copy(self, directory: Path) -> Path:
        """A copy of it in another directory."""
        if self.path.is_dir():
            return Path(shutil.copytree(self.path, directory / self.name))
        return Path(shutil.copy(self.path, directory / self.name))


def configure(directory: Path, changes: dict[str, Any]) -> None:
    """Change values in the ``config.json`` of a package; ``...`` takes one out."""
    file = directory / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def edit(file: Path, change: Callable[[State], object]) -> None:
    """Change the tensors in a file that torch saved, bare or under the key ``state_dict``."""
    content = torch.load(file)
    change(content.get("state_dict", content))
    torch.save(content, file)


@dataclass(frozen=True)
class Damage:
    """Something wrong with a tensor.

    Attributes:
        change: brings it about in the state dict, given the tensor's name.
        message: what must be said of it, a pattern; the tensor's name stands for ``NAME``.
        error: what must be raised.
    """

    change: Callable[[State, str], object]
    message: str
    error: type[PackageError] = WeightsError

    @contextmanager
    def refused(self, file: Path, name: str) -> Iterator[None]:
        """Damage a tensor in a file; what is done within must fail because of it."""
        edit(file, lambda state: self.change(state, name))
        with pytest.raises(self.error, match=self.message.replace("NAME", re.escape(name))):
            yield


def _infinite(state: State, name: str) -> None:
    state[name].view(-1)[-1] = -torch.inf


DAMAGES = {
    "missing": Damage(lambda state, name: state.pop(name), "missing: NAME"),
    "renamed": Damage(lambda state, name: state.update({f"x.{name}": state.pop(name)}), r"unexpected: x\.NAME"),
    "one too many": Damage(lambda state, _: state.update(extra=torch.zeros(1)), "unexpected: extra"),
    "longer": Damage(lambda state, name: state.update({name: torch.zeros(999)}), r"'NAME' \[999\] where"),
    "deeper": Damage(lambda state, name: state.update({name: state[name][None]}), r"'NAME' \[1, .*\] where"),
    "empty": Damage(lambda state, name: state.update({name: state[name][:0]}), r"'NAME' \[0.*\] where"),
    "nan": Damage(lambda state, name: state[name].fill_(torch.nan), "'NAME' holds NaN"),
    "infinite": Damage(_infinite, "'NAME' holds NaN or infinity"),
    "whole numbers": Damage(lambda state, name: state.update({name: state[name].long()}), "floating point: 'NAME'"),
    "no tensor": Damage(lambda state, name: state.update({name: [1.0]}), "'NAME' is a list", PackageError),
}


def damages(name: str, *others: str) -> pytest.MarkDecorator:
    """Give a test its arguments ``name`` and ``damage``: every damage to a tensor, and each of others missing."""
    cases = [pytest.param(name, damage, id=kind) for kind, damage in DAMAGES.items()]
    missing = [pytest.param(other, DAMAGES["missing"], id=f"missing {other}") for other in others]
    return pytest.mark.parametrize(("name", "damage"), cases + missing)


def frame_rate_in_a_fresh_process(package: Path, plugin: str, *libraries: str) -> str:
    """The frame rate in the spec of a package, or what went wrong where torch or the library was imported for it."""
    code = (
        "import sys; from pathlib import Path; from codecbay.package import read_package_file; "
        f"from {plugin} import codecbay_backends; (backend,) = codecbay_backends(); "
        f"header = read_package_file(Path({str(package)!r})).header; assert backend.claims(header); "
        f"print(backend.spec(header).frame_rate, end=''); assert not {{'torch', *{libraries!r}}} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr
