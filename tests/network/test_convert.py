"""Models on the Hub are converted either way, and refused before they are fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codecbay.convert import from_transformers, to_transformers
from codecbay.errors import ConfigError
from convert.peers import load, random_model
from convert.peers import saved as saved_model
from network.hub import Hub
from network.test_packages import CODEC, LM, files, packed
from package.forge import configured, saved, tensors


def _same(one: Path, other: Path) -> None:
    found, expected = load_file(one), load_file(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_package_on_the_hub_over_a_codec_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.add("ada/musicgen", packed())
    whole = to_transformers("hf://ada/musicgen", tmp_path / "whole")
    load(whole).audio_encoder.save_pretrained(tmp_path / "codec")
    hub.add("ada/codec", files(tmp_path / "codec"))
    reference = saved({"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1.3.0"})
    hub.add("ada/referring", packed() | {CODEC: reference})
    referring = to_transformers("ada/referring", tmp_path / "referring", codec="hf://ada/codec")
    _same(referring / "model.safetensors", whole / "model.safetensors")
    assert (referring / "tokenizer.json").read_bytes() == (whole / "tokenizer.json").read_bytes()


def test_what_cannot_be_expressed_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    large = tensors("lm", extra=torch.zeros(2_000_000))
    lm = configured("lm", {"transformer_lm.layer_scale": 0.3}) | {"best_state": large}
    hub.add("ada/scaled", packed() | {LM: saved(lm)})
    with pytest.raises(ConfigError, match=r"layer_scale is 0\.3"):
        to_transformers("hf://ada/scaled", tmp_path / "out")
    assert hub.sent() < 1_000_000


def test_a_directory_on_the_hub_in_shards(hub: Hub, tmp_path: Path) -> None:
    model = random_model()
    local = saved_model(tmp_path / "peer", model, max_shard_size="20KB")
    repository = hub.add("ada/peer", files(local))
    repository.tag("v1")
    repository.commit({"config.json": b"{}"})
    out = from_transformers("hf://ada/peer", tmp_path / "out", revision="v1")
    expected = from_transformers(local, tmp_path / "expected")
    for name in (LM, CODEC):
        found, wanted = (torch.load(path / name, weights_only=True) for path in (out, expected))
        assert found["xp.cfg"] == wanted["xp.cfg"]
        assert all(torch.equal(found["best_state"][key], tensor) for key, tensor in wanted["best_state"].items())
    tokenizer = Path("text-encoder") / "tokenizer.json"
    assert (out / tokenizer).read_bytes() == (expected / tokenizer).read_bytes()
