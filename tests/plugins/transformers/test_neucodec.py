"""NeuCodec, side by side with the library's feature extractor and model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from codecbay.testing import conformance_tests
from plugins.transformers.shared import PACKAGES, compare, library, noise, published, refuse, refuse_hostile

PACKAGE = PACKAGES["neucodec"]

test_conformance = conformance_tests(PACKAGE)


@pytest.fixture
def extractor(torchaudio_files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = library("neucodec.feature_extraction_neucodec")
    monkeypatch.setattr(module, "torchaudio", torchaudio_files, raising=False)
    return module.NeuCodecFeatureExtractor()


def codes_of(extractor: Any, wav: torch.Tensor) -> Any:
    items = [item[0].numpy() for item in wav]
    return PACKAGE.model.encode(**extractor(items, sampling_rate=16_000, return_tensors="pt")).audio_codes


@pytest.mark.parametrize(("frames", "extra"), [(1, 0), (2, 1), (12, 0), (12, 5), (55, 319)])
def test_equals_the_library(frames: int, extra: int, extractor: Any) -> None:
    model = PACKAGE.model
    compare(
        PACKAGE,
        lambda wav: codes_of(extractor, wav),
        lambda codes: model.decode(audio_codes=codes).audio_values,
        frames,
        extra,
    )


@pytest.mark.parametrize("samples", [1, 319, 4000 + 1, 60 * 320 + 7])
def test_a_frame_that_is_not_full_has_a_code(samples: int, extractor: Any) -> None:
    """That of the library where the signal, or its last second, is padded; without, it leaves the frame out."""
    wav = noise(PACKAGE.codec, samples, 2)
    end = wav[..., max(samples // 320 - 50, 0) * 320 :]
    padded = torch.nn.functional.pad(end, (0, -samples % 320))
    with torch.no_grad():
        expected = codes_of(extractor, padded)
    codes, _ = PACKAGE.codec.encode(wav)
    assert torch.equal(codes[..., -1], expected[..., -1])


def test_rates() -> None:
    codec = PACKAGE.codec
    assert (codec.sample_rate, codec.output_rate, codec.frame_size, codec.output_frame_size) == (
        16_000,
        24_000,
        320,
        480,
    )
    wav, rate = codec.decode_audio(codec.encode_audio(0.1 * torch.randn(1, 44_101), 44_100))
    assert (wav.shape, rate) == ((1, 1, 44_101), 44_100)


def test_published_configuration() -> None:
    shapes = {"quantizer.project_in.weight": (8, 2048), "quantizer.project_out.weight": (2048, 8)}
    spec = published("neucodec", {}, shapes)
    assert (spec.sample_rate, spec.output_rate, spec.frame_rate) == (16_000, 24_000, Fraction(50))
    assert spec.cardinalities == (65_536,)


@pytest.mark.parametrize("key", ["input_sampling_rate", "output_sampling_rate"])
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(PACKAGE, key, tmp_path)


@pytest.mark.parametrize("values", [{"output_sampling_rate": 22_051}, {"output_sampling_rate": 48_000}])
def test_hostile_models(values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGE, tmp_path, **values)
