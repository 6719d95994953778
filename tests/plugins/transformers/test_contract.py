"""What every codec of the back-end for transformers does, whatever its family."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from codecbay.codec import Codec, measure
from codecbay.errors import CodecbayError, CodeRangeError
from plugins.transformers.shared import CHUNKED, PACKAGES, UNCHUNKED, build, noise

NAMES = list(PACKAGES)
FACTS = {  # sample rate, channels, frame size, codebooks, allowed
    "encodec_24khz": (24_000, 1, 320, 8, (2, 4, 8)),
    "encodec_32khz": (32_000, 1, 640, 4, (4,)),
    "encodec_48khz": (48_000, 2, 320, 4, (1, 2, 4)),
    "encodec_chunks": (24_000, 1, 320, 4, (2, 4)),
    "dac_44khz": (44_100, 1, 512, 4, (1, 2, 3, 4)),
    "dac_24khz": (24_000, 1, 320, 4, (1, 2, 3, 4)),
    "mimi": (24_000, 1, 1920, 4, (1, 2, 3, 4)),
    "xcodec": (16_000, 1, 320, 4, (1, 2, 4)),
    "xcodec_wavlm": (16_000, 1, 320, 4, (1, 2, 4)),
    "xcodec2": (16_000, 1, 320, 1, (1,)),
    "neucodec": (16_000, 1, 320, 1, (1,)),
    "higgs_audio_v2": (24_000, 1, 960, 4, (2, 4)),
}
CARDINALITIES = {"xcodec2": 240, "neucodec": 240}


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Iterator[Codec]:
    found = PACKAGES[request.param].codec
    yield found
    found.set_num_codebooks(found.total_codebooks)


@pytest.mark.parametrize("name", NAMES)
def test_spec(name: str) -> None:
    spec = PACKAGES[name].spec
    rate, channels, frame_size, total, allowed = FACTS[name]
    assert (spec.sample_rate, spec.channels, spec.frame_size) == (rate, channels, frame_size)
    assert spec.frame_rate == Fraction(rate, frame_size)
    assert (spec.num_codebooks, spec.allowed_num_codebooks) == (total, allowed)
    assert spec.cardinalities == (CARDINALITIES.get(name, 64),) * total
    assert spec.has_scale is (name in CHUNKED)
    assert spec.decoded_sample_rate == (24_000 if name == "neucodec" else None)


def test_measured(codec: Codec) -> None:
    measure(codec)


@pytest.mark.parametrize("name", UNCHUNKED)
@pytest.mark.parametrize("extra", [-1, 0, 1, 7])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_lengths(name: str, extra: int, frames: int) -> None:
    codec = PACKAGES[name].codec
    samples = frames * codec.frame_size + extra
    codes, scale = codec.encode(noise(codec, samples))
    assert codes.shape[-1] == -(-samples // codec.frame_size)
    assert codes.is_contiguous()
    assert codec.decode(codes, scale).shape == (1, codec.channels, codes.shape[-1] * codec.output_frame_size)


def test_one_sample(codec: Codec) -> None:
    codes, scale = codec.encode(noise(codec, 1))
    assert codes.shape[-1] == 1
    assert codec.decode(codes, scale).shape == (1, codec.channels, codec.output_frame_size)


@pytest.mark.parametrize(("samples", "rate", "channels"), [(1, 8_000, 1), (22_051, 22_050, 2), (50_001, 48_000, 2)])
def test_recordings_keep_their_samples(codec: Codec, samples: int, rate: int, channels: int, tmp_path: Path) -> None:
    encoded = codec.encode_audio(0.1 * torch.randn(channels, samples), rate)
    encoded.save(tmp_path / "a.codes")
    wav, found = codec.decode_audio(type(encoded).load(tmp_path / "a.codes"))
    assert (wav.shape, found) == ((1, channels, samples), rate)


def test_batch_equals_single(codec: Codec) -> None:
    wav = noise(codec, 10 * codec.frame_size + 11, 3) * torch.tensor([1, 0.5, 2])[:, None, None]
    codes, scale = codec.encode(wav)
    for i in range(3):
        single, its_scale = codec.encode(wav[i : i + 1])
        assert (single[0] == codes[i]).double().mean() >= 0.999
        if scale is not None:
            assert its_scale is not None
            torch.testing.assert_close(its_scale[0], scale[i])
        decoded = codec.decode(codes, scale)[i]
        torch.testing.assert_close(
            codec.decode(codes[i : i + 1], None if scale is None else scale[i : i + 1])[0],
            decoded,
            atol=1e-5,
            rtol=1e-4,
        )


def test_fewer_codebooks_are_a_prefix(codec: Codec) -> None:
    wav = noise(codec, 6 * codec.frame_size)
    whole, scale = codec.encode(wav)
    for n in codec.spec.allowed_num_codebooks:
        codec.set_num_codebooks(n)
        codes, _ = codec.encode(wav)
        assert torch.equal(codes, whole[:, :n])
        assert codec.decode(codes, scale).shape[-1] == codec.samples_of(codes.shape[-1])
    with pytest.raises(CodecbayError, match="num_codebooks=5"):
        codec.set_num_codebooks(5)


def test_causal(codec: Codec) -> None:
    wav = noise(codec, 20 * codec.frame_size)
    other = wav.clone()
    other[..., 10 * codec.frame_size :] = 0.3
    same = bool((codec.encode(wav)[0][..., :10] == codec.encode(other)[0][..., :10]).all())
    assert same or not codec.spec.causal


def test_codes_out_of_range(codec: Codec) -> None:
    codes = torch.full((1, 1, 3), codec.cardinality)
    with pytest.raises(CodeRangeError, match=str(codec.cardinality)):
        codec.decode(codes)
    with pytest.raises(CodeRangeError):
        codec.decode_latent(codes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    codec, exact = build(PACKAGES[name].path, dtype), PACKAGES[name].codec
    assert {parameter.dtype for parameter in codec.parameters()} == {dtype}
    assert not codec.training
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    wav = noise(codec, 5 * codec.frame_size)
    codes, scale = codec.encode(wav)
    decoded = codec.decode(codes, scale)
    assert decoded.dtype == dtype
    assert decoded.isfinite().all()
    assert codec.fingerprint() == exact.fingerprint()
    inverse = [buffer for key, buffer in codec.named_buffers() if key.endswith("inv_freq")]
    assert all(buffer.dtype == torch.float32 for buffer in inverse)
