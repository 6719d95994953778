"""Bad packages, through the whole library and the command line: one typed error each, soon and without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import codecbay
from codecbay.cli import main
from codecbay.errors import ConfigError, IncompatibleError, PackageError, UnresolvedReferenceError, WeightsError
from package.forge import (
    FILES,
    config_paths,
    configured,
    directory,
    golden,
    harmless,
    package,
    saved,
    tensors,
)

Refusal = (PackageError, IncompatibleError)
Load = Callable[[str, bytes], Any]


@pytest.fixture
def load(tmp_path: Path, text_encoder: Path) -> Load:
    """Load a package of which one file is replaced: the model with its codec, or the codec alone."""

    def loader(role: str, data: bytes) -> Any:
        path = directory(tmp_path / "package", **{role: data})
        before = sorted(tmp_path.rglob("*"))
        try:
            with harmless():
                if role == "codec":
                    return codecbay.load_codec(path, device="cpu")
                return codecbay.load(path, text_encoder=text_encoder, device="cpu")
        finally:
            assert sorted(tmp_path.rglob("*")) == before

    return loader


# ---------------------------------------------------------------------------------------------------- configuration

VALUES: list[Any] = [0, None, True, 1 << 24, "", [None], {}, ...]  # beside those that are refused in all places
LM_SECTIONS = ("transformer_lm", "codebooks_pattern", "fuser", "conditioners", "interleave_stereo_codebooks")
LM_PATHS = [
    *config_paths("lm", *LM_SECTIONS, "classifier_free_guidance", "sample_rate", "channels", "compression_model_n_q"),
    "dataset.segment_duration",
]
CODEC_PATHS = config_paths("codec", "encodec", "seanet", "rvq", "sample_rate", "channels", "compression_model")
# Of no consequence for a model that is built, or of another kind of pattern than the one in use.
UNUSED = {
    *(f"transformer_lm.{key}" for key in ("emb_lr", "weight_init", "depthwise_init", "zero_bias_init")),
    *config_paths("lm", "codebooks_pattern")[2:],
    *(f"rvq.{key}" for key in ("q_dropout", "decay", "kmeans_init", "kmeans_iters", "threshold_ema_dead_code")),
    *(f"rvq.orthogonal_reg_{key}" for key in ("weight", "active_codes_only")),
    *("seanet.decoder.final_activation_params", "seanet.norm_params"),
} - {path for path in config_paths("lm", "codebooks_pattern") if ".delay." in path}
SENSIBLE = [
    ("codebooks_pattern.delay.empty_initial", -1),
    *(("classifier_free_guidance.inference_coef", value) for value in (-1, 1.5)),
    *(("fuser.cross_attention_pos_emb_scale", value) for value in (-1, 1.5)),
    *(("seanet.activation_params.alpha", value) for value in (-1, 1.5)),
    ("dataset.segment_duration", 1.5),
    ("conditioners.description.t5.name", "four"),  # another text encoder was asked for
]


PLACES = [*(("lm", path) for path in LM_PATHS), *(("codec", path) for path in CODEC_PATHS)]


@pytest.mark.parametrize(("role", "path"), PLACES)
def test_no_value_breaks_the_check(role: str, path: str, tmp_path: Path) -> None:
    for value in VALUES:
        directory(tmp_path, **{role: saved(configured(role, {path: value}))})
        with harmless(), suppress(*Refusal):
            codecbay.check(tmp_path)


@pytest.mark.parametrize("value", [-1, 1.5, "four", 10**30, math.nan, "${nope}", {"a": 1}], ids=repr)
@pytest.mark.parametrize(("role", "path"), [place for place in PLACES if place[1] not in UNUSED])
def test_a_value_that_cannot_be_is_refused(role: str, path: str, value: Any, load: Load) -> None:
    data = saved(configured(role, {path: value}))
    if (path, value) in SENSIBLE:
        load(role, data)
    else:
        with pytest.raises(Refusal):
            load(role, data)


SECTIONS = [("lm", name) for name in (*LM_SECTIONS, "dataset")] + [("codec", n) for n in ("encodec", "seanet", "rvq")]


@pytest.mark.parametrize("value", [[1], "text", 3, True, {1: 2}, {"a": {"b": 1}}, "${oc.env:HOME}"], ids=repr)
@pytest.mark.parametrize(("role", "name"), SECTIONS)
def test_a_section_that_is_none_is_refused(role: str, name: str, value: Any, load: Load) -> None:
    with pytest.raises(PackageError, match=name):
        load(role, saved(configured(role, {name: value})))


@pytest.mark.parametrize(
    ("role", "name"), [("lm", "transformer_lm"), ("lm", "fuser"), ("lm", "dataset"), *SECTIONS[-3:]]
)
def test_a_missing_section_is_named(role: str, name: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=rf"the section '{name}' is missing"):
        load(role, saved(configured(role, {name: ...})))


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "misspelt key": ("lm", {"transformer_lm.num_head": 4}, "Did you mean 'num_heads'"),
    "misspelt key of a part": ("codec", {"seanet.ratio": [8]}, "Did you mean 'ratios'"),
    "another model": ("lm", {"lm_model": "mamba"}, "lm_model"),
    "another solver": ("lm", {"solver": "magnet"}, "solver"),
    "another conditioner": ("lm", {"conditioners.description": {"model": "lutt", "lutt": {}}}, "Did you mean 'lut'"),
    "conditioner without arguments": ("lm", {"conditioners.description": {"model": "t5"}}, "missing"),
    "conditioner in no list": ("lm", {"conditioners.other": {"model": "t5", "t5": {"name": "t5-base"}}}, "fuser"),
    "nothing to attend to": ("lm", {"fuser.cross": ["genre"], "fuser.sum": ["description"]}, "names no conditioner"),
    "name with a dot": ("lm", {"conditioners": {"a.b": {"model": "t5", "t5": {}}}, "fuser.cross": ["a.b"]}, "name"),
    "kind that is no name": ("lm", {"conditioners.description": {"model": "x" * 99, "x" * 99: {}}}, "no name"),
    "many conditioners": ("lm", {"conditioners": {f"c{i}": {} for i in range(1000)}}, "1000 conditioners"),
    "odd heads": ("lm", {"transformer_lm.num_heads": 5}, "does not divide"),
    "more layers than tensors": ("lm", {"transformer_lm.num_layers": 1000}, "num_layers"),
    "one layer more": ("lm", {"transformer_lm.num_layers": 3}, "holds 2"),
    "one layer less": ("lm", {"transformer_lm.num_layers": 1}, "holds 2"),
    "other width": ("lm", {"transformer_lm.dim": 64}, "emb.0.weight"),
    "other cardinality": ("lm", {"transformer_lm.card": 65}, "emb.0.weight"),
    "delays of another number": ("lm", {"codebooks_pattern.delay.delays": [0, 1]}, "expected 4"),
    "falling delays": ("lm", {"codebooks_pattern.delay.delays": [3, 2, 1, 0]}, "decrease"),
    "delay that is a text": ("lm", {"codebooks_pattern.delay.delays": [0, 1, 2, "3"]}, "whole number"),
    "odd stereo": ("lm", {"interleave_stereo_codebooks.use": "yes"}, "true or false"),
    "no ratios": ("codec", {"seanet.ratios": []}, "ratios"),
    "ratio of zero": ("codec", {"seanet.ratios": [8, 5, 4, 0]}, "ratios"),
    "many ratios": ("codec", {"seanet.ratios": [1] * 1000}, "ratios"),
    "ratios that double too often": ("codec", {"seanet.ratios": [1] * 20}, "n_filters"),
    "huge ratios": ("codec", {"seanet.ratios": [65536] * 4}, "samples"),
    "many layers": ("codec", {"seanet.n_residual_layers": 60}, "n_residual_layers"),
    "many recurrent layers": ("codec", {"seanet.lstm": 60}, "lstm"),
    "wide filters": ("codec", {"seanet.n_filters": 65536}, "n_filters"),
    "other channels": ("codec", {"seanet.channels": 2}, "channels"),
    "other bins": ("codec", {"rvq.bins": 65}, "bins"),
    "other codebooks": ("codec", {"rvq.n_q": 3}, "holds 4"),
    "no codes": ("codec", {"encodec.quantizer": "no_quant"}, "no discrete codes"),
    "unknown activation": ("codec", {"seanet.activation": "Module"}, "activation"),
    "activation on a device": ("codec", {"seanet.activation_params": {"device": "cpu"}}, "not known"),
    "activation of text": ("codec", {"seanet.activation_params": {"alpha": "1"}}, "number"),
    "huge activation": (
        "codec",
        {"seanet.activation": "PReLU", "seanet.activation_params": {"num_parameters": 1 << 40}},
        "num_parameters",
    ),
    "activation that needs more": ("codec", {"seanet.activation": "Threshold", "seanet.activation_params": {}}, "take"),
    "another codec": ("codec", {"compression_model": "dac"}, "no plugin builds"),
    "frame longer than a second": ("codec", {"sample_rate": 100}, "second"),
}


@pytest.mark.parametrize(("role", "changes", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_is_named(role: str, changes: dict[str, Any], problem: str, load: Load) -> None:
    with pytest.raises(PackageError, match=problem) as caught:
        load(role, saved(configured(role, changes)))
    assert len(str(caught.value)) < 1000


def test_a_configuration_that_declares_gigabytes_builds_nothing(load: Load) -> None:
    content = configured("lm", {"transformer_lm.dim": 1 << 24, "transformer_lm.hidden_scale": 1024})
    names = ["emb.3.weight", "transformer.layers.1.linear1.weight"]  # enough for the numbers of layers, not for widths
    with pytest.raises(WeightsError, match="missing"):
        load("lm", saved({**content, "best_state": {name: torch.zeros(1) for name in names + list("abc")}}))


# ----------------------------------------------------------------------------------------------------------- tensors

EMBEDDING = "quantizer.vq.layers.{}._codebook.embed"
TENSORS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "one missing": ("lm", {"out_norm.weight": None}),
    "one too many": ("lm", {"extra": torch.ones(1)}),
    "NaN": ("lm", {"out_norm.weight": torch.full((32,), math.nan)}),
    "infinity": ("codec", {"encoder.model.0.conv.conv.bias": torch.tensor([math.inf, 0])}),
    "misshapen": ("codec", {"encoder.model.0.conv.conv.bias": torch.zeros(3)}),
    "whole numbers": ("codec", {EMBEDDING.format(1): torch.zeros(64, 16, dtype=torch.int32)}),
    "scalar codebook": ("codec", {EMBEDDING.format(0): torch.tensor(1.0)}),
    **{f"codebook {i} missing": ("codec", {EMBEDDING.format(i): None}) for i in range(4)},
}


@pytest.mark.parametrize(("role", "changes"), TENSORS.values(), ids=TENSORS)
def test_wrong_tensors_are_refused(role: str, changes: Mapping[str, Any], load: Load) -> None:
    with pytest.raises((WeightsError, ConfigError)):
        load(role, saved(package(role, best_state=tensors(role, **changes))))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_codebooks_that_do_not_start_at_the_first_are_refused(kept: int, load: Load) -> None:
    content = configured("codec", {"rvq.n_q": kept + 1})
    gone = {EMBEDDING.format(i): None for i in range(3 - kept)}
    with pytest.raises(PackageError):
        load("codec", saved({**content, "best_state": tensors("codec", **gone)}))


# -------------------------------------------------------------------------------------------------------- references

NAMES = (
    "",
    " ",
    "/etc/passwd",
    "../codec",
    "~/codec",
    "~nobody/codec",
    "http://example.com/codec",
    "file:///etc/passwd",
    "//pretrained/facebook/encodec_32khz",
    "a/b/c",
    "facebook/../codec",
    "no/such-codec",
    "modèle",
    "a\nb",
    "\x1b[31m",
    "\ud800",
    "x" * 100_000,
)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:30]))
def test_a_reference_to_what_is_not_published_is_refused(name: str, load: Load) -> None:
    data = saved({"pretrained": name})
    for role in ("codec", "lm"):
        with pytest.raises(PackageError) as caught:
            load(role, data)
        assert len(str(caught.value)) < 1000
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "http://example.com/t5", "no-such-model", "a\nb", "x" * 9999]
)
def test_a_text_encoder_is_not_fetched_from_anywhere(name: str, tmp_path: Path) -> None:
    path = directory(tmp_path, lm=saved(configured("lm", {"conditioners.description.t5.name": name})))
    with harmless(), pytest.raises(UnresolvedReferenceError):
        codecbay.load(path, device="cpu")


# -------------------------------------------------------------------------------------------------- the command line

BAD_FILES: dict[str, bytes] = {
    "empty": b"",
    "cut": golden("lm")[:100_000],
    "swapped": golden("codec"),
    "no YAML": saved(package("lm", xp_cfg="a: [")),
    "wrong value": saved(configured("lm", {"transformer_lm.dim": -1})),
    "strange names": saved({"\ud800": 1, "\x1b[31m": 2}),
}


@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("command", [("generate", "--text-encoder", "t5-small", "rain"), ("check",)], ids="-".join)
def test_the_command_line_says_one_thing_and_exits_with_1(
    data: bytes,
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(directory(tmp_path, lm=data))
    with harmless(), pytest.raises(SystemExit, match="1"):
        main([command[0], ".", *command[1:]])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES.values())
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "state_dict.bin" in err
