"""Packages shared on the Hub and loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import codecbay
from codecbay.convert import push_package
from codecbay.errors import PackageError, SourceError
from codecbay.package import read_package_file
from network import faults
from network.conftest import Command, Environment
from network.hub import Hub
from package.forge import MONO

TEXT_ENCODER = MONO.parents[1] / "tiny-t5"


@pytest.fixture
def token(hub: Hub, environment: Environment) -> str:
    """Of a user who may push."""
    token = hub.add_user("ada")
    environment(HF_TOKEN=token)
    return token


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A package with its text encoder beside it."""
    directory = tmp_path / "whole"
    (directory / "tiny-t5").mkdir(parents=True)
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        (directory / name).write_bytes((MONO / name).read_bytes())
    for file in TEXT_ENCODER.iterdir():
        (directory / "tiny-t5" / file.name).write_bytes(file.read_bytes())
    return directory


def same(model: Any, directory: Path) -> bool:
    local = codecbay.load(directory, device="cpu")
    found, expected = model.lm.state_dict(), local.lm.state_dict()
    codec = model.compression_model.fingerprint() == local.compression_model.fingerprint()
    return codec and all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("format", ["safetensors", "audiocraft"])
def test_what_is_pushed_loads(format: str, token: str, whole: Path) -> None:
    push_package(whole, "ada/mine", format=format, licence="CC-BY-NC-4.0")
    model = codecbay.load("hf://ada/mine", device="cpu")
    assert same(model, whole)
    assert model.generate(["a tune"]).shape[:2] == (1, 1)


def test_the_card_tells_licence_and_lineage(token: str, whole: Path) -> None:
    from huggingface_hub import hf_hub_download

    push_package(whole, "ada/mine", licence="CC-BY-NC-4.0")
    card = Path(hf_hub_download("ada/mine", "README.md")).read_text()
    fingerprint = codecbay.load_codec(MONO, device="cpu").fingerprint()
    assert card.startswith("---\n")
    for text in (
        "license: cc-by-nc-4.0",
        'codecbay.load("hf://ada/mine")',
        "| cardinality | 64 |",
        fingerprint,
        str(whole),
    ):
        assert text in card


def test_a_codec_alone_can_be_pushed(token: str, whole: Path) -> None:
    (whole / "state_dict.bin").unlink()
    push_package(whole, "ada/codec")
    found = codecbay.load_codec("hf://ada/codec", device="cpu")
    assert found.fingerprint() == codecbay.load_codec(whole, device="cpu").fingerprint()


def test_the_command(token: str, whole: Path, command: Command) -> None:
    done = command("push", whole, "ada/mine", "--private", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["repository"] == "ada/mine"
    assert same(codecbay.load("hf://ada/mine", device="cpu"), whole)


def test_without_a_token_it_is_refused(hub: Hub, whole: Path, command: Command) -> None:
    refused = command("push", whole, "ada/mine")
    assert refused.code == 1
    assert refused.err.startswith("Error: hf://ada/mine: ")


@pytest.mark.parametrize("code", [403, 500])
def test_what_the_hub_has_against_it_is_said(code: int, hub: Hub, token: str, whole: Path) -> None:
    hub.misbehave("*/commit/*", faults.status(code))
    with pytest.raises(SourceError, match=f"hf://ada/mine: the Hub refuses: .*{code}"):
        push_package(whole, "ada/mine")


def test_a_model_that_was_trained_on_is_saved_as_it_is_now(token: str, whole: Path, tmp_path: Path) -> None:
    model: Any = codecbay.load(whole, device="cpu")
    with torch.no_grad():
        model.lm.emb[0].weight.add_(1.0)
    model.save_pretrained(tmp_path / "saved")
    model.push_to_hub("ada/trained", licence="MIT")
    for source in (tmp_path / "saved", "hf://ada/trained"):
        again: Any = codecbay.load(source, device="cpu")
        assert torch.equal(again.lm.emb[0].weight, model.lm.emb[0].weight)
        assert again.compression_model.fingerprint() == model.compression_model.fingerprint()
    header = read_package_file(tmp_path / "saved" / "state_dict.safetensors").header
    assert header.codec_fingerprint == model.compression_model.fingerprint()


def test_a_model_over_a_codec_that_cannot_be_packed(whole: Path, tmp_path: Path) -> None:
    codec = codecbay.load_codec(whole, device="cpu")
    model: Any = codecbay.load(whole, codec, device="cpu")
    with pytest.raises(PackageError, match="can be no part of a package"):
        model.save_pretrained(tmp_path / "saved")
    made: Any = codecbay.MusicGen("made", codec, model.lm)
    with pytest.raises(PackageError, match="was not loaded from a package"):
        made.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
