"""Directories in the layout of transformers: their headers are read without the tensors, like any other."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from codecbay.errors import PackageError
from codecbay.package import read_package_file

STATE = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.ones(4, dtype=torch.float16),
    "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
    "count": torch.tensor([3], dtype=torch.int64),
}


def directory(path: Path, weights: bytes | None = None, config: str = '{"model_type": "mimi"}') -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config)
    if weights is None:
        save_file(STATE, path / "model.safetensors")
    else:
        (path / "model.safetensors").write_bytes(weights)
    return path


def forged(entries: Any, data: bytes = b"\0" * 64) -> bytes:
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "torch"])
def test_header_and_tensors(tmp_path: Path, binary: bool) -> None:
    path = directory(tmp_path / "codec")
    if binary:
        (path / "model.safetensors").unlink()
        torch.save(STATE, path / "pytorch_model.bin")
    file = read_package_file(path)
    assert (file.header.layout, file.header.role) == ("transformers", "codec")
    assert file.header.config["model_type"] == "mimi"
    assert {name: info.shape for name, info in file.header.tensors.items()} == {
        n: tuple(t.shape) for n, t in STATE.items()
    }
    read = file.tensors()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in STATE.items())


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\xff" * 8,
        forged(b"{"),
        forged([]),
        forged({"x": 1}),
        forged({"x": {**ENTRY, "dtype": "F7"}}),
        forged({"x": {**ENTRY, "shape": [3]}}),
        forged({"x": {**ENTRY, "shape": [-2]}}),
        forged({"x": {**ENTRY, "shape": [1.0, 2]}}),
        forged({"x": {**ENTRY, "shape": [10**30]}}),
        forged({"x": {**ENTRY, "data_offsets": [60, 68]}}),
        forged({"x": {**ENTRY, "data_offsets": [8, 0]}}),
        forged({"x": {**ENTRY, "data_offsets": [0]}}),
        forged({"x" * 300: ENTRY}),
        forged(b"[" * 100_000),
    ],
)
def test_damaged_weights_are_refused(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(PackageError):
        read_package_file(directory(tmp_path / "codec", weights))


@pytest.mark.parametrize("config", ["", "[]", "{", "[" * 100_000, '"x"', " " * (1 << 21)])
def test_a_broken_configuration_is_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(PackageError, match=r"config\.json"):
        read_package_file(directory(tmp_path / "codec", config=config))


@pytest.mark.parametrize("name", ["SpeechTokenizer.pt", "best model.pth", "last.ckpt"])
def test_a_trainer_names_its_one_checkpoint_as_it_likes(tmp_path: Path, name: str) -> None:
    path = directory(tmp_path / "codec")
    torch.save({"b": torch.ones(4)}, path / name)
    assert "a.weight" in read_package_file(path).header.tensors  # of model.safetensors, which comes first
    (path / "model.safetensors").unlink()
    file = read_package_file(path)
    assert (file.header.layout, file.header.weights) == ("transformers", path / name)
    assert torch.equal(file.tensors()["b"], torch.ones(4))


def test_of_two_checkpoints_none_is_taken(tmp_path: Path) -> None:
    path = directory(tmp_path / "codec")
    (path / "model.safetensors").unlink()
    for name in ("a.pt", "b\n.pt"):
        torch.save(STATE, path / name)
    with pytest.raises(PackageError, match=r"there are 2 checkpoints .*'a\.pt', 'b\\n\.pt'. Leave only one"):
        read_package_file(path)
    (path / "b\n.pt").unlink()
    (path / "b.pt").mkdir()  # which is no file
    assert read_package_file(path).header.weights == path / "a.pt"


def test_a_configuration_without_weights_is_refused(tmp_path: Path) -> None:
    path = directory(tmp_path / "codec")
    (path / "model.safetensors").unlink()
    with pytest.raises(PackageError, match="no weights"):
        read_package_file(path)


def test_tensors_that_lie_deeper_are_asked_for_higher_up(tmp_path: Path) -> None:
    path = directory(tmp_path / "codec")
    (path / "model.safetensors").unlink()
    torch.save({"model": {"b": torch.ones(4)}, "step": 3}, path / "last.ckpt")
    with pytest.raises(PackageError, match=r"'model' is a dict.* expected tensors at the top, or under 'state_dict'"):
        read_package_file(path)


def test_the_arguments_of_a_descript_file_are_its_configuration(tmp_path: Path) -> None:
    metadata = {"kwargs": {"sample_rate": 44100, "encoder_rates": [2, 4]}, "extra": None}
    torch.save({"state_dict": {"x": torch.ones(2)}, "metadata": metadata}, tmp_path / "weights.pth")
    header = read_package_file(tmp_path / "weights.pth", "codec").header
    assert (header.layout, header.config["sample_rate"]) == ("descript", 44100)
    assert header.config["encoder_rates"] == [2, 4]
