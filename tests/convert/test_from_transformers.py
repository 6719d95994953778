"""What transformers saved becomes an export package that computes the same, and what came from one becomes it again."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import codecbay
from codecbay.convert import from_transformers, to_transformers
from codecbay.errors import ConfigError, OutputError, PackageError, SourceError, UnresolvedReferenceError, WeightsError
from codecbay.lm.conditioners import ConditioningAttributes, WavCondition
from codecbay.lm.config import read_lm_config
from codecbay.lm.patterns import get_pattern
from codecbay.package import read_package_file
from convert.peers import FEATURES, converted, load, predictions, random_model, saved, tokens
from models import SHARED_CODEC, TEXT_ENCODER, noise, package

FILES = ("state_dict.bin", "compression_state_dict.bin")
ROUND_TRIPS = [
    "musicgen-mono",
    "musicgen-stereo",
    "musicgen-melody",
    "audiogen",
    "causal-codec",
    "codec-nq2",
    "float16",
    "melody-long",
    "odd-sizes-relu",
    "stereo-renormalize",
]


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)["best_state"]
    return state


def _settings(path: Path) -> dict[str, Any]:
    """What a model's configuration says of what it computes."""
    config = read_lm_config(read_package_file(path).header)
    n_q = config.n_q
    shape = {
        key: value
        for key, value in vars(config.transformer).items()
        if key not in ("memory_efficient", "attention_as_float32", "checkpointing")  # ways to compute the same
    }
    return {
        **{key: value for key, value in vars(config).items() if key not in ("conditioners", "transformer", "pattern")},
        **shape,
        "pattern": get_pattern(config.pattern, n_q, 10).frames.tolist(),
        "conditioners": {name: entry.model for name, entry in config.conditioners.items()},
        "fuser": {name: config.fuser.method_of(name) for name in config.conditioners},
        # of training; transformers keeps nothing of it
        "cfg_dropout": None,
        "attribute_dropout": None,
        "two_step_cfg": None,
    }


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    source = package(name)
    back = from_transformers(converted(name, tmp_path / "there"), tmp_path / "back")
    codec = source if (source / FILES[1]).exists() else SHARED_CODEC
    for directory, file in ((source, FILES[0]), (codec, FILES[1])):
        expected, found = _state(directory / file), _state(back / file)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key
            assert found[key].dtype == tensor.dtype, key
    assert _settings(back / FILES[0]) == _settings(source / FILES[0])
    encoder, expected = load_file(back / "tiny-t5" / "model.safetensors"), load_file(TEXT_ENCODER / "model.safetensors")
    assert encoder.keys() == expected.keys()
    assert all(torch.equal(encoder[key], tensor) for key, tensor in expected.items())
    assert (back / "tiny-t5" / "tokenizer.json").read_bytes() == (TEXT_ENCODER / "tokenizer.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codecbay.factory.warnings.warn", lambda *_, **__: None)  # of the codec that was given
        assert codecbay.load(back, device="cpu").sample_rate > 0


def test_a_text_encoder_that_was_trained_along_comes_to_lie_beside_the_package(tmp_path: Path) -> None:
    back = from_transformers(converted("t5-finetune", tmp_path / "there"), tmp_path / "back")
    prefix = "condition_provider.conditioners.description.t5."
    state = _state(package("t5-finetune") / FILES[0])
    encoder = load_file(back / "tiny-t5" / "model.safetensors")
    for name, tensor in encoder.items():
        assert torch.equal(tensor, state[prefix + name])
    others = {name for name in state if not name.startswith(prefix)}
    assert _state(back / FILES[0]).keys() == others


# -------------------------------------------------------------------------------------------- transformers' models

KINDS: dict[str, dict[str, Any]] = {
    "mono": {},
    "stereo": {"num_codebooks": 6, "audio_channels": 2},
    "melody": {"kind": "musicgen_melody"},
    "stereo-melody": {"kind": "musicgen_melody", "num_codebooks": 6, "audio_channels": 2},
    "relu": {"activation_function": "relu", "hidden_size": 12, "num_attention_heads": 1, "ffn_dim": 41},
    "causal": {"codec": {"use_causal_conv": True, "use_conv_shortcut": True, "trim_right_ratio": 0.5}},
    "time-group-norm": {"codec": {"norm_type": "time_group_norm", "num_lstm_layers": 1, "num_residual_layers": 2}},
    "normalized": {"codec": {"normalize": True, "compress": 1}},
    "one-width": {"text_width": 24},
}


