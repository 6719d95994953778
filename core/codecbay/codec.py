"""``Codec``, the base class of every codec, and ``EncodedAudio``, the codes of a recording.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of a latent.
"""

from __future__ import annotations

import abc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from codecbay.audio import as_batch, check_sample_rate, convert_audio, resample
from codecbay.errors import AudioError, CodecbayError, CodeRangeError, ConfigError, PackageError
from codecbay.files import written_whole
from codecbay.spec import CodecSpec
from codecbay.streaming import progress_shown

_WINDOW = 30.0  # seconds that encode_audio and decode_audio work on at once
_CONTEXT = 1.0  # seconds beside a window that its codes may depend on
_MAX_CHANNELS = 1024
_CODE_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_FORMAT = "codecbay.codes.1"


class Codec(nn.Module, abc.ABC):
    """An audio tokenizer: from a waveform to codes and back.

    The names are those of AudioCraft's ``CompressionModel``, so that code written for it runs.

    Args:
        spec: what the codec is.
        name: what it was loaded by.
    """

    _reach = 0  # frames to either side that a frame depends on, where that may be more than a second

    def __init__(self, spec: CodecSpec, name: str) -> None:
        super().__init__()
        self._spec = spec
        self._fingerprint: str | None = None
        self.name = name

    @abc.abstractmethod
    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode waveforms.

        Args:
            wav: float ``[B, C, S]`` at ``sample_rate``.

        Returns:
            Codes, int64 ``[B, K, T]`` with ``T = frames_of(S)``, and the scale that :meth:`decode` needs back,
            ``[B, 1]``, or ``None``.

        Raises:
            AudioError: the waveform has the wrong shape, or holds NaN or infinity.
        """

    @abc.abstractmethod
    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode codes.

        Args:
            codes: int64 ``[B, K, T]``; ``K`` may be fewer than ``num_codebooks``.
            scale: as :meth:`encode` returned it.

        Returns:
            The waveform ``[B, C, samples_of(T)]`` at ``output_rate``.

        Raises:
            CodeRangeError: the codes have the wrong shape, or values outside their codebook.
        """

    @abc.abstractmethod
    def decode_latent(self, codes: Tensor) -> Tensor:
        """The continuous latent ``[B, D, T]`` that codes ``[B, K, T]`` stand for."""

    @abc.abstractmethod
    def codebooks(self) -> list[Tensor]:
        """The codebook tensors, one for each codebook there is; the codec's identity rests on them."""

    def identity(self) -> Iterable[Tensor]:
        """The tensors that tell the codec from any other: its codebooks, and more where those are not learned."""
        return self.codebooks()

    @property
    def spec(self) -> CodecSpec:
        """What the codec is, its codebooks in use included."""
        return self._spec

    @property
    def sample_rate(self) -> int:
        """Of the waveform, in Hz."""
        return self._spec.sample_rate

    @property
    def output_rate(self) -> int:
        """Sample rate of the waveform that is decoded, in Hz; for most codecs, the one that is encoded."""
        return self._spec.output_rate

    @property
    def output_frame_size(self) -> int:
        """Samples to a frame of the waveform that is decoded."""
        return self._spec.frame_size * self._spec.output_rate // self._spec.sample_rate

    @property
    def channels(self) -> int:
        """Of the waveform."""
        return self._spec.channels

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz."""
        return float(self._spec.frame_rate)

    @property
    def frame_size(self) -> int:
        """Samples to a frame."""
        return self._spec.frame_size

    @property
    def cardinality(self) -> int:
        """Entries of a codebook; of the largest, where they differ."""
        return max(self._spec.cardinalities)

    @property
    def num_codebooks(self) -> int:
        """Codebooks in use."""
        return self._spec.num_codebooks

    @property
    def total_codebooks(self) -> int:
        """Codebooks there are."""
        return len(self._spec.cardinalities)

    @property
    def device(self) -> torch.device:
        """Where the codec lives."""
        return next(self.parameters()).device

    @property
    def streams(self) -> bool:
        """Whether :meth:`encode` and :meth:`decode` take a recording of any length in bounded memory, without a scale;
        then nothing is cut into windows."""
        return False

    def set_num_codebooks(self, n: int) -> None:
        """Use ``n`` codebooks from now on.

        Raises:
            CodecbayError: the codec does not allow ``n``.
        """
        self._spec = self._spec.with_num_codebooks(n)

    def fingerprint(self) -> str:
        """A hash that two codecs share if they mean the same by their codes.

        It is of ``identity()``, and of the spec's sample rate, channels, frame size and cardinalities.
        """
        if self._fingerprint is None:
            self._fingerprint = self._hash()
        return self._fingerprint

    def _hash(self) -> str:
        spec = self._spec  # only what tells codes apart, so that a fingerprint holds for ever
        facts = ["codecbay-1", spec.sample_rate, spec.channels, spec.frame_size, *spec.cardinalities]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for tensor in self.identity():
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check_codes(self, codes: Tensor) -> Tensor:
        """``codes`` itself, if the codec can decode it.

        Raises:
            CodeRangeError: not; the message tells the codebook and the frame.
        """
        return check_codes(codes, self._spec.cardinalities, f"the codec '{self.name}'")

    def frames_of(self, samples: int) -> int:
        """Frames of the codes of so many samples at ``sample_rate``."""
        return -(-samples // self.frame_size) * self.codes_per_frame

    def samples_of(self, frames: int) -> int:
        """Samples at ``output_rate`` that so many frames are decoded to."""
        return frames // self.codes_per_frame * self.output_frame_size

    @torch.no_grad()
    def encode_audio(self, wav: Tensor, sample_rate: int, progress: bool = False) -> EncodedAudio:
        """Encode a recording of any sample rate, number of channels and length.

        It is resampled and its channels are mixed. A codec that streams encodes it as in one pass; another, windows of
        30 s one by one, each with a second of its surroundings.

        Args:
            wav: float ``[C, S]`` or ``[B, C, S]``.
            sample_rate: in Hz.
            progress: show a progress bar.

        Raises:
            AudioError: it is no waveform.
        """
        batch = as_batch(wav)
        sample_rate = check_sample_rate(sample_rate)
        # Down to the codec's rate, at least a sample must be left.
        least = -(-sample_rate // self.sample_rate)
        own = _lengthened(batch.to(self.device), least)
        own = convert_audio(own, sample_rate, self.sample_rate, self.channels)
        samples = self._own_samples(batch.shape[-1], sample_rate)
        codes, scale = self._encode_long(_lengthened(own[..., :samples], samples), progress)
        return EncodedAudio(
            codes=codes,
            scale=scale,
            num_samples=batch.shape[-1],
            sample_rate=sample_rate,
            channels=batch.shape[1],
            codec=self.name,
            fingerprint=self.fingerprint(),
        )

    def encode_many(self, wavs: Iterable[Tensor], sample_rate: int) -> list[EncodedAudio]:
        """Encode recordings of different lengths, as if each were encoded alone.

        Those of equal length are encoded together, as many as last 30 s; none is padded to the length of another.

        Args:
            wavs: float ``[C, S]``, each with its own number of samples.
            sample_rate: of all of them, in Hz.

        Returns:
            The codes of each, ``[1, K, T]``, in order.

        Raises:
            AudioError: one is no waveform.
        """
        items = [as_batch(wav) for wav in wavs]
        sample_rate = check_sample_rate(sample_rate)
        groups: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
        for i, item in enumerate(items):
            if len(item) != 1:
                raise AudioError(f"Each recording is [C, S]; recording {i} is a batch {list(item.shape)}.")
            groups.setdefault((item.shape, item.dtype), []).append(i)
        encoded: dict[int, EncodedAudio] = {}
        for (shape, _), members in groups.items():
            most = max(round(_WINDOW * sample_rate) // shape[-1], 1)
            for first in range(0, len(members), most):
                some = members[first : first + most]
                together = self.encode_audio(torch.cat([items[i].to(self.device) for i in some]), sample_rate)
                for row, i in enumerate(some):
                    scale = None if together.scale is None else together.scale[row : row + 1]
                    encoded[i] = replace(together, codes=together.codes[row : row + 1], scale=scale)
        return [encoded[i] for i in range(len(items))]

    @torch.no_grad()
    def decode_audio(self, encoded: EncodedAudio, progress: bool = False) -> tuple[Tensor, int]:
        """Decode a recording.

        Args:
            encoded: as :meth:`encode_audio` returned it.
            progress: show a progress bar.

        Returns:
            The waveform ``[B, C, S]`` with exactly the samples and channels that were encoded, and its sample
            rate in Hz.

        Raises:
            CodecbayError: another codec encoded it.
            PackageError: the codes do not make up the recording that they say they are.
            CodeRangeError: the codes cannot be decoded.
        """
        if encoded.fingerprint != self.fingerprint():
            raise CodecbayError(
                f"These codes were made by the codec '{encoded.codec}' ({encoded.fingerprint[:12]}), which is not "
                f"'{self.name}' ({self.fingerprint()[:12]}). Decode them with the codec that made them."
            )
        codes = encoded.codes.to(self.device)
        frames = self.frames_of(self._own_samples(encoded.num_samples, encoded.sample_rate))
        found = None if encoded.scale is None else tuple(encoded.scale.shape)
        expected = self._scale_shape(len(codes), frames) if self._spec.has_scale else None
        if codes.shape[-1] != frames or found != expected:
            raise PackageError(
                f"The codes {list(codes.shape)} with a scale {found} are not those of a recording of "
                f"{encoded.num_samples} samples at {encoded.sample_rate} Hz."
            )
        wav = self._decode_long(codes, None if encoded.scale is None else encoded.scale.to(self.device), progress)
        if self.output_rate != encoded.sample_rate:
            # Resampled from what the encoder saw, with a little beside it: rounding can cost the last sample.
            exact = -(-encoded.num_samples * self.output_rate // encoded.sample_rate)
            wav = resample(_lengthened(wav, exact + self.output_frame_size), self.output_rate, encoded.sample_rate)
        wav = _lengthened(wav, encoded.num_samples)[..., : encoded.num_samples]
        if wav.shape[1] != encoded.channels:
            wav = wav.mean(1, keepdim=True).expand(-1, encoded.channels, -1)
        return wav, encoded.sample_rate

    @property
    def codes_per_frame(self) -> int:
        """Steps of codes to a frame of audio: 1, or 2 where the frames of two channels are interleaved."""
        return round(self._spec.frame_rate * self.frame_size / self.sample_rate)

    def _own_samples(self, samples: int, sample_rate: int) -> int:
        """Samples that a recording of so many samples at ``sample_rate`` Hz has at the codec's own rate."""
        return max(samples * self.sample_rate // sample_rate, 1)

    def _encode_long(self, wav: Tensor, progress: bool) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, C, S]`` of any length, by windows unless the codec streams.

        The scale is of all windows, ``[B, 1, windows]``.
        """
        if self.streams:
            with progress_shown(progress):
                return self.encode(wav)
        parts, scales, n = [], [], self.codes_per_frame
        for first, last, start, end in self._windows(self.frames_of(wav.shape[-1]) // n, progress):
            codes, scale = self.encode(wav[..., start * self.frame_size : end * self.frame_size])
            parts.append(codes[..., (first - start) * n : (last - start) * n])
            if scale is not None:
                scales.append(scale)
        return torch.cat(parts, dim=-1), torch.stack(scales, dim=-1) if scales else None

    def _decode_long(self, codes: Tensor, scale: Tensor | None, progress: bool) -> Tensor:
        """Decode what :meth:`_encode_long` returned, by the same windows where there are any."""
        if self.streams:
            with progress_shown(progress):
                return self.decode(codes, scale)
        parts, n, size = [], self.codes_per_frame, self.output_frame_size
        frames = codes.shape[-1] // n
        for i, (first, last, start, end) in enumerate(self._windows(frames, progress)):
            own_scale = None if scale is None else scale[..., i]
            wav = self._decode_window(codes[..., start * n : end * n], own_scale, start, frames)
            parts.append(wav[..., (first - start) * size : (last - start) * size])
        return torch.cat(parts, dim=-1)

    def _decode_window(self, codes: Tensor, scale: Tensor | None, start: int, frames: int) -> Tensor:
        """Decode the codes of a recording of so many frames from frame ``start`` on."""
        return self.decode(codes, scale)

    def _scale_shape(self, batch: int, frames: int) -> tuple[int, ...]:
        """Shape of the scale that :meth:`_encode_long` returns, where there is one."""
        return batch, 1, -(-frames // self.codes_per_frame // self._window_frames)

    @property
    def _window_frames(self) -> int:
        return max(round(_WINDOW * self.sample_rate / self.frame_size), 1)

    def _windows(self, frames: int, progress: bool = False) -> Iterator[tuple[int, int, int, int]]:
        """Windows ``[first, last)`` of frames, and ``[start, end)`` with their surroundings."""
        window, context = self._window_frames, round(_CONTEXT * self.sample_rate / self.frame_size)
        context = max(context, self._reach)
        starts = range(0, frames, window)
        for first in tqdm(starts, unit="window", disable=None if progress else True):
            last = min(first + window, frames)
            yield first, last, max(first - context, 0), min(last + context, frames)


def _lengthened(wav: Tensor, samples: int) -> Tensor:
    """``[B, C, S]`` with zeros after it, where it has fewer than so many samples."""
    missing = samples - wav.shape[-1]
    return nn.functional.pad(wav, (0, missing)) if missing > 0 else wav


@torch.no_grad()
def measure(codec: Codec) -> None:
    """Compare what a codec's spec declares with what it does to a second of noise; published metadata is often wrong.

    Raises:
        ConfigError: the codec contradicts its spec; all contradictions are named.
    """
    spec, problems = codec.spec, []

    def expect(what: str, declared: object, found: object) -> None:
        if declared != found:
            problems.append(f"{what}: declared {declared}, found {found}")

    expect("entries of the codebooks", list(spec.cardinalities), [len(codebook) for codebook in codec.codebooks()])
    frames = codec.frames_of(spec.sample_rate)
    codes = torch.zeros(1, spec.num_codebooks, frames, dtype=torch.long, device=codec.device)
    scale = None
    if spec.can_encode:
        noise = torch.randn(1, spec.channels, spec.sample_rate, generator=torch.Generator().manual_seed(0))
        codes, scale = codec.encode(0.1 * noise.to(codec.device))
        expect("shape of the codes of a second", [1, spec.num_codebooks, frames], list(codes.shape))
        expect("a scale", spec.has_scale, scale is not None)
    if spec.can_decode and not problems:
        wav = codec.decode(codes, scale)
        expect("shape of a decoded second", [1, spec.channels, codec.samples_of(frames)], list(wav.shape))
    if problems:
        raise ConfigError(f"The codec '{codec.name}' is not what its package declares. " + "; ".join(problems) + ".")


def check_codes(codes: Tensor, cardinalities: Sequence[int], owner: str) -> Tensor:
    """Codes ``[B, K, T]`` as int64, if they are within the cardinality of each codebook.

    Args:
        codes: to check.
        cardinalities: of the codebooks; there may be more of them than the codes use.
        owner: what the codes are for, for the message.

    Raises:
        CodeRangeError: they have the wrong type or shape, or values out of range.
    """
    if not isinstance(codes, Tensor) or codes.dtype not in _CODE_TYPES:
        raise CodeRangeError(f"Codes are whole numbers, found {getattr(codes, 'dtype', type(codes).__name__)}.")
    if codes.dim() != 3 or not codes.numel():
        raise CodeRangeError(f"Codes have the shape [B, K, T] with something in it, found {list(codes.shape)}.")
    if codes.shape[1] > len(cardinalities):
        raise CodeRangeError(f"The codes have {codes.shape[1]} codebooks, but {owner} has {len(cardinalities)}.")
    sizes = torch.tensor(cardinalities[: codes.shape[1]], device=codes.device)[:, None]
    wrong = (codes < 0) | (codes >= sizes)
    if wrong.any():
        b, k, t = (int(i) for i in wrong.nonzero()[0])
        raise CodeRangeError(
            f"The code {int(codes[b, k, t])} in codebook {k}, frame {t} (item {b}) is outside 0..{int(sizes[k]) - 1} "
            f"of {owner}. {int(wrong.sum())} codes are; they come from another codec or a misfit LM."
        )
    return codes.long()


@dataclass(frozen=True)
class EncodedAudio:
    """The codes of a recording, and what is needed to decode them.

    Attributes:
        codes: int64 ``[B, K, T]``.
        scale: one for each window of the recording, ``[B, 1, windows]``, where the codec has one.
        num_samples: of the recording.
        sample_rate: of the recording, in Hz.
        channels: of the recording.
        codec: the name of the codec.
        fingerprint: of the codec; no other decodes the codes.
    """

    codes: Tensor
    scale: Tensor | None
    num_samples: int
    sample_rate: int
    channels: int
    codec: str
    fingerprint: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.codes`` file: safetensors with codes and scale, the rest as metadata. Whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        from safetensors.torch import save

        facts = {
            "format": _FORMAT,
            "num_samples": str(self.num_samples),
            "sample_rate": str(self.sample_rate),
            "channels": str(self.channels),
            "codec": self.codec,
            "fingerprint": self.fingerprint,
        }
        tensors = {"codes": self.codes.cpu().contiguous()}
        if self.scale is not None:
            tensors["scale"] = self.scale.cpu().contiguous()
        with written_whole(Path(path)) as temporary:
            temporary.write_bytes(save(tensors, facts))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EncodedAudio:
        """Read a ``.codes`` file.

        Raises:
            PackageError: it is none, or it is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise PackageError(f"{path}: there is no such file of codes.")
        try:
            with safe_open(str(path), "pt") as file:
                facts: dict[str, Any] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise PackageError(f"{path}: this is no file of codes, or it is damaged: {error}") from None
        try:
            if facts.get("format") != _FORMAT or "codes" not in tensors:
                raise ValueError(f"its format is {facts.get('format')!r}, expected {_FORMAT!r}")
            result = cls(
                codes=tensors["codes"],
                scale=tensors.get("scale"),
                num_samples=int(facts["num_samples"]),
                sample_rate=int(facts["sample_rate"]),
                channels=int(facts["channels"]),
                codec=facts["codec"],
                fingerprint=facts["fingerprint"],
            )
            if result.codes.dim() != 3 or result.num_samples < 1 or not 1 <= result.channels <= _MAX_CHANNELS:
                raise ValueError("its facts contradict its codes")
            check_sample_rate(result.sample_rate)
        except (KeyError, ValueError) as error:
            raise PackageError(f"{path}: this is no file of codes, or it is damaged: {error}") from None
        return result
