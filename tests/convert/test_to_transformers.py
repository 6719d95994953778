"""Export packages become directories that transformers loads, and that compute what AudioCraft computes."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from codecbay.convert import to_transformers
from codecbay.errors import (
    ConfigError,
    IncompatibleError,
    OutputError,
    SourceError,
    UnresolvedReferenceError,
    WeightsError,
)
from codecbay.imports import harmless_torchaudio
from codecbay.lm.conditioners import ConditioningAttributes, WavCondition
from codecbay.lm.patterns import Pattern, get_pattern
from convert.peers import converted, library, load, predictions, random_model, refusal, tokens
from goldens import Golden, open_golden
from models import TEXT_ENCODER, noise, package
from package.forge import configured, directory, saved, tensors

MONO, MELODY = package("musicgen-mono"), package("musicgen-melody")
# Those that transformers can express, of all sizes, layouts and kinds that there are.
PACKAGES = [
    "musicgen-mono",
    "musicgen-stereo",
    "musicgen-melody",
    "audiogen",
    "causal-codec",
    "codec-nq2",
    "float16",
    "melody-long",
    "odd-sizes-relu",
    "qmodeling",
    "stereo-renormalize",
    "t5-finetune",
]


@cache
def _folder(root: Path, name: str) -> Path:
    return converted(name, root / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


def _pattern(golden: Golden, codes: Tensor) -> Pattern:
    lm = golden.model.lm
    return get_pattern(lm.config.pattern, lm.n_q, codes.shape[-1])


def _unpadded(golden: Golden, inputs: dict[str, Tensor]) -> list[int]:
    """The items that fill the batch: where a text is shorter, transformers leaves its padding out of the attention,
    and AudioCraft attends to zeros in its place. What is put in front is never left out."""
    lengths = inputs["attention_mask"].sum(1)
    fill = [i for i, prompt in enumerate(golden.prompts) if prompt and lengths[i] == lengths.max()]
    return list(range(len(lengths))) if "self_wav" in golden.model.lm.condition_provider.conditioners else fill


@pytest.mark.parametrize("name", PACKAGES)
def test_predictions_are_audiocrafts(name: str, root: Path) -> None:
    golden, folder = open_golden(package(name)), _folder(root, name)
    model = load(folder)
    codes = golden.tensors["lm_codes"]
    inputs = tokens(folder, [prompt or "" for prompt in golden.prompts])
    items = _unpadded(golden, inputs)
    assert items
    found, mask = predictions(
        model, _pattern(golden, codes), codes[items], golden.model.lm.card, **{k: v[items] for k, v in inputs.items()}
    )
    expected = golden.tensors["lm_logits"][items]
    assert torch.allclose(found.masked_fill(~mask[..., None], 0), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo", "musicgen-melody"])
def test_what_is_generated_is_audiocrafts(name: str, root: Path) -> None:
    golden, folder = open_golden(package(name)), _folder(root, name)
    inputs = tokens(folder, [prompt or "" for prompt in golden.prompts])
    items = _unpadded(golden, inputs)
    frames, delay = golden.tensors["gen_tokens"].shape[-1], 4
    wav = load(folder).generate(
        **{key: value[items] for key, value in inputs.items()},
        max_length=frames + delay,
        do_sample=False,
        guidance_scale=float(golden.facts["cfg_coef"]),
    )
    assert torch.allclose(wav, golden.tensors["gen_audio"][items], atol=1e-4)


@torch.no_grad()
def _ours(name: str, codes: Tensor, condition: ConditioningAttributes) -> Tensor:
    logits: Tensor = open_golden(package(name)).model.lm.compute_predictions(codes, [condition]).logits
    return logits


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_without_conditions(name: str, root: Path) -> None:
    golden = open_golden(package(name))
    model, codes = load(_folder(root, name)), golden.tensors["lm_codes"][:1]
    inputs = model.get_unconditional_inputs()
    found, _ = predictions(
        model,
        _pattern(golden, codes),
        codes,
        golden.model.lm.card,
        encoder_outputs=inputs.encoder_outputs,
        attention_mask=inputs.attention_mask,
    )
    assert torch.allclose(found, _ours(name, codes, ConditioningAttributes({"description": None})), atol=1e-4)


def test_a_melody(root: Path) -> None:
    golden = open_golden(MELODY)
    folder, codes, wav = _folder(root, MELODY.name), golden.tensors["lm_codes"][:1], 0.3 * noise(1, 1, 320_000)
    chroma = golden.model.lm.condition_provider.conditioners["self_wav"].chroma(wav)
    found, _ = predictions(
        load(folder),
        _pattern(golden, codes),
        codes,
        golden.model.lm.card,
        **tokens(folder, ["piano"]),
        input_features=chroma,
    )
    melody = {"self_wav": WavCondition(wav, wav.shape[-1], 32_000)}
    expected = _ours(MELODY.name, codes, ConditioningAttributes({"description": "piano"}, melody))
    assert torch.allclose(found, expected, atol=1e-3)
    silent = _ours(MELODY.name, codes, ConditioningAttributes({"description": "piano"}))
    assert not torch.allclose(silent, expected, atol=0.1)


def test_prompts_are_encoded_with_the_codebooks_that_the_model_uses(root: Path) -> None:
    model = load(_folder(root, "codec-nq2"))
    assert (model.config.audio_encoder.num_quantizers, model.decoder.num_codebooks) == (4, 2)
    assert model.audio_encoder.encode(noise(1, 1, 800)).audio_codes.shape[2] == 2


# ------------------------------------------------------------------------------------------------ configurations


def test_the_settings_are_those_of_the_published_models(root: Path) -> None:
    folder = _folder(root, "musicgen-stereo")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {
        "bos_token_id": 64,
        "pad_token_id": 64,
        "decoder_start_token_id": 64,
        "do_sample": True,
        "guidance_scale": 3.0,
        "max_length": 1000,  # of 20 s
    }
    config = load(folder).config
    assert (config.decoder.audio_channels, config.decoder.num_codebooks, config.decoder.vocab_size) == (2, 8, 64)
    assert (config.sampling_rate, config.audio_encoder.frame_rate) == (32_000, 50)
    with harmless_torchaudio():
        processor = library().AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == "MusicgenProcessor"
    prompt = processor(audio=noise(640, 2).numpy().T, sampling_rate=32_000, return_tensors="pt")
    assert prompt["input_values"].shape == (1, 2, 640)
    assert processor(text=["a b"], return_tensors="pt")["input_ids"].shape[0] == 1
    assert processor.feature_extractor.padding_side == "left"


def test_the_settings_of_a_melody(root: Path) -> None:
    folder = _folder(root, MELODY.name)
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_chroma"], config["chroma_length"]) == (12, 1 + 20 * 32_000 // 4096)
    features = json.loads((folder / "preprocessor_config.json").read_text())
    expected = {"sampling_rate": 32_000, "n_fft": 16_384, "hop_length": 4096, "num_chroma": 12, "chunk_length": 20}
    assert {key: features[key] for key in expected} == expected


def test_weights_keep_their_type(root: Path) -> None:
    folder = _folder(root, "float16")
    stored = load_file(folder / "model.safetensors")
    types = {name.partition(".")[0]: tensor.dtype for name, tensor in stored.items()}
    assert types == {
        "decoder": torch.float16,
        "enc_to_dec_proj": torch.float16,
        "text_encoder": torch.float32,
        "audio_encoder": torch.float32,
    }
    assert load(folder).dtype == torch.float32  # in which all of them are what they were


def test_others_may_read_the_files(root: Path) -> None:
    folder = _folder(root, MONO.name)
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1


# ------------------------------------------------------------------------------------------- codec, text encoder


def _referring(path: Path, name: str) -> Path:
    return directory(path, codec=saved({"pretrained": name, "exported": True, "version": "1.3.0"}))


def test_a_codec_that_is_only_named_has_to_be_given(tmp_path: Path, root: Path) -> None:
    source = _referring(tmp_path / "p", "facebook/encodec_32khz")
    with pytest.raises(SourceError, match="encodec_32khz: is not in the cache"):
        to_transformers(source, tmp_path / "out", text_encoder=TEXT_ENCODER)
    expected = load_file(_folder(root, MONO.name) / "model.safetensors")
    # as a package, and as a directory that transformers saved, under its names of today and of yesterday
    with harmless_torchaudio():
        load(_folder(root, MONO.name)).audio_encoder.save_pretrained(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    stored = load_file(tmp_path / "new" / "model.safetensors")
    parts = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in parts.items():
        stored = {name.replace(new, old): tensor for name, tensor in stored.items()}
    save_file(stored, tmp_path / "old" / "model.safetensors")
    for codec in (MONO, tmp_path / "new", tmp_path / "old"):
        out = to_transformers(source, tmp_path / "out", text_encoder=TEXT_ENCODER, codec=codec, overwrite=True)
        found = load_file(out / "model.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_obstacles_of_a_model_come_before_a_codec_that_is_not_at_hand(tmp_path: Path) -> None:
    source = _referring(tmp_path / "p", "facebook/encodec_32khz")
    (source / "state_dict.bin").write_bytes(saved(configured("lm", {"transformer_lm.layer_scale": 0.3})))
    assert "layer_scale" in refusal(source, tmp_path)
    (source / "compression_state_dict.bin").unlink()
    assert "layer_scale" in refusal(source, tmp_path)


def test_codecs_that_do_not_serve(tmp_path: Path) -> None:
    def convert(codec: Any) -> None:
        to_transformers(MONO, tmp_path / "out", text_encoder=TEXT_ENCODER, codec=codec)

    with pytest.raises(IncompatibleError, match="card"):
        convert(package("shared-codec"))
    with pytest.raises(ConfigError, match="is no EnCodec"):
        convert("debug_compression_model")
    lonely = directory(tmp_path / "p")
    (lonely / "compression_state_dict.bin").unlink()
    with pytest.raises(SourceError, match="Give the codec with codec="):
        to_transformers(lonely, tmp_path / "out", text_encoder=TEXT_ENCODER)


def test_the_text_encoder_beside_the_package_is_found(tmp_path: Path, root: Path) -> None:
    source = directory(tmp_path / "p")
    with pytest.raises(UnresolvedReferenceError, match="'tiny-t5', which is not beside its files"):
        to_transformers(source, tmp_path / "out")
    shutil.copytree(TEXT_ENCODER, source / "tiny-t5")
    to_transformers(source, tmp_path / "out")
    found, expected = (folder / "model.safetensors" for folder in (tmp_path / "out", _folder(root, MONO.name)))
    assert found.read_bytes() == expected.read_bytes()


def test_a_text_encoder_that_does_not_serve(tmp_path: Path) -> None:
    encoder = shutil.copytree(TEXT_ENCODER, tmp_path / "t5")
    config = json.loads((encoder / "config.json").read_text())

    def convert(text_encoder: Path = encoder, **changes: Any) -> None:
        (encoder / "config.json").write_text(json.dumps(config | changes))
        to_transformers(MONO, tmp_path / "out", text_encoder=text_encoder)

    with pytest.raises(UnresolvedReferenceError, match="is neither a directory nor a name on the Hub"):
        convert(tmp_path / "nowhere")
    with pytest.raises(UnresolvedReferenceError, match=r"there is no config\.json"):
        convert(tmp_path)
    with pytest.raises(UnresolvedReferenceError, match=r"is 16 wide, but .* one of width 32"):
        convert(d_model=16)
    with pytest.raises(ConfigError, match="only t5 and mt5"):
        convert(model_type="bert")
    with pytest.raises(WeightsError, match=r"unexpected: encoder\.block\.1"):
        convert(num_layers=1)
    with pytest.raises(ConfigError, match="num_layers"):
        convert(num_layers=1 << 20)
    (encoder / "tokenizer.json").unlink()
    with pytest.raises(UnresolvedReferenceError, match="the tokenizer of the text encoder is missing"):
        convert()
    assert not (tmp_path / "out").exists()


def test_a_whole_t5_gives_its_encoder(tmp_path: Path, root: Path) -> None:
    encoder = shutil.copytree(TEXT_ENCODER, tmp_path / "t5")
    stored = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    more = {"decoder.final_layer_norm.weight": torch.ones(32), "lm_head.weight": torch.ones(105, 32)}
    twin = {"encoder.embed_tokens.weight": stored["shared.weight"]}
    torch.save({**stored, **more, **twin}, encoder / "pytorch_model.bin")
    out = to_transformers(MONO, tmp_path / "out", text_encoder=encoder)
    found, expected = (load_file(path / "model.safetensors") for path in (out, _folder(root, MONO.name)))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_references_to_code_are_left_behind(tmp_path: Path) -> None:
    encoder = shutil.copytree(TEXT_ENCODER, tmp_path / "t5")
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((encoder / name).read_text())
        (encoder / name).write_text(json.dumps(settings | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (encoder / "evil.py").write_text("raise SystemExit")
    out = to_transformers(MONO, tmp_path / "out", text_encoder=encoder)
    assert not any("evil" in file.name or b"evil" in file.read_bytes() for file in out.iterdir())


def test_a_text_encoder_of_another_width_stays_as_it_is(tmp_path: Path) -> None:
    encoder = tmp_path / "t5"
    model = random_model().text_encoder
    with harmless_torchaudio():
        model.save_pretrained(encoder)
    shutil.copy(TEXT_ENCODER / "tokenizer.json", encoder)
    projection = {"condition_provider__conditioners__description__output_proj__weight": torch.randn(32, 20)}
    lm = {**configured("lm", {}), "best_state": tensors("lm", **projection)}
    out = to_transformers(directory(tmp_path / "p", lm=saved(lm)), tmp_path / "out", text_encoder=encoder)
    assert load(out).config.text_encoder.d_model == 20
    found = load_file(out / "model.safetensors")
    assert torch.equal(found["enc_to_dec_proj.weight"], next(iter(projection.values())))


# ------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_norm__weight": None}, r"missing: out_norm\.weight"),
        ({"transformer__extra": torch.ones(3)}, r"unexpected: transformer\.extra"),
        ({"linears__0__weight": torch.ones(64, 31)}, r"of another shape: 'linears\.0\.weight' \[64, 31\]"),
        ({"out_norm__weight": torch.full((32,), torch.nan)}, r"'out_norm\.weight' holds NaN"),
    ],
)
def test_tensors_have_to_be_those_of_the_configuration(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    lm = {**configured("lm", {}), "best_state": tensors("lm", **changes)}
    with pytest.raises(WeightsError, match=message):
        to_transformers(directory(tmp_path / "p", lm=saved(lm)), tmp_path / "out", text_encoder=TEXT_ENCODER)
    assert not (tmp_path / "out").exists()


def test_tensors_may_share_memory(tmp_path: Path, root: Path) -> None:
    state = tensors("lm")
    state["emb.1.weight"] = state["emb.0.weight"]
    lm = {**configured("lm", {}), "best_state": state}
    out = to_transformers(directory(tmp_path / "p", lm=saved(lm)), tmp_path / "out", text_encoder=TEXT_ENCODER)
    found = load_file(out / "model.safetensors")
    for k in (0, 1):
        assert torch.equal(found[f"decoder.model.decoder.embed_tokens.{k}.weight"], state["emb.0.weight"])


@pytest.mark.parametrize(("window", "good"), [(torch.hann_window(1 << 14), True), (torch.ones(1 << 14), False)])
def test_a_stored_window_has_to_be_the_one_that_transformers_computes(
    window: Tensor, good: bool, tmp_path: Path, root: Path
) -> None:
    source = shutil.copytree(MELODY, tmp_path / "p")
    content = torch.load(source / "state_dict.bin", weights_only=True)
    content["best_state"]["condition_provider.conditioners.self_wav.chroma.spec.window"] = window
    torch.save(content, source / "state_dict.bin")
    if not good:
        with pytest.raises(WeightsError, match="is no Hann window"):
            to_transformers(source, tmp_path / "out", text_encoder=TEXT_ENCODER)
        return
    out = to_transformers(source, tmp_path / "out", text_encoder=TEXT_ENCODER)
    expected = (_folder(root, MELODY.name) / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == expected


def test_what_is_there_stays_unless_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        to_transformers(MONO, tmp_path / "out", text_encoder=TEXT_ENCODER)
    assert (tmp_path / "out" / "mine").read_text() == "mine"
    to_transformers(MONO, tmp_path / "out", text_encoder=TEXT_ENCODER, overwrite=True)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