@cache
def _random(case: str) -> Any:
    return random_model(**KINDS[case])


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of transformers', to change copies of."""
    return saved(tmp_path_factory.mktemp("mono") / "mono", _random("mono"))


@pytest.mark.parametrize("case", KINDS)
def test_a_package_computes_what_transformers_does(case: str, tmp_path: Path) -> None:
    peer = _random(case)
    out = from_transformers(saved(tmp_path / "peer", peer), tmp_path / "out")
    model = codecbay.load(out, device="cpu")
    lm: Any = model.lm
    codes = torch.randint(0, 16, (1, lm.n_q, 9))
    pattern = get_pattern(lm.config.pattern, lm.n_q, 9)
    inputs = tokens(tmp_path / "peer", ["slow piano melody"])
    condition = ConditioningAttributes({"description": "slow piano melody"})
    if "melody" in case:
        wav, conditioner = noise(1, 1, 500), lm.condition_provider.conditioners["self_wav"]
        conditioner.separate = lambda wav, *_: wav
        inputs["input_features"] = conditioner.chroma(wav)
        condition.wav["self_wav"] = WavCondition(wav, 500, 800)
    found, mask = predictions(peer, pattern, codes, lm.card, **inputs)
    with torch.no_grad():
        ours = lm.compute_predictions(codes, [condition])
    assert torch.equal(ours.mask[0], mask)
    assert torch.allclose(found, ours.logits, rtol=0, atol=1e-4)
    assert float(found.std()) > 0.1

    codec = codecbay.load_codec(out, device="cpu")
    wav = noise(2, 1, 333)
    with torch.no_grad():
        encoded = peer.audio_encoder.encode(wav, bandwidth=CODEC_BANDWIDTH)
        expected = peer.audio_encoder.decode(encoded.audio_codes, encoded.audio_scales).audio_values
        codes, scale = codec.encode(wav)
        assert torch.equal(codes, encoded.audio_codes[0])
        assert torch.allclose(codec.decode(codes, scale), expected, atol=1e-4)


CODEC_BANDWIDTH = 0.4  # all codebooks


def test_the_configuration_of_a_package(mono: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(mono, tmp_path / "peer")
    (directory / "generation_config.json").write_text(json.dumps({"max_length": 250, "guidance_scale": 2.5}))
    out = from_transformers(directory, tmp_path / "out")
    config = read_lm_config(read_package_file(out / FILES[0]).header)
    assert (config.max_duration, config.cfg_coef, config.kind) == (10.0, 2.5, "musicgen")
    assert (config.sample_rate, config.channels, config.codec_num_codebooks) == (800, 1, 3)
    (directory / "generation_config.json").unlink()
    other = from_transformers(directory, tmp_path / "other")
    assert read_lm_config(read_package_file(other / FILES[0]).header).max_duration == 30.0
    assert {path.name for path in out.iterdir()} == {*FILES, "text-encoder"}


def test_the_codec_is_known_by_its_fingerprint(mono: Path, tmp_path: Path) -> None:
    out = from_transformers(mono, tmp_path / "out")
    lm, codec = (read_package_file(out / file).header for file in FILES)
    assert lm.codec_fingerprint == codec.codec_fingerprint == codecbay.load_codec(out, device="cpu").fingerprint()
    # and stays that of the codec that the model was trained on
    known = {"codec_fingerprint": "0" * 64, "trained_on": "facebook/encodec_32khz"}
    directory = _changed(mono, tmp_path / "peer", {"audiocraft": known})
    header = read_package_file(from_transformers(directory, tmp_path / "other") / FILES[0]).header
    assert header.codec_fingerprint == "0" * 64
    assert read_lm_config(header).trained_on == "facebook/encodec_32khz"


@pytest.mark.parametrize(
    ("config", "length", "seconds"),
    [({}, None, 0.96), ({"chroma_length": 376}, None, 30.0), ({}, 24, 0.96), ({}, 250, 0.96)],
)
def test_a_segment_has_as_many_frames_of_chroma_as_before(
    config: dict[str, Any], length: int | None, seconds: float, tmp_path: Path
) -> None:
    directory = saved(tmp_path / "peer", _random("melody"))
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | config))
    (directory / "generation_config.json").write_text(json.dumps({"max_length": length}))
    model = codecbay.load(from_transformers(directory, tmp_path / "out"), device="cpu")
    assert model.lm.config.max_duration == pytest.approx(seconds, abs=1e-3)
    expected = values | config
    assert model.lm.condition_provider.conditioners["self_wav"].num_frames == expected["chroma_length"]


