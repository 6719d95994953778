"""The tokenizer of Higgs Audio v2, side by side with the library's feature extractor and model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codecbay.errors import ConfigError
from codecbay.testing import conformance_tests
from plugins.transformers.shared import (
    PACKAGES,
    build,
    changed,
    compare,
    library,
    noise,
    published,
    refuse,
    refuse_hostile,
    spec_of,
)

PACKAGE = PACKAGES["higgs_audio_v2"]
RATIOS = {"downsampling_ratios": [8, 5, 4, 2, 3], "upsampling_ratios": [8, 5, 4, 2, 3]}

test_conformance = conformance_tests(PACKAGE)


@pytest.mark.parametrize(("frames", "extra"), [(0, 1), (1, 0), (2, 959), (12, 0), (12, 7)])
@pytest.mark.parametrize(("bandwidth", "codebooks"), [(0.3, 2), (0.6, 4)])
def test_equals_the_library(
    bandwidth: float,
    codebooks: int,
    frames: int,
    extra: int,
    torchaudio_files: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = library("higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer")
    monkeypatch.setattr(module, "torchaudio", torchaudio_files)
    extractor = library("dac.feature_extraction_dac").DacFeatureExtractor(sampling_rate=24_000, hop_length=960)
    model = PACKAGE.model

    def encode(wav: torch.Tensor) -> Any:
        inputs = extractor([item[0].numpy() for item in wav], sampling_rate=24_000, return_tensors="pt")
        codes = model.encode(inputs["input_values"], bandwidth=bandwidth).audio_codes
        assert codes.shape[1] == codebooks
        return codes

    codec = PACKAGE.codec
    codec.set_num_codebooks(codebooks)
    try:
        compare(PACKAGE, encode, lambda codes: model.decode(codes).audio_values, frames, extra)
    finally:
        codec.set_num_codebooks(4)


def test_a_vector_of_training_is_left_out(tmp_path: Path) -> None:
    """The published package has one, which the model that its configuration describes has not."""
    (tmp_path / "config.json").write_text((PACKAGE.path / "config.json").read_text())
    tensors = load_file(PACKAGE.path / "model.safetensors")
    name = "semantic_model.masked_spec_embed"
    assert name not in tensors
    save_file({**tensors, name: torch.zeros(16)}, tmp_path / "model.safetensors", {"format": "pt"})
    wav = noise(PACKAGE.codec, 9600)
    assert torch.equal(build(tmp_path).encode(wav)[0], PACKAGE.codec.encode(wav)[0])


def test_published_configuration() -> None:
    values = {"target_bandwidths": [0.5, 1, 1.5, 2], "acoustic_model_config": RATIOS}
    names = [f"quantizer.quantizers.{k}.codebook.embed" for k in range(8)]
    spec = published("higgs_audio_v2_tokenizer", values, dict.fromkeys(names, (1024, 64)))
    assert (spec.sample_rate, spec.frame_rate) == (24_000, Fraction(25))
    assert (spec.cardinalities, spec.allowed_num_codebooks) == ((1024,) * 8, (2, 4, 6, 8))


def test_the_codebooks_may_be_as_wide_as_the_latent(tmp_path: Path) -> None:
    names = [f"quantizer.quantizers.{k}.codebook.embed" for k in range(8)]
    values = {"target_bandwidths": [2], "acoustic_model_config": RATIOS, "codebook_dim": None}
    assert published("higgs_audio_v2_tokenizer", values, dict.fromkeys(names, (1024, 1024))).num_codebooks == 8


def test_models_of_different_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"downsample_factor.* makes 2 frames of 960 samples .* the acoustic one 1"):
        spec_of(changed(PACKAGE, tmp_path, downsample_factor=640))


@pytest.mark.parametrize("key", ["sample_rate", "semantic_sample_rate", "downsample_factor", "codebook_dim"])
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(PACKAGE, key, tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"codebook_dim": 1 << 20},
        {"semantic_sample_rate": 15_999},
        {"semantic_model_config__conv_stride": [5, 2]},
        {"semantic_model_config__conv_kernel": "ten"},
        {"semantic_model_config__intermediate_size": 1 << 24},
        {"acoustic_model_config__downsampling_ratios": [8, 5, 4, 2]},
    ],
)
def test_hostile_models(values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGE, tmp_path, **values)
