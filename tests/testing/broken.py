"""Codecs that break one promise each, and the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import codecbay
from codecbay.audio import check_waveform
from codecbay.codec import Codec, EncodedAudio
from codecbay_encodec.codec import EncodecCodec

FIXTURES = Path(__file__).parents[1] / "fixtures"
MONO = FIXTURES / "options" / "shared-codec"  # of 800 Hz, and so the fastest
RENORMALIZED = FIXTURES / "options" / "codec-renormalize-stereo"

Encoded = tuple[Tensor, Tensor | None]


class WrongRate(EncodecCodec):
    @property
    def frame_rate(self) -> float:
        return 2 * super().frame_rate


class MissingCodebook(EncodecCodec):
    def codebooks(self) -> list[Tensor]:
        return super().codebooks()[:-1]


class LearningDecoder(EncodecCodec):
    """Its parameters are frozen, but what it multiplies with is not."""

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return super().decode(codes, scale) * torch.ones(1, requires_grad=True)


class NarrowCodes(EncodecCodec):
    def encode(self, wav: Tensor) -> Encoded:
        codes, scale = super().encode(wav)
        return codes.int(), scale


class MarksSilence(EncodecCodec):
    """A code of its own for silence, one above the last."""

    def encode(self, wav: Tensor) -> Encoded:
        codes, scale = super().encode(wav)
        return (codes if wav.any() else torch.full_like(codes, self.cardinality)), scale


class OneCode(EncodecCodec):
    """The same code for everything."""

    def encode(self, wav: Tensor) -> Encoded:
        codes, scale = super().encode(wav)
        return torch.zeros_like(codes), scale


class DropsTheRest(EncodecCodec):
    """Leaves away samples that fill no frame."""

    def encode(self, wav: Tensor) -> Encoded:
        whole = max(wav.shape[-1] // self.frame_size, 1) * self.frame_size
        return super().encode(wav[..., :whole])


class DecodesShort(EncodecCodec):
    """A single frame comes back a sample short."""

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        wav = super().decode(codes, scale)
        return wav[..., :-1] if codes.shape[-1] == 1 else wav


class ForgetsChannels(EncodecCodec):
    def decode_audio(self, encoded: EncodedAudio, progress: bool = False) -> tuple[Tensor, int]:
        wav, rate = super().decode_audio(encoded, progress)
        return wav[:, : self.channels], rate


class IgnoresScale(EncodecCodec):
    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return super().decode(codes)


class ConstantScale(EncodecCodec):
    def encode(self, wav: Tensor) -> Encoded:
        codes, scale = super().encode(wav)
        return codes, None if scale is None else torch.ones_like(scale)


class UndeclaredScale(EncodecCodec):
    """A scale, but only for a batch."""

    def encode(self, wav: Tensor) -> Encoded:
        codes, _ = super().encode(wav)
        return codes, torch.ones(2, 1) if len(wav) == 2 else None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return super().decode(codes)

    def encode_audio(self, wav: Tensor, sample_rate: int, progress: bool = False) -> EncodedAudio:
        return replace(super().encode_audio(wav, sample_rate, progress), scale=None)


class Dithers(EncodecCodec):
    """Adds noise before it encodes, little enough for most codes to stay."""

    def encode(self, wav: Tensor) -> Encoded:
        return super().encode(wav + 0.3 * torch.randn_like(wav) if wav.is_floating_point() else wav)


class DrawsNumbers(EncodecCodec):
    """Moves torch's random state, without any use of it."""

    def encode(self, wav: Tensor) -> Encoded:
        torch.rand(1)
        return super().encode(wav)


class WritesIntoItsInput(EncodecCodec):
    def encode(self, wav: Tensor) -> Encoded:
        check_waveform(wav)
        return super().encode(wav.clamp_(-0.5, 0.5))


class CentresTheBatch(EncodecCodec):
    """Subtracts the mean of all items from each."""

    def encode(self, wav: Tensor) -> Encoded:
        return super().encode(wav - wav.mean(0) if len(wav) > 1 else wav)


class MixesTheBatch(EncodecCodec):
    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        wav = super().decode(codes, scale)
        return wav + 0.01 * wav.mean(0, keepdim=True) * (len(wav) > 1)