def test_features_may_lie_in_the_processors_file(tmp_path: Path) -> None:
    directory = saved(tmp_path / "peer", _random("melody"))
    (directory / "preprocessor_config.json").unlink()
    (directory / "processor_config.json").write_text(json.dumps({"feature_extractor": FEATURES}))
    state = _state(from_transformers(directory, tmp_path / "out") / FILES[0])
    # as torchaudio's Spectrogram has it; AudioCraft's loader expects it
    window = state["condition_provider.conditioners.self_wav.chroma.spec.window"]
    assert torch.equal(window, torch.hann_window(256))


@pytest.mark.parametrize("layout", ["sharded", "bin", "sharded-bin", "old-names"])
def test_weights_may_be_laid_out_in_other_ways(layout: str, mono: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(mono, tmp_path / "peer")
    stored = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(stored)
    halves = [{name: stored[name] for name in names[:80]}, {name: stored[name] for name in names[80:]}]
    if layout == "sharded":
        saved(directory, _random("mono"), max_shard_size="20KB")
        assert len(list(directory.glob("model-*.safetensors"))) > 1
    elif layout == "bin":
        twin = {"text_encoder.encoder.embed_tokens.weight": stored["text_encoder.shared.weight"]}
        torch.save({**stored, **twin}, directory / "pytorch_model.bin")
    elif layout == "sharded-bin":
        places = {name: f"pytorch_model-{i}.bin" for i, half in enumerate(halves) for name in half}
        for i, half in enumerate(halves):
            torch.save(half, directory / f"pytorch_model-{i}.bin")
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    else:
        parts = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        for new, old in parts.items():
            stored = {name.replace(new, old): tensor for name, tensor in stored.items()}
        stored["decoder.model.decoder.embed_positions.weights"] = torch.zeros(2048, 24)
        stored["text_encoder.encoder.embed_tokens.weight"] = stored.pop("text_encoder.shared.weight")
        save_file(stored, directory / "model.safetensors")
    out, expected = from_transformers(directory, tmp_path / "out"), from_transformers(mono, tmp_path / "expected")
    for file in FILES:
        found, wanted = _state(out / file), _state(expected / file)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    found, wanted = (load_file(path / "text-encoder" / "model.safetensors") for path in (out, expected))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_projection_that_transformers_leaves_out(tmp_path: Path) -> None:
    out = from_transformers(saved(tmp_path / "peer", _random("one-width")), tmp_path / "out")
    projection = "condition_provider.conditioners.description.output_proj"
    state = _state(out / FILES[0])
    assert torch.equal(state[f"{projection}.weight"], torch.eye(24))
    assert state[f"{projection}.bias"].eq(0).all()
    there = load(to_transformers(out, tmp_path / "there"))
    inputs = tokens(tmp_path / "there", ["a b c"])
    codes = torch.randint(0, 16, (1, 3, 9))
    pattern = get_pattern(read_lm_config(read_package_file(out / FILES[0]).header).pattern, 3, 9)
    found, expected = (predictions(m, pattern, codes, 16, **inputs)[0] for m in (there, _random("one-width")))
    assert torch.allclose(found, expected, atol=1e-4)


# --------------------------------------------------------------------------------------------- bad directories


def _changed(mono: Path, path: Path, changes: dict[str, Any], file: str = "config.json") -> Path:
    """A copy with values of a JSON file changed, by dotted path."""
    directory = shutil.copytree(mono, path)
    values = json.loads((directory / file).read_text())
    for key, value in changes.items():
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
    (directory / file).write_text(json.dumps(values))
    return directory


OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"decoder.activation_function": "silu"}, "decoder.activation_function is silu"),
    "embedding": ({"decoder.scale_embedding": True}, "decoder.scale_embedding is true"),
    "cross": ({"decoder.cross_attention_hidden_size": 20}, "decoder.cross_attention_hidden_size is set"),
    "width": ({"decoder.hidden_size": 15}, "decoder.hidden_size is 15"),
    "odd": ({"decoder.audio_channels": 2}, "decoder.num_codebooks is 3: two channels need an even number"),
    "pad": ({"decoder.pad_token_id": 3}, "decoder.pad_token_id is 3"),
    "chunks": ({"audio_encoder.chunk_length_s": 1.0}, "audio_encoder.chunk_length_s is set"),
    "latent": ({"audio_encoder.codebook_dim": 4}, "audio_encoder.codebook_dim is not audio_encoder.hidden_size"),
    "causal": (
        {"audio_encoder.use_causal_conv": True, "audio_encoder.normalize": True},
        "audio_encoder.normalize is true",
    ),
    "trim": ({"audio_encoder.trim_right_ratio": 0.5}, "audio_encoder.trim_right_ratio is not 1"),
    "card": ({"audio_encoder.codebook_size": 32}, "decoder.vocab_size is 16, but audio_encoder.codebook_size 32"),
    "codebooks": ({"audio_encoder.target_bandwidths": [0.2]}, "decoder.num_codebooks is 3, which needs 3"),
    "channels": (
        {"audio_encoder.audio_channels": 2, "decoder.audio_channels": 2, "decoder.num_codebooks": 4},
        "over two mono streams, but audio_encoder.audio_channels 2",
    ),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_audiocraft_cannot_express(case: str, mono: Path, tmp_path: Path) -> None:
    changes, message = OBSTACLES[case]
    with pytest.raises(ConfigError, match=message):
        from_transformers(_changed(mono, tmp_path / "peer", changes), tmp_path / "out")


