"""EnCodec of the transformers library, with and without chunks, side by side with its model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from codecbay.errors import CodecbayError
from codecbay.testing import conformance_tests
from codecbay_transformers.chunked import ChunkedCodec
from plugins.transformers.shared import (
    PACKAGES,
    Random,
    build,
    compare,
    noise,
    published,
    refuse,
    refuse_hostile,
    refuse_hostile_lists,
)

SMALL, STEREO, CHUNKS = (PACKAGES[f"encodec_{name}"] for name in ("24khz", "48khz", "chunks"))

test_conformance_24khz = conformance_tests(SMALL)
test_conformance_32khz = conformance_tests(PACKAGES["encodec_32khz"])
test_conformance_48khz = conformance_tests(STEREO)
test_conformance_chunks = conformance_tests(CHUNKS)


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_32khz"])
def test_equals_the_library(name: str) -> None:
    model = PACKAGES[name].model
    compare(
        PACKAGES[name],
        lambda wav: model.encode(wav, bandwidth=model.config.target_bandwidths[-1]).audio_codes[0],
        lambda codes: model.decode(codes[None], [None]).audio_values,
    )


def test_not_causal_as_its_padding_reflects() -> None:
    assert not SMALL.spec.causal


@pytest.mark.parametrize(
    ("package", "bandwidth", "lengths"),
    [(STEREO, 3.6, (30_001, 60_000, 100_003, 144_000)), (CHUNKS, 1.8, (1001, 1876, 3352, 24_220))],
    ids=["48khz", "chunks"],
)
def test_chunks_equal_the_library(package: Random, bandwidth: float, lengths: tuple[int, ...]) -> None:
    model, codec = package.model, package.codec
    assert isinstance(codec, ChunkedCodec)
    for samples in lengths:
        wav = noise(codec, samples, 2) * torch.tensor([1, 3])[:, None, None]
        codes, scale = codec.encode(wav)
        with torch.no_grad():
            output = model.encode(wav, bandwidth=bandwidth)
            expected = model.decode(*output.to_tuple()[:2], last_frame_pad_length=output.last_frame_pad_length)[0]
        chunks = list(output.audio_codes)
        chunks[-1] = chunks[-1][..., : chunks[-1].shape[-1] - output.last_frame_pad_length]
        assert torch.equal(codes, torch.cat(chunks, -1))
        assert scale is not None
        torch.testing.assert_close(scale, torch.cat(output.audio_scales, -1))
        decoded = codec.decode(codes, scale)
        torch.testing.assert_close(decoded, expected)
        assert codes.shape[-1] == codec.frames_of(samples)
        assert samples <= decoded.shape[-1] == codec.samples_of(codes.shape[-1]) < samples + codec.frame_size


@pytest.mark.parametrize("samples", [1, 320, 47_520, 47_521, 48_000, 48_001, 95_040, 95_520, 95_521, 142_561])
@pytest.mark.parametrize("package", [STEREO, CHUNKS], ids=["48khz", "chunks"])
def test_chunks_of_any_length(package: Random, samples: int) -> None:
    codec = package.codec
    assert isinstance(codec, ChunkedCodec)
    wav = noise(codec, samples)
    codes, scale = codec.encode(wav)
    assert scale is not None
    assert scale.shape == (1, codec.chunks_of(codes.shape[-1]))
    assert samples <= codec.decode(codes, scale).shape[-1] < samples + codec.frame_size
    encoded = codec.encode_audio(wav[0], codec.sample_rate)
    assert torch.equal(encoded.codes, codes)
    assert codec.decode_audio(encoded)[0].shape == wav.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_silence_has_a_volume_in_any_precision(dtype: torch.dtype) -> None:
    codec = build(STEREO.path, dtype)
    codes, scale = codec.encode(torch.zeros(1, 2, 1000))
    assert scale is not None
    torch.testing.assert_close(scale, STEREO.codec.encode(torch.zeros(1, 2, 1000))[1])
    assert codec.decode(codes, scale).isfinite().all()


def test_codes_without_scale() -> None:
    codec = STEREO.codec
    codes, scale = codec.encode(noise(codec, 60_000))
    assert scale is not None
    torch.testing.assert_close(codec.decode(codes), codec.decode(codes, torch.ones_like(scale)))
    with pytest.raises(CodecbayError, match="expected"):
        codec.decode(codes, scale[:, :1])


def test_old_names_of_normalized_weights(tmp_path: Path) -> None:
    tensors = load_file(SMALL.path / "model.safetensors")
    new, old = "parametrizations.weight.original", {"0": "weight_g", "1": "weight_v"}
    tensors = {(k[:-1].replace(new, old[k[-1]]) if new in k else k): v for k, v in tensors.items()}
    assert any(key.endswith("weight_g") for key in tensors)
    (tmp_path / "config.json").write_text((SMALL.path / "config.json").read_text())
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    codec = build(tmp_path)
    wav = noise(codec, 3200)
    assert torch.equal(codec.encode(wav)[0], SMALL.codec.encode(wav)[0])


PUBLISHED = [  # what the published configurations say, where it is not the library's default
    ({}, (24_000, 1, 32, 1024, Fraction(75), (2, 4, 8, 16, 32))),
    (
        {"sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4], "codebook_size": 2048, "target_bandwidths": [2.2]},
        (32_000, 1, 4, 2048, Fraction(50), (4,)),
    ),
    (
        {
            "sampling_rate": 48_000,
            "audio_channels": 2,
            "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
            "chunk_length_s": 1.0,
            "overlap": 0.01,
            "normalize": True,
        },
        (48_000, 2, 16, 1024, Fraction(150), (2, 4, 8, 16)),
    ),
]


@pytest.mark.parametrize(("values", "facts"), PUBLISHED)
def test_published_configurations(values: dict[str, Any], facts: tuple[Any, ...]) -> None:
    rate, channels, total, size, frame_rate, allowed = facts
    spec = published("encodec", values, {f"quantizer.layers.{k}.codebook.embed": (size, 128) for k in range(total)})
    assert (spec.sample_rate, spec.channels, spec.num_codebooks) == (rate, channels, total)
    assert (spec.cardinalities, spec.frame_rate, spec.allowed_num_codebooks) == ((size,) * total, frame_rate, allowed)


@pytest.mark.parametrize(
    "key",
    [
        *("sampling_rate", "audio_channels", "hidden_size", "codebook_size"),
        *("num_filters", "kernel_size", "compress", "num_lstm_layers"),
    ],
)
def test_hostile_numbers(key: str, tmp_path: Path) -> None:
    refuse_hostile(SMALL, key, tmp_path)


@pytest.mark.parametrize("key", ["upsampling_ratios", "target_bandwidths"])
def test_hostile_lists(key: str, tmp_path: Path) -> None:
    refuse_hostile_lists(SMALL, key, tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("encodec_24khz", {"num_filters": 1 << 20}),
        ("encodec_24khz", {"pad_mode": "nowhere"}),
        ("encodec_24khz", {"num_residual_layers": 60}),
        ("encodec_48khz", {"overlap": 0.51}),
        ("encodec_48khz", {"overlap": -0.01}),
        ("encodec_48khz", {"overlap": None}),
        ("encodec_48khz", {"chunk_length_s": 0.00001}),
        ("encodec_48khz", {"chunk_length_s": 0.01, "sampling_rate": 8000}),
    ],
)
def test_hostile_models(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    refuse(PACKAGES[name], tmp_path, **values)
