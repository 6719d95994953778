"""Checks of how a codec's package is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from codecbay.errors import ConfigError, PackageError, WeightsError
from codecbay.factory import load_codec, resolve_codec
from codecbay.package import Header, PackageFile
from codecbay.package.container import read_container
from codecbay.package.header import FLOATS
from codecbay.package.pickles import TensorStub
from codecbay.testing.trial import Mismatch, NotApplicable, Trial, expect, expect_error, shortened

_READ_HEADER = """
import json, sys
from codecbay.factory import resolve_codec
spec = resolve_codec(sys.argv[1]).spec
print(json.dumps([spec.to_dict(), "torch" in sys.modules]))
"""
_TIMEOUT = 120  # seconds

State = dict[str, Tensor]


def header(trial: Trial) -> None:
    """A process of its own reads the spec, which is that of the codec that was built, without importing torch."""
    package = trial.files()
    run = subprocess.run(
        [sys.executable, "-c", _READ_HEADER, str(package)], capture_output=True, text=True, timeout=_TIMEOUT
    )
    if run.returncode:
        raise Mismatch("the spec to be read from the header", shortened(run.stderr[-300:]))
    found, torch_loaded = json.loads(run.stdout.splitlines()[-1])
    if torch_loaded:
        raise Mismatch("the spec to be read from the header without torch", "that torch was imported")
    declared = json.loads(json.dumps(trial.codec.spec.to_dict()))
    for name, value in declared.items():
        expect(f"{name} of the header's spec, as of the codec that was built,", value, found[name])


def weights(trial: Trial) -> None:
    """With a tensor missing, too many, of another shape, or with NaN in it, the package is refused."""
    file = resolve_codec(trial.files()).file
    if file is None or not file.header.tensors:
        raise NotApplicable("the package has no weights")
    read = file.tensors()
    # The largest one is not among the statistics that only training needs.
    name = max((n for n in read if file.header.tensors[n].dtype in FLOATS), key=lambda n: read[n].numel())

    def changed(tensor: Tensor) -> State:
        return {**read, name: tensor}

    damaged = read[name].clone()
    damaged.view(-1)[0] = float("nan")
    # Sizes may be compared with the configuration before tensors are counted: then it is that which is wrong.
    strict = (WeightsError, ConfigError)
    cases: list[tuple[str, State, tuple[type[Exception], ...]]] = [
        (f"the package without its tensor '{name}'", {n: t for n, t in read.items() if n != name}, strict),
        ("the package with one tensor too many", {**read, "unexpected.weight": torch.zeros(3)}, strict),
        (f"the package with another shape of '{name}'", changed(read[name][:-1].clone()), strict),
        (f"the package with NaN in '{name}'", changed(damaged), (PackageError,)),
    ]
    for kind, state, error in cases:
        with tempfile.TemporaryDirectory() as directory:
            copy = _copy(file, state, Path(directory))
            expect_error(kind, error, partial(load_codec, copy, device=trial.device))


def _copy(file: PackageFile, state: State, directory: Path) -> Path:
    """A copy of a package with other tensors in it; the path to load it by."""
    header = file.header
    path = directory / header.path.name
    if header.path.is_dir():
        shutil.copytree(header.path, path, ignore=shutil.ignore_patterns(header.weights.name))
        target = path / header.weights.name
    else:
        target = path
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    if header.container == "safetensors":
        from safetensors.torch import save_file

        save_file(state, target, {"format": "pt"})
    else:
        torch.save(_root(header, state), target)
    return path


def _root(header: Header, state: State) -> object:
    """What the pickle of a package holds, with other tensors in it. It is read by the machine that runs nothing."""
    root = read_container(header.weights).root
    assert isinstance(root, dict)
    for key in ("best_state", "state_dict"):
        if isinstance(root.get(key), dict):
            rest = {k: v for k, v in root.items() if k != key and not isinstance(v, TensorStub)}
            return {**rest, key: state}
    return state