def test_melodies_that_audiocraft_cannot_express(tmp_path: Path) -> None:
    melody = saved(tmp_path / "melody", _random("melody"))
    with pytest.raises(ConfigError, match=r"num_chroma is decoder\.hidden_size"):
        from_transformers(_changed(melody, tmp_path / "wide", {"num_chroma": 24}), tmp_path / "out")
    with pytest.raises(ConfigError, match="chroma_length is 2: no duration has so many windows of 256 samples"):
        from_transformers(_changed(melody, tmp_path / "short", {"chroma_length": 2}), tmp_path / "out")


def test_all_obstacles_are_told_at_once(mono: Path, tmp_path: Path) -> None:
    changes = {"decoder.scale_embedding": True, "audio_encoder.chunk_length_s": 1, "audio_encoder.codebook_size": 8}
    directory = _changed(mono, tmp_path / "peer", changes)
    (directory / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": 0}))
    with pytest.raises(ConfigError) as caught:
        from_transformers(directory, tmp_path / "out")
    for key in ("scale_embedding", "chunk_length_s", "codebook_size", "generation_config.json: decoder_start_token_id"):
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "model_type"),
        ({"text_encoder.model_type": "bert"}, "only t5 and mt5"),
        ({"audio_encoder.model_type": "dac"}, "only encodec"),
        ({"audio_encoder": None}, "audio_encoder"),
        ({"audio_encoder.norm_type": "batch_norm"}, "norm_type"),
        ({"audio_encoder.pad_mode": "zero"}, "pad_mode"),
        ({"audio_encoder.upsampling_ratios": [4096, 4096]}, "upsampling_ratios"),
        ({"audio_encoder.target_bandwidths": [1e6]}, "target_bandwidths"),
        ({"audio_encoder.target_bandwidths": "3"}, "target_bandwidths"),
        ({"audio_encoder.num_lstm_layers": 1 << 20}, "num_lstm_layers"),
        ({"decoder.num_hidden_layers": 1 << 20}, "num_hidden_layers"),
        ({"decoder.num_codebooks": 1 << 20}, "num_codebooks"),
        ({"decoder.num_attention_heads": 5}, "num_attention_heads"),
        ({"decoder.hidden_size": "24"}, "hidden_size"),
        ({"text_encoder.num_layers": 1 << 20}, "num_layers"),
        ({"audiocraft": {"solver": "evil"}}, "solver"),
    ],
)
def test_values_that_make_no_sense(changes: dict[str, Any], message: str, mono: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        from_transformers(_changed(mono, tmp_path / "peer", changes), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder.ffn_dim": 1 << 23}, r"of another shape: 'decoder\.model\.decoder\.layers\.0\.fc1\.weight'"),
        ({"decoder.num_hidden_layers": 3}, r"missing: decoder\.model\.decoder\.layers\.2"),
        ({"decoder.num_hidden_layers": 1}, r"unexpected: decoder\.model\.decoder\.layers\.1"),
        ({"text_encoder.feed_forward_proj": "gated-gelu"}, r"missing: text_encoder\..*wi_0"),
        ({"audio_encoder.num_filters": 4}, "of another shape: 'audio_encoder"),
    ],
)
def test_sizes_are_held_against_the_tensors(changes: dict[str, Any], message: str, mono: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        from_transformers(_changed(mono, tmp_path / "peer", changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("decoder.adapter.weight", torch.ones(3), r"unexpected: decoder\.adapter\.weight"),
        ("enc_to_dec_proj.bias", None, r"missing: enc_to_dec_proj\.bias"),
        ("enc_to_dec_proj.bias", torch.full((24,), torch.inf), r"'enc_to_dec_proj\.bias' holds NaN or infinity"),
        ("enc_to_dec_proj.bias", torch.ones(24, dtype=torch.int8), "not floating point"),
        ("audio_encoder.encoder.layers.0.conv.weight_g", torch.ones(2, 1, 1), "are the same tensor"),
    ],
)
def test_tensors_have_to_be_those_of_the_configuration(
    name: str, tensor: Any, message: str, mono: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(mono, tmp_path / "peer")
    stored = load_file(directory / "model.safetensors") | {name: tensor}
    save_file({key: value for key, value in stored.items() if value is not None}, directory / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        from_transformers(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "a/b.bin", "model.py", "no.safetensors", 3])
def test_shards_lie_in_the_directory(file: Any, mono: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(mono, tmp_path / "peer")
    (directory / "model.safetensors").rename(tmp_path / "model.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(PackageError, match=r"no name of a file of weights|is missing"):
        from_transformers(directory, tmp_path / "out")


def test_shards_do_not_say_things_twice(mono: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(mono, tmp_path / "peer")
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    shutil.copy(directory / "a.safetensors", directory / "b.safetensors")
    places = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(places))
    with pytest.raises(WeightsError, match="is in another file, too"):
        from_transformers(directory, tmp_path / "out")


def test_directories_that_are_none(mono: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SourceError):
        from_transformers(tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json"):
        from_transformers(tmp_path / "empty", out)
    directory = shutil.copytree(mono, tmp_path / "peer")
    (directory / "model.safetensors").unlink()
    with pytest.raises(PackageError, match="there are no weights"):
        from_transformers(directory, out)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(UnresolvedReferenceError, match="the tokenizer of the text encoder is missing"):
        from_transformers(directory, out)
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        from_transformers(mono, out)
    assert [path.name for path in out.iterdir()] == ["mine"]
    from_transformers(mono, out, overwrite=True)
    assert not (out / "mine").exists()


@pytest.mark.parametrize("name", ["../../evil", "/evil", "state_dict.bin", "a b", 3, ""])
def test_a_name_of_a_text_encoder_stays_within_the_package(name: Any, mono: Path, tmp_path: Path) -> None:
    directory = _changed(mono, tmp_path / "peer", {"text_encoder._name_or_path": name})
    out = from_transformers(directory, tmp_path / "inner" / "out")
    assert {path.name for path in out.iterdir()} == {*FILES, "text-encoder"}


def test_a_text_encoder_keeps_the_name_that_it_is_published_by(mono: Path, tmp_path: Path) -> None:
    directory = _changed(mono, tmp_path / "peer", {"text_encoder._name_or_path": "google/flan-t5-base"})
    out = from_transformers(directory, tmp_path / "out")
    assert (out / "google" / "flan-t5-base" / "tokenizer.json").is_file()
    codecbay.load(out, device="cpu")
