"""Two mono streams, interleaved: each channel is coded as if it were alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codecbay.codec import Codec
from codecbay.errors import AudioError, CodecbayError, CodeRangeError
from codecbay.stereo import InterleavedStereo
from models import load_codec, noise

both_ways = pytest.mark.parametrize("per_timestep", [False, True], ids=["codebooks", "timesteps"])


@pytest.fixture
def mono() -> Codec:
    return load_codec("musicgen-mono")


def channel(codes: Tensor, index: int, per_timestep: bool) -> Tensor:
    """The codes of one channel."""
    return codes[..., index::2] if per_timestep else codes[:, index::2]


@both_ways
def test_each_channel_is_coded_as_if_it_were_alone(mono: Codec, per_timestep: bool) -> None:
    stereo = InterleavedStereo(mono, per_timestep)
    wav = noise(3, 2, 4 * mono.frame_size)
    codes, scale = stereo.encode(wav)
    assert scale is None
    decoded, latent = stereo.decode(codes), stereo.decode_latent(codes)
    for index in (0, 1):
        alone, _ = mono.encode(wav[:, index : index + 1])
        assert torch.equal(channel(codes, index, per_timestep), alone)
        torch.testing.assert_close(decoded[:, index : index + 1], mono.decode(alone))
        torch.testing.assert_close(latent.chunk(2, dim=1)[index], mono.decode_latent(alone))


@both_ways
def test_the_facts_count_both_channels(mono: Codec, per_timestep: bool) -> None:
    stereo = InterleavedStereo(mono, per_timestep)
    codes, _ = stereo.encode(noise(1, 2, 4 * mono.frame_size))
    assert codes.shape == ((1, 4, 8) if per_timestep else (1, 8, 4))
    assert stereo.num_codebooks == stereo.total_codebooks == codes.shape[1]
    assert stereo.frame_rate == mono.frame_rate * (2 if per_timestep else 1)
    assert float(stereo.spec.frame_rate) == stereo.frame_rate
    assert (stereo.channels, stereo.sample_rate, stereo.cardinality) == (2, 32_000, 64)


@both_ways
def test_the_number_of_codebooks_is_the_mono_codecs(mono: Codec, per_timestep: bool) -> None:
    stereo = InterleavedStereo(mono, per_timestep)
    stereo.set_num_codebooks(2)
    codes, _ = stereo.encode(noise(1, 2, 4 * mono.frame_size))
    assert mono.num_codebooks == 2
    assert codes.shape[1] == stereo.num_codebooks == (2 if per_timestep else 4)


@both_ways
def test_each_channel_has_its_scale(per_timestep: bool) -> None:
    mono = load_codec("stereo-renormalize")
    stereo = InterleavedStereo(mono, per_timestep)
    wav = noise(2, 2, 4 * mono.frame_size) * torch.tensor([1.0, 0.1])[:, None]
    codes, scale = stereo.encode(wav)
    assert scale is not None
    decoded = stereo.decode(codes, scale)
    for index in (0, 1):
        alone, volume = mono.encode(wav[:, index : index + 1])
        assert volume is not None
        torch.testing.assert_close(scale[:, index : index + 1], volume)
        torch.testing.assert_close(decoded[:, index : index + 1], mono.decode(alone, volume))


@pytest.mark.parametrize(
    ("per_timestep", "shape", "message"),
    [(False, (1, 3, 4), "3 codebooks"), (True, (1, 4, 3), "3 frames"), (False, (1, 10, 4), "10 codebooks")],
)
def test_codes_that_two_channels_cannot_share(
    mono: Codec, per_timestep: bool, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(CodeRangeError, match=message):
        InterleavedStereo(mono, per_timestep).decode(torch.zeros(shape, dtype=torch.long))


def test_a_code_out_of_range_is_named_as_it_was_given(mono: Codec) -> None:
    codes = torch.zeros(1, 8, 4, dtype=torch.long)
    codes[0, 5, 2] = 64
    with pytest.raises(CodeRangeError, match="codebook 5, frame 2"):
        InterleavedStereo(mono).decode(codes)


@pytest.mark.parametrize("channels", [1, 3])
def test_only_two_channels_are_encoded(mono: Codec, channels: int) -> None:
    with pytest.raises(AudioError, match="expected 2"):
        InterleavedStereo(mono).encode(noise(1, channels, 800))


def test_a_stereo_codec_is_not_interleaved() -> None:
    with pytest.raises(CodecbayError, match="2 channels"):
        InterleavedStereo(load_codec("encodec-48khz-stereo-renormalized"))
