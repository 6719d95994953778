"""Mimi of the transformers library, side by side with its model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from codecbay.testing import conformance_tests
from plugins.transformers.shared import PACKAGES, compare, published, refuse, refuse_hostile, refuse_hostile_lists

PACKAGE = PACKAGES["mimi"]

test_conformance = conformance_tests(PACKAGE)


def test_equals_the_library() -> None:
    model = PACKAGE.model
    compare(PACKAGE, lambda wav: model.encode(wav).audio_codes, lambda codes: model.decode(codes).audio_values)


def test_causal() -> None:
    assert PACKAGE.spec.causal


def test_published_configuration() -> None:
    kinds = {"semantic": 1, "acoustic": 31}
    names = [
        f"quantizer.{kind}_residual_vector_quantizer.layers.{k}.codebook.embed_sum"
        for kind, total in kinds.items()
        for k in range(total)
    ]
    spec = published("mimi", {"frame_rate": 12.5}, dict.fromkeys(names, (2048, 256)))
    assert (spec.sample_rate, spec.frame_rate) == (24_000, Fraction(25, 2))
    assert (spec.cardinalities, spec.allowed_num_codebooks) == ((2048,) * 32, tuple(range(1, 33)))


@pytest.mark.parametrize("key", ["num_quantizers", "num_hidden_layers", "num_attention_heads", "sliding_window"])
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(PACKAGE, key, tmp_path)


def test_hostile_lists(tmp_path: Path) -> None:
    refuse_hostile_lists(PACKAGE, "upsampling_ratios", tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"frame_rate": 1e-3},
        {"_frame_rate": 1e-3},
        {"compress": 1 << 20},
        {"num_filters": 1 << 22},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"encoder_config": None},
    ],
)
def test_hostile_models(values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGE, tmp_path, **values)