class PadsLists(EncodecCodec):
    """Pads recordings with silence to the longest of a list, and cuts the codes that this makes."""

    def encode_many(self, wavs: Iterable[Tensor], sample_rate: int) -> list[EncodedAudio]:
        wavs = list(wavs)
        longest = max(wav.shape[-1] for wav in wavs)
        encoded = self.encode_audio(
            torch.stack([torch.nn.functional.pad(wav, (0, longest - wav.shape[-1])) for wav in wavs]), sample_rate
        )
        return [
            replace(encoded, codes=codes[None, :, : self.frames_of(wav.shape[-1])], num_samples=wav.shape[-1])
            for wav, codes in zip(wavs, encoded.codes, strict=True)
        ]


class CountsSamples(EncodecCodec):
    """What it does depends on where in the signal a sample is."""

    streams = False  # by windows, that shows

    def encode(self, wav: Tensor) -> Encoded:
        if wav.dim() == 3 and wav.is_floating_point():
            wav = wav + 0.2 * torch.arange(wav.shape[-1]).to(wav) / self.sample_rate
        return super().encode(wav)


class GrowsLouder(EncodecCodec):
    streams = False

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        wav = super().decode(codes, scale)
        return wav * (1 + torch.arange(wav.shape[-1]).to(wav) / self.sample_rate)


class TakesAnything(EncodecCodec):
    def encode(self, wav: Tensor) -> Encoded:
        return super().encode(wav.nan_to_num())


class LastCodebooks(EncodecCodec):
    """Fewer codebooks are the last ones."""

    def encode(self, wav: Tensor) -> Encoded:
        n, spec = self.num_codebooks, self._spec
        self._spec = replace(spec, num_codebooks=self.total_codebooks)
        codes, scale = super().encode(wav)
        self._spec = spec
        return codes[:, -n:], scale


class TakesAnyCount(EncodecCodec):
    def set_num_codebooks(self, n: int) -> None:
        super().set_num_codebooks(min(max(int(n), 1), self.total_codebooks))


class ForgetsCount(EncodecCodec):
    """Refuses what it should, but is another codec afterwards."""

    def set_num_codebooks(self, n: int) -> None:
        self._spec = replace(self._spec, num_codebooks=1)
        super().set_num_codebooks(n)


class ClampsCodes(EncodecCodec):
    def check_codes(self, codes: Tensor) -> Tensor:
        return super().check_codes(codes.clamp(0, self.cardinality - 1))


class ReadsNegativeCodes(EncodecCodec):
    """Counts negative codes from the end, as Python does."""

    def check_codes(self, codes: Tensor) -> Tensor:
        return super().check_codes(torch.where(codes == -1, self.cardinality - 1, codes))


class PaddedLatent(EncodecCodec):
    """A frame too many in the latent, which decoding does without."""

    def decode_latent(self, codes: Tensor) -> Tensor:
        return torch.nn.functional.pad(super().decode_latent(codes), (0, 1))

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return super().decode(codes, scale)[..., : codes.shape[-1] * self.output_frame_size]


class FreshFingerprint(EncodecCodec):
    """Hashes what is left of the codebooks after they were rounded."""

    def fingerprint(self) -> str:
        return self._hash()


class FingerprintOfSpec(EncodecCodec):
    def fingerprint(self) -> str:
        return f"{self._spec.sample_rate:064}"


@dataclass(frozen=True)
class Broken:
    """A broken codec.

    Attributes:
        check: the one that is meant for it.
        make: builds it.
        others: checks that cannot but fail with it.
    """

    check: str
    make: Callable[..., Codec]
    others: tuple[str, ...] = ()


def of(kind: type[EncodecCodec], package: Path = MONO, **changes: Any) -> Callable[..., Codec]:
    """Builds a codec of another class, its spec changed."""

    def make(*, device: str, dtype: torch.dtype) -> Codec:
        codec = codecbay.load_codec(package, device=device, dtype=dtype)
        codec.__class__ = kind
        codec._spec = replace(codec._spec, **changes)
        return codec

    return make


