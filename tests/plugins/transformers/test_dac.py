"""DAC of the transformers library, side by side with its model."""

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
    noise,
    published,
    refuse,
    refuse_hostile,
    refuse_hostile_lists,
)

PACKAGE = PACKAGES["dac_44khz"]

test_conformance = conformance_tests(PACKAGE)


@pytest.mark.parametrize("name", ["dac_44khz", "dac_24khz"])
def test_equals_the_library(name: str) -> None:
    model = PACKAGES[name].model
    compare(
        PACKAGES[name],
        lambda wav: model.encode(wav).audio_codes,
        lambda codes: model.decode(audio_codes=codes).audio_values[:, None],
    )


def test_windows_see_what_their_frames_depend_on_even_if_it_is_longer_than_a_second(tmp_path: Path) -> None:
    codec = build(changed(PACKAGE, tmp_path, sampling_rate=512))
    wav = noise(codec, 60 * 512)
    encoded = codec.encode_audio(wav, 512)
    assert torch.equal(encoded.codes, codec.encode(wav)[0])
    torch.testing.assert_close(codec.decode_audio(encoded)[0], codec.decode(encoded.codes))
    assert codec.spec.chunked_tolerance == 0


def test_published_configuration() -> None:
    values = {"sampling_rate": 44_100, "downsampling_ratios": [2, 4, 8, 8]}
    spec = published("dac", values, {f"quantizer.quantizers.{k}.codebook.weight": (1024, 8) for k in range(9)})
    assert (spec.sample_rate, spec.frame_rate) == (44_100, Fraction(44_100, 512))
    assert (spec.cardinalities, spec.allowed_num_codebooks) == ((1024,) * 9, tuple(range(1, 10)))


@pytest.mark.parametrize("key", ["sampling_rate", "n_codebooks", "codebook_dim", "encoder_hidden_size"])
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(PACKAGE, key, tmp_path)


def test_hostile_lists(tmp_path: Path) -> None:
    refuse_hostile_lists(PACKAGE, "downsampling_ratios", tmp_path)


@pytest.mark.parametrize("values", [{"decoder_hidden_size": 1 << 22}, {"upsampling_ratios": [8, 8, 4, 4]}])
def test_hostile_models(values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGE, tmp_path, **values)
