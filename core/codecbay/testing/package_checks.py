"""Checks of how a codec's package is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codecbay.errors import ConfigError, PackageError, WeightsError
from codecbay.factory import load_codec, resolve_codec
from codecbay.package import Header, PackageFile
from codecbay.package.container import read_container
from codecbay.package.header import FLOATS
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
    declared.pop("licence")  # which the registry may know, where the package does not tell
    for name, value in declared.items():
        expect(f"{name} of the header's spec, as of the codec that was built,", value, found[name])


def round_trip(trial: Trial) -> None:
    """The package written anew, elsewhere, is the same codec."""
    package = trial.files()
    file = resolve_codec(package).file
    if file is None or not file.header.tensors:
        raise NotApplicable("the package has no weights")
    with tempfile.TemporaryDirectory() as directory:
        first = load_codec(package, device=trial.device)
        again = load_codec(_copy(file, file.tensors(), Path(directory)), device=trial.device)
        for what, found in again.spec.to_dict().items():
            expect(f"{what} of a copy", first.spec.to_dict()[what], found)
        expect("the fingerprint of a copy", first.fingerprint(), again.fingerprint())
        if first.spec.can_decode:
            codes = trial.codes()
            scale = trial.scale()
            if not torch.equal(first.decode(codes, scale), again.decode(codes, scale)):
                raise Mismatch("a copy to decode to the same", "something else")


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
        shutil.copytree(str(header.path), path, ignore=shutil.ignore_patterns(header.weights.name))
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
    for key in header.state_path[:1]:
        return {name: _plain(value) for name, value in root.items() if name != key} | {key: state}
    return state


def _plain(value: Any) -> Any:
    """Values as any pickle can hold them; what stands for tensors and numpy's numbers becomes ``None``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bytes)) else None
