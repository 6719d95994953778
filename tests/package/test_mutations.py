"""Damage by the hundred: whatever is flipped, cut or mixed up, a package loads or is refused in a typed error."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import codecbay
from codecbay.errors import IncompatibleError, PackageError
from codecbay.lm.config import read_lm_config
from codecbay.package import PackageFile
from codecbay.package.layouts import read_header
from package.forge import (
    FILES,
    config_text,
    directory,
    golden,
    harmless,
    legacy,
    package,
    record,
    saved,
    with_pickle,
)

SEED = 20230608
ROUNDS = range(100)
CONTAINERS: dict[str, Callable[[str], bytes]] = {"zip": golden, "legacy": lambda role: legacy(package(role))}


def inspect(path: Path) -> None:
    """Everything that is done with a file, short of building what it describes."""
    file = PackageFile(read_header(path))
    if file.header.role == "lm":
        read_lm_config(file.header)
    file.tensors()


def flipped(data: bytes, dice: random.Random) -> bytes:
    """One bit flipped, or a few bytes overwritten; where the structure of the file is, more often than in its data."""
    changed = bytearray(data)
    place = dice.choice([0, max(0, len(data) - 8000), dice.randrange(len(data))]) + dice.randrange(6000)
    place = min(place, len(data) - 1)
    if dice.random() < 0.5:
        changed[place] ^= 1 << dice.randrange(8)
    else:
        noise = dice.randbytes(dice.randint(1, 8))
        changed[place : place + len(noise)] = noise
    return bytes(changed)


def shuffled(data: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, taken out, put in or repeated."""
    start = dice.randrange(len(data))
    stop = min(start + dice.randint(1, 6), len(data))
    middle = dice.choice([dice.randbytes(stop - start), b"", data[start:stop] * 2, bytes([dice.choice(data)])])
    return data[:start] + middle + data[stop:]


@pytest.mark.parametrize("role", FILES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_flipped_bits(role: str, container: str, tmp_path: Path) -> None:
    dice, data, path = random.Random(SEED), CONTAINERS[container](role), tmp_path / "file"
    refused = 0
    for _ in ROUNDS:
        path.write_bytes(flipped(data, dice))
        try:
            with harmless():
                inspect(path)
        except PackageError:
            refused += 1
    assert refused > len(ROUNDS) // 6  # some damage is to padding or, without checksums, to the numbers themselves


@pytest.mark.parametrize("role", FILES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_cut_files(role: str, container: str, tmp_path: Path) -> None:
    dice, data, path = random.Random(SEED), CONTAINERS[container](role), tmp_path / "file"
    for _ in ROUNDS:
        path.write_bytes(data[: dice.randrange(len(data))])
        with harmless(), pytest.raises(PackageError):
            inspect(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_with_right_checksums(protocol: int, tmp_path: Path) -> None:
    dice, path = random.Random(SEED), tmp_path / "file"
    pickle = record(saved(package("lm"), pickle_protocol=protocol), "/data.pkl")
    for _ in ROUNDS:
        path.write_bytes(with_pickle(shuffled(pickle, dice)))
        with harmless(), suppress(PackageError):
            inspect(path)


@pytest.mark.parametrize("role", FILES)
def test_configurations(role: str, tmp_path: Path, text_encoder: Path) -> None:
    dice, text = random.Random(SEED), config_text(role)
    start = text.index({"lm": "fuser:", "codec": "compression_model:"}[role])
    for _ in ROUNDS:
        middle = shuffled(text[start:].encode(), dice).decode(errors="replace")
        path = directory(tmp_path, **{role: saved(package(role, xp_cfg=text[:start] + middle))})
        with harmless(), suppress(PackageError, IncompatibleError):
            codecbay.check(path)
            codecbay.load(path, text_encoder=text_encoder, device="cpu")
