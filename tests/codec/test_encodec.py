"""AudioCraft's EnCodec: what its methods promise, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from codecbay.codec import Codec
from codecbay.errors import AudioError, CodecbayError, CodeRangeError
from codecbay.packed import Conv1d, ConvTranspose1d
from codecbay_encodec.seanet import fold_norms, pad, stored_by
from models import load_codec, noise

CODECS = ["musicgen-mono", "encodec-24khz-causal", "encodec-48khz-stereo-renormalized", "codec-circular"]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("musicgen-mono")


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_frames_cover_the_samples(name: str, extra: int) -> None:
    codec = load_codec(name)
    samples = 4 * codec.frame_size + extra
    codes, scale = codec.encode(noise(2, codec.channels, samples))
    frames = -(-samples // codec.frame_size)
    assert codes.dtype == torch.int64
    assert codes.shape == (2, codec.num_codebooks, frames)
    assert (scale is not None) == codec.spec.has_scale
    assert scale is None or scale.shape == (2, 1)
    assert codec.decode(codes, scale).shape == (2, codec.channels, frames * codec.frame_size)
    assert codec.decode_latent(codes).shape[::2] == (2, frames)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_fewer_codebooks_are_the_first_ones(n: int) -> None:
    codec = load_codec("musicgen-mono")
    wav = noise(1, 1, 5 * codec.frame_size)
    every, _ = codec.encode(wav)
    codec.set_num_codebooks(n)
    codes, _ = codec.encode(wav)
    assert (codec.num_codebooks, codec.total_codebooks, codec.spec.num_codebooks) == (n, 4, n)
    assert torch.equal(codes, every[:, :n])
    assert torch.equal(codec.decode(every[:, :n]), load_codec("musicgen-mono", num_codebooks=n).decode(codes))


@pytest.mark.parametrize("n", [0, -1, 5])
def test_no_other_number_of_codebooks(codec: Codec, n: int) -> None:
    with pytest.raises(CodecbayError, match=r"allows 1\.\.4"):
        codec.set_num_codebooks(n)
    assert codec.num_codebooks == 4


def changed(codes: Tensor, value: int) -> Tensor:
    """Codes with one value changed: item 1, codebook 2, frame 3."""
    codes = codes.clone()
    codes[1, 2, 3] = value
    return codes


GOOD = torch.zeros(2, 4, 5, dtype=torch.long)
BAD_CODES = {
    "too large": (changed(GOOD, 64), r"code 64 in codebook 2, frame 3 \(item 1\) is outside 0\.\.63"),
    "negative": (changed(GOOD, -1), r"code -1 in codebook 2, frame 3 \(item 1\)"),
    "float": (GOOD.float(), "whole numbers, found torch.float32"),
    "bool": (GOOD.bool(), "whole numbers, found torch.bool"),
    "complex": (GOOD.to(torch.complex64), "whole numbers, found torch.complex64"),
    "list": (GOOD.tolist(), "whole numbers, found list"),
    "rank 2": (GOOD[0], r"shape \[B, K, T\].*\[4, 5\]"),
    "rank 4": (GOOD[None], r"shape \[B, K, T\].*\[1, 2, 4, 5\]"),
    "no frames": (GOOD[..., :0], "something in it"),
    "too many codebooks": (GOOD.repeat(1, 2, 1), "8 codebooks.* has 4"),
}


@pytest.mark.parametrize("method", ["decode", "decode_latent"])
@pytest.mark.parametrize("case", BAD_CODES)
def test_wrong_codes_are_refused_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, method: str, case: str
) -> None:
    codec: Any = load_codec("musicgen-mono")
    monkeypatch.setattr(codec.quantizer, "decode", lambda codes: pytest.fail("computed"))
    codes, message = BAD_CODES[case]
    with pytest.raises(CodeRangeError, match=message):
        getattr(codec, method)(codes)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8])
def test_codes_of_any_integer_type_are_decoded(codec: Codec, dtype: torch.dtype) -> None:
    codes = torch.arange(40).view(2, 4, 5)
    assert torch.equal(codec.decode(codes.to(dtype)), codec.decode(codes))


BAD_AUDIO = {
    "NaN": torch.full((1, 1, 800), float("nan")),
    "infinity": torch.full((1, 1, 800), float("inf")),
    "no samples": torch.zeros(1, 1, 0),
    "no items": torch.zeros(0, 1, 800),
    "two channels": torch.zeros(1, 2, 800),
    "rank 2": torch.zeros(1, 800),
    "rank 1": torch.zeros(800),
    "whole numbers": torch.zeros(1, 1, 800, dtype=torch.int16),
    "no tensor": [[[0.0]]],
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_wrong_audio_is_refused(codec: Codec, case: str) -> None:
    with pytest.raises(AudioError):
        codec.encode(BAD_AUDIO[case])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["codec-circular", "codec-time-group-norm"])
def test_a_single_sample_is_enough(name: str) -> None:
    codec = load_codec(name)
    codes, scale = codec.encode(noise(1, 1, 1))
    assert codes.shape == (1, codec.num_codebooks, 1)
    assert codec.decode(codes, scale).shape == (1, 1, codec.output_frame_size)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_circular_padding_goes_round_as_often_as_it_takes(length: int) -> None:
    x = torch.arange(length, dtype=torch.float32)[None, None]
    padded = pad(x, 5, 4, "circular")
    assert torch.equal(padded, x.repeat(1, 1, 20)[..., -5 % length : -5 % length + 9 + length])


def test_a_scale_for_a_codec_without_one_is_refused(codec: Codec) -> None:
    with pytest.raises(AudioError, match="should be none"):
        codec.decode(GOOD, torch.ones(2, 1))


def test_the_scale_is_the_volume() -> None:
    codec = load_codec("encodec-48khz-stereo-renormalized")
    wav = noise(2, 2, 3 * codec.frame_size)
    codes, scale = codec.encode(wav)
    louder_codes, louder_scale = codec.encode(4 * wav)
    assert scale is not None
    assert louder_scale is not None
    assert torch.equal(codes, louder_codes)
    torch.testing.assert_close(louder_scale, 4 * scale, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(codec.decode(codes, louder_scale), 4 * codec.decode(codes, scale))


def _torchs(norm: str, transposed: bool) -> nn.Module:
    """A convolution under torch's own norm, its parts moved away from where they start."""
    torch.manual_seed(0)
    kind: Any = nn.ConvTranspose1d if transposed else nn.Conv1d
    if norm == "weight_norm":
        module: Any = parametrizations.weight_norm(kind(3, 4, 5), dim=0)
        module.parametrizations.weight.original0.data.mul_(torch.rand(1) + 0.5)
    else:
        module = parametrizations.spectral_norm(kind(3, 4, 5), n_power_iterations=2)
    return module.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_folded_norms_compute_what_torchs_do(norm: str, transposed: bool) -> None:
    theirs: Any = _torchs(norm, transposed)
    ours = stored_by(norm, ConvTranspose1d(3, 4, 5) if transposed else Conv1d(3, 4, 5))
    parts = theirs.parametrizations.weight
    if norm == "weight_norm":
        state = {"weight_g": parts.original0, "weight_v": parts.original1}
    else:
        state = {"weight_orig": parts.original, "weight_u": parts[0]._u, "weight_v": parts[0]._v}
    ours.load_state_dict({"bias": theirs.bias, **state})
    fold_norms(nn.Sequential(ours))
    x = noise(2, 3, 20)
    torch.testing.assert_close(ours(x), theirs(x))
    assert set(ours.state_dict()) == {"weight", "bias"}


def test_a_loaded_codec_is_frozen_and_folded(codec: Codec) -> None:
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    assert not any("weight_g" in name for name in codec.state_dict())
    assert not codec.training


def test_bfloat16_searches_codebooks_in_float32() -> None:
    codec: Any = load_codec("musicgen-mono", dtype=torch.bfloat16)
    latent = noise(2, codec.config.encoder.dimension, 9).to(torch.bfloat16)
    codes = codec.quantizer.encode(latent, 1)
    vectors = codec.codebooks()[0].float()
    expected = torch.cdist(latent.float().transpose(1, 2), vectors[None]).argmin(-1)
    assert torch.equal(codes[:, 0], expected)
    assert codec.decode(codec.encode(noise(1, 1, 800))[0]).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["codec-circular", "codec-time-group-norm", "codec-renormalize-stereo"])
def test_what_has_to_be_seen_whole_is_not_streamed(name: str) -> None:
    assert load_codec(name).spec.chunked_tolerance > 0