def _training(*, device: str, dtype: torch.dtype) -> Codec:
    return codecbay.load_codec(MONO, device=device, dtype=dtype).train()


def _one_part_training(*, device: str, dtype: torch.dtype) -> Codec:
    codec: Any = codecbay.load_codec(MONO, device=device, dtype=dtype)
    codec.decoder.model[2].train()
    return codec  # type: ignore[no-any-return]


def _with_gradients(*, device: str, dtype: torch.dtype) -> Codec:
    return codecbay.load_codec(MONO, device=device, dtype=dtype).requires_grad_(True)


def _always_float32(*, device: str, dtype: torch.dtype) -> Codec:
    return codecbay.load_codec(MONO, device=device)


def _forgets_a_part(*, device: str, dtype: torch.dtype) -> Codec:
    """The encoder takes the dtype, the decoder does not."""
    codec: Any = codecbay.load_codec(MONO, device=device, dtype=dtype)
    codec.decoder.float()
    return codec  # type: ignore[no-any-return]


def _named_by_path(*, device: str, dtype: torch.dtype) -> Codec:
    codec = codecbay.load_codec(MONO, device=device, dtype=dtype)
    codec.name = MONO  # type: ignore[assignment]
    return codec


BROKEN = {
    "wrong frame rate": Broken("spec", of(WrongRate)),
    "fewer codebooks than declared": Broken("spec", of(MissingCodebook)),
    "not all codebooks by default": Broken("spec", of(EncodecCodec, num_codebooks=2)),
    "training mode": Broken("inference", _training),
    "one module in training mode": Broken("inference", _one_part_training),
    "parameters with gradients": Broken("inference", _with_gradients),
    "output with gradients": Broken("inference", of(LearningDecoder)),
    "always float32": Broken("dtype-device", _always_float32),
    "half float32": Broken("dtype-device", _forgets_a_part),
    "int32 codes": Broken("code-range", of(NarrowCodes)),
    "codes beyond the codebook": Broken("code-range", of(MarksSilence)),
    "one code for everything": Broken("code-range", of(OneCode)),
    "last samples dropped": Broken("lengths", of(DropsTheRest), ("recordings", "chunked-decode", "codes-file")),
    "short output": Broken("lengths", of(DecodesShort)),
    "channels lost": Broken("recordings", of(ForgetsChannels)),
    "scale ignored": Broken("scale", of(IgnoresScale, RENORMALIZED)),
    "constant scale": Broken("scale", of(ConstantScale, RENORMALIZED)),
    "undeclared scale": Broken("scale", of(UndeclaredScale)),
    "dither": Broken("determinism", of(Dithers), ("batch", "lists", "chunked", "prefix")),
    "random numbers drawn": Broken("determinism", of(DrawsNumbers)),
    "input overwritten": Broken("determinism", of(WritesIntoItsInput)),
    "centred over the batch": Broken("batch", of(CentresTheBatch), ("lists",)),
    "mixed over the batch": Broken("batch", of(MixesTheBatch)),
    "causal by claim": Broken("causal", of(EncodecCodec, lookahead=0)),
    "further ahead than declared": Broken("causal", of(EncodecCodec, lookahead=1)),
    "padded to the longest": Broken("lists", of(PadsLists)),
    "dependent on position": Broken("chunked", of(CountsSamples)),
    "louder with time": Broken("chunked-decode", of(GrowsLouder)),
    "NaN encoded": Broken("wrong-audio", of(TakesAnything)),
    "last codebooks first": Broken("prefix", of(LastCodebooks)),
    "any number of codebooks": Broken("codebook-counts", of(TakesAnyCount)),
    "number of codebooks lost": Broken("codebook-counts", of(ForgetsCount)),
    "clamped codes": Broken("wrong-codes", of(ClampsCodes)),
    "codes from the end": Broken("wrong-codes", of(ReadsNegativeCodes)),
    "padded latent": Broken("latent", of(PaddedLatent)),
    "name that is no text": Broken("codes-file", _named_by_path),
    "fingerprint of rounded codebooks": Broken("fingerprint-stable", of(FreshFingerprint)),
    "fingerprint of the spec alone": Broken("fingerprint-distinct", of(FingerprintOfSpec)),
}
