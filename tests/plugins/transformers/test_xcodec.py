"""X-Codec of the transformers library, side by side with its model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from codecbay.testing import conformance_tests
from plugins.transformers.shared import (
    PACKAGES,
    build,
    changed,
    compare,
    published,
    refuse,
    refuse_hostile,
    refuse_hostile_lists,
)

PACKAGE = PACKAGES["xcodec"]

test_conformance = conformance_tests(PACKAGE)
test_conformance_wavlm = conformance_tests(PACKAGES["xcodec_wavlm"])


@pytest.mark.parametrize("name", ["xcodec", "xcodec_wavlm"])
def test_equals_the_library(name: str) -> None:
    model = PACKAGES[name].model
    compare(PACKAGES[name], lambda wav: model.encode(wav).audio_codes, lambda codes: model.decode(codes).audio_values)


def test_what_the_library_draws_leaves_no_trace() -> None:
    def draw(*_: object) -> None:
        torch.rand([])

    codec = PACKAGE.codec
    hook = codec.get_submodule("model.semantic_model").register_forward_pre_hook(draw)
    before = torch.get_rng_state()
    codec.encode(torch.zeros(1, 1, 2 * codec.frame_size))
    hook.remove()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_does_not_shape_the_model_never_reaches_the_library(tmp_path: Path) -> None:
    """The library makes a dictionary of as many labels as it is told."""
    values = {"num_labels": 1 << 16, "return_dict": False, "chunk_size_feed_forward": 1}
    codec = build(changed(PACKAGE, tmp_path, **{f"semantic_model_config__{key}": v for key, v in values.items()}))
    config = codec.get_submodule("model.semantic_model").config
    assert (config.num_labels, config.return_dict, config.chunk_size_feed_forward) == (2, True, 0)  # type: ignore[union-attr]


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    refuse(PACKAGES["xcodec_wavlm"], tmp_path, semantic_model_config__add_adapter=True)


def test_published_configuration() -> None:
    spec = published("xcodec", {}, {f"quantizer.quantizers.{k}.codebook.embed": (1024, 1024) for k in range(8)})
    assert (spec.sample_rate, spec.frame_rate) == (16_000, Fraction(50))
    assert (spec.cardinalities, spec.allowed_num_codebooks) == ((1024,) * 8, (1, 2, 3, 4, 8))


@pytest.mark.parametrize(
    "key",
    [
        *("sample_rate", "codebook_size", "kernel_size", "unit_kernel_size", "acoustic_model_config__hidden_size"),
        *(f"semantic_model_config__{key}" for key in ("num_hidden_layers", "hidden_size")),
    ],
)
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(PACKAGE, key, tmp_path)


@pytest.mark.parametrize("key", ["target_bandwidths", "strides"])
def test_hostile_lists(key: str, tmp_path: Path) -> None:
    refuse_hostile_lists(PACKAGE, key, tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"semantic_model_config__intermediate_size": 1 << 24},
        {"semantic_model_config__model_type": "llama"},
        {"semantic_model_config__num_attention_heads": -1},
        {"semantic_model_config__conv_dim": [0] * 7},
        {"semantic_model_config__conv_stride": "five"},
        {"semantic_model_config__conv_kernel": [10, 3]},
        {"semantic_model_config__hidden_act": "evil"},
        {"acoustic_model_config__upsampling_ratios": [2, 2]},
        {"unit_kernel_size": 4},
    ],
)
def test_hostile_models(values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGE, tmp_path, **values)
