"""What transformers cannot express is refused, all of it at once, before weights are read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codecbay.convert import encodec
from codecbay.package import Config
from convert.peers import refusal
from models import package
from package.forge import configured, directory, saved

MONO, MELODY = package("musicgen-mono"), package("musicgen-melody")
OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "rope": ({"transformer_lm.positional_embedding": "rope"}, 'positional_embedding is "rope"'),
    "sin-rope": ({"transformer_lm.positional_embedding": "sin_rope"}, 'positional_embedding is "sin_rope"'),
    "xpos": ({"transformer_lm.positional_embedding": "rope", "transformer_lm.xpos": True}, "xpos is true"),
    "period": ({"transformer_lm.max_period": 500}, "max_period is 500.0"),
    "scale": ({"transformer_lm.positional_scale": 0.5}, "positional_scale is 0.5"),
    "post-norm": ({"transformer_lm.norm_first": False}, "norm_first is false"),
    "layer-scale": ({"transformer_lm.layer_scale": 0.3}, "layer_scale is 0.3"),
    "qk-norm": ({"transformer_lm.qk_layer_norm": True}, "qk_layer_norm is true"),
    "qk-norm-cross": ({"transformer_lm.qk_layer_norm_cross": True}, "qk_layer_norm_cross is true"),
    "kv-repeat": ({"transformer_lm.kv_repeat": 2}, "kv_repeat is 2"),
    "not-causal": ({"transformer_lm.causal": False}, "causal is false"),
    "window": ({"transformer_lm.past_context": 8}, "past_context is 8"),
    "bias-ff": ({"transformer_lm.bias_ff": True}, "bias_ff is true"),
    "bias-attn": ({"transformer_lm.bias_attn": True}, "bias_attn is true"),
    "bias-proj": ({"transformer_lm.bias_proj": True}, "bias_proj is true"),
    "pattern": ({"codebooks_pattern.modeling": "unroll"}, "codebooks_pattern.modeling is unroll"),
    "parallel": (
        {"codebooks_pattern.modeling": "parallel"},
        r"codebooks_pattern.parallel.delays is \[0, 0, 0, 0\]: transformers has \[0, 1, 2, 3\] only",
    ),
    "delays": ({"codebooks_pattern.delay.delays": [0, 1, 1, 2]}, r"delay.delays is \[0, 1, 1, 2\]"),
    "flatten": ({"codebooks_pattern.delay.flatten_first": 1}, "delay.flatten_first is 1"),
    "empty": ({"codebooks_pattern.delay.empty_initial": 1}, "delay.empty_initial is 1"),
    "timestep": (
        {"interleave_stereo_codebooks": {"use": True, "per_timestep": True}, "channels": 2},
        "interleave_stereo_codebooks.per_timestep is true",
    ),
    "stereo-delays": (
        {"interleave_stereo_codebooks.use": True, "channels": 2},
        r"delays is \[0, 1, 2, 3\]: transformers has \[0, 0, 1, 1\] only",
    ),
    "normalized-text": ({"conditioners.description.t5.normalize_text": True}, "t5.normalize_text is true"),
    "lut": (
        {"conditioners.description": {"model": "lut", "lut": {"n_bins": 4, "dim": 4, "tokenizer": "noop"}}},
        "conditioners.description.model is lut",
    ),
    "genre": (
        {
            "conditioners.genre": {"model": "lut", "lut": {"n_bins": 4, "dim": 4, "tokenizer": "noop"}},
            "fuser.sum": ["genre"],
        },
        "conditioners.genre.model is lut",
    ),
    "prepended": ({"fuser.cross": [], "fuser.prepend": ["description"]}, "fuser.prepend has 'description'"),
    "unconditional": ({"conditioners": {}, "fuser.cross": []}, "conditioners.description is missing"),
    "cross-positions": ({"fuser.cross_attention_pos_emb": True}, "fuser.cross_attention_pos_emb is true"),
}
MELODY_OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "argmax": ({"chroma_stem.argmax": False}, "chroma_stem.argmax is false"),
    "window": ({"chroma_stem.winlen": 8192, "chroma_stem.nfft": 16384}, "chroma_stem.winlen is 8192"),
    "width": ({"chroma_stem.n_chroma": 32}, "chroma_stem.n_chroma is transformer_lm.dim"),
}
CODEC_OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "norm": ({"seanet.norm": "none"}, "seanet.norm is none"),
    "norm-eps": ({"seanet.norm": "time_group_norm", "seanet.norm_params": {"eps": 0.1}}, "seanet.norm_params are"),
    "outer": ({"seanet.disable_norm_outer_blocks": 1}, "seanet.disable_norm_outer_blocks is 1"),
    "activation": ({"seanet.activation": "GELU", "seanet.activation_params": {}}, "seanet.activation is GELU"),
    "alpha": ({"seanet.activation_params": {"alpha": 0.5}}, "seanet.activation is ELU {'alpha': 0.5}"),
    "final": ({"seanet.decoder.final_activation": "Tanh"}, "seanet.decoder.final_activation is Tanh"),
    "lstm": ({"seanet.lstm": 0}, "seanet.lstm is 0"),
    "part": ({"seanet.encoder": {"n_filters": 3}}, "seanet.encoder.n_filters and seanet.decoder.n_filters differ"),
    "skip": ({"seanet.decoder.true_skip": False}, "seanet.encoder.true_skip and seanet.decoder.true_skip differ"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_transformers_cannot_express(case: str, tmp_path: Path) -> None:
    changes, message = OBSTACLES[case]
    text = refusal(directory(tmp_path / "p", lm=saved(configured("lm", changes))), tmp_path)
    assert "transformers cannot express this model" in text
    assert re.search(message, text)


@pytest.mark.parametrize("case", MELODY_OBSTACLES)
def test_melodies_that_transformers_cannot_express(case: str, tmp_path: Path) -> None:

    changes, message = MELODY_OBSTACLES[case]
    shutil.copytree(MELODY, tmp_path / "p")
    content = torch.load(MELODY / "state_dict.bin", weights_only=True)
    config = yaml.safe_load(content["xp.cfg"])
    for key, value in changes.items():
        config["conditioners"]["self_wav"]["chroma_stem"][key.partition(".")[2]] = value
    torch.save({**content, "xp.cfg": yaml.safe_dump(config)}, tmp_path / "p" / "state_dict.bin")
    assert message in refusal(tmp_path / "p", tmp_path)


@pytest.mark.parametrize("case", CODEC_OBSTACLES)
def test_codecs_that_transformers_cannot_express(case: str, tmp_path: Path) -> None:
    changes, message = CODEC_OBSTACLES[case]
    assert message in refusal(directory(tmp_path / "p", codec=saved(configured("codec", changes))), tmp_path)


def test_codebooks_of_other_sizes_than_powers_of_two() -> None:
    config = Config.parse(configured("codec", {"rvq.bins": 400})["xp.cfg"])
    assert encodec.read_audiocraft(config)[1] == ["rvq.bins is 400: transformers has powers of two only"]


def test_all_obstacles_are_told_at_once(tmp_path: Path) -> None:
    codec = configured("codec", {"seanet.lstm": 0, "seanet.norm": "none"})
    lm = configured(
        "lm",
        {
            "transformer_lm.norm_first": False,
            "transformer_lm.bias_ff": True,
            "codebooks_pattern.delay.flatten_first": 1,
            "fuser.cross_attention_pos_emb": True,
        },
    )
    text = refusal(directory(tmp_path / "p", lm=saved(lm), codec=saved(codec)), tmp_path)
    for key in ("norm_first", "bias_ff", "flatten_first", "cross_attention_pos_emb", "seanet.lstm", "seanet.norm"):
        assert key in text
