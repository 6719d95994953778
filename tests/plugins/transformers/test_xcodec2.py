"""X-Codec2, side by side with the library's feature extractor and model."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

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
    refuse_hostile_lists,
    spec_of,
)

PACKAGE = PACKAGES["xcodec2"]

test_conformance = conformance_tests(PACKAGE)


@pytest.fixture
def extractor(torchaudio_files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = library("xcodec2.feature_extraction_xcodec2")
    monkeypatch.setattr(module, "torchaudio", torchaudio_files, raising=False)
    return module.Xcodec2FeatureExtractor()


@pytest.mark.parametrize(("frames", "extra"), [(0, 1), (0, 319), (1, 0), (2, 1), (12, 0), (12, 5), (50, 0)])
def test_equals_the_library(frames: int, extra: int, extractor: Any) -> None:
    model = PACKAGE.model

    def encode(wav: torch.Tensor) -> Any:
        items = [item[0].numpy() for item in wav]
        return model.encode(**extractor(items, sampling_rate=16_000, return_tensors="pt")).audio_codes

    # Of a lone frame, this small model can only decode two items at once.
    compare(PACKAGE, encode, lambda codes: model.decode(audio_codes=codes).audio_values, frames, extra)


def test_a_lone_frame_is_decoded() -> None:
    codes = torch.tensor([[[7]], [[9]]])
    wav = PACKAGE.codec.decode(codes)
    assert wav.shape == (2, 1, 320)
    torch.testing.assert_close(PACKAGE.codec.decode(codes[:1]), wav[:1])


def test_codes_stand_for_points_of_a_grid() -> None:
    (codebook,) = PACKAGE.codec.codebooks()
    assert codebook.shape == (240, 4)
    assert len(codebook.unique(dim=0)) == 240
    codes = torch.arange(240).reshape(1, 1, -1)
    with torch.no_grad():
        expected = PACKAGE.model.quantizer.from_codes(codes.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(PACKAGE.codec.decode_latent(codes), expected)


def test_published_configuration() -> None:
    shapes = {"quantizer.project_in.weight": (8, 2048), "quantizer.project_out.weight": (2048, 8)}
    spec = published("xcodec2", {}, shapes)
    assert (spec.sample_rate, spec.frame_rate, spec.cardinalities) == (16_000, Fraction(50), (65_536,))


def test_the_feature_extractor_beside_the_weights(tmp_path: Path) -> None:
    directory = changed(PACKAGE, tmp_path)
    library("xcodec2.feature_extraction_xcodec2").Xcodec2FeatureExtractor().save_pretrained(directory)
    wav = noise(PACKAGE.codec, 3200)
    assert torch.equal(build(directory).encode(wav)[0], PACKAGE.codec.encode(wav)[0])
    file = directory / "preprocessor_config.json"
    values = json.loads(file.read_text())
    for key, wrong in {
        "hop_length": 640,
        "sampling_rate": "high",
        "feature_extractor_type": "SeamlessM4TFeatureExtractor",
    }.items():
        file.write_text(json.dumps({**values, key: wrong}))
        with pytest.raises(ConfigError, match=key):
            spec_of(directory)
    file.write_text("[")
    with pytest.raises(ConfigError, match="preprocessor_config"):
        spec_of(directory)


@pytest.mark.parametrize(
    "key",
    [
        *("sampling_rate", "hidden_size", "quantization_dim", "num_attention_heads", "num_hidden_layers"),
        *(f"semantic_model_config__{key}" for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")),
        "semantic_model_config__feature_projection_input_dim",
    ],
)
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(PACKAGE, key, tmp_path)


@pytest.mark.parametrize("key", ["downsampling_ratios", "quantization_levels"])
def test_hostile_lists(key: str, tmp_path: Path) -> None:
    refuse_hostile_lists(PACKAGE, key, tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"encoder_hidden_size": 1 << 20},
        {"intermediate_size": 1 << 24},
        {"head_dim": 7},
        {"num_key_value_heads": 1},
        {"hidden_size": 48, "quantization_dim": 64},
        {"quantization_levels": [1, 4, 4, 4]},
        {"quantization_levels": [1 << 16] * 4},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"semantic_model_config__intermediate_size": 1 << 24},
        {"semantic_model_config__conv_depthwise_kernel_size": 4},
        {"semantic_model_config__left_max_position_embeddings": 1 << 16},
        {"semantic_model_config__num_attention_heads": 3},
        {"semantic_model_config__add_adapter": True},
        {"semantic_model_config__position_embeddings_type": "relative"},
        {"semantic_model_config__model_type": "llama"},
    ],
)
def test_hostile_models(values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGE, tmp_path, **values)
