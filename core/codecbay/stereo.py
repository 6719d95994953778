"""Stereo from a mono codec: left and right are encoded apart and their codes interleaved, as MusicGen's are."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import CodecbayError, CodeRangeError


def bare(codec: Codec) -> Codec:
    """The codec itself, without the interleaving around it."""
    return codec.model if isinstance(codec, InterleavedStereo) else codec


class InterleavedStereo(Codec):
    """A mono codec applied to two channels.

    Codes ``[B, K, T]`` of either channel become ``[B, 2 K, T]`` (left and right codebooks in turn) or
    ``[B, K, 2 T]`` (left and right frames in turn).

    Args:
        codec: the mono codec.
        per_timestep: interleave the frames instead of the codebooks.
    """

    def __init__(self, codec: Codec, per_timestep: bool = False) -> None:
        if codec.channels != 1:
            raise CodecbayError(f"Only a mono codec can be interleaved; '{codec.name}' has {codec.channels} channels.")
        super().__init__(codec.spec.interleaved(per_timestep), codec.name)
        self.model = codec
        self.per_timestep = per_timestep

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz; with ``per_timestep``, those of both channels."""
        return self.model.frame_rate * (2 if self.per_timestep else 1)

    def set_num_codebooks(self, n: int) -> None:
        """Use ``n`` codebooks *of the mono codec* from now on, as AudioCraft counts them here."""
        self.model.set_num_codebooks(n)
        self._spec = self.model.spec.interleaved(self.per_timestep)

    def codebooks(self) -> list[Tensor]:
        """The codebooks of the mono codec."""
        return self.model.codebooks()

    def _hash(self) -> str:
        return hashlib.sha256(f"{self.model.fingerprint()} {self.per_timestep}".encode()).hexdigest()

    def frames_of(self, samples: int) -> int:
        """Frames of the codes of so many samples; with ``per_timestep``, those of both channels."""
        return self.model.frames_of(samples) * (2 if self.per_timestep else 1)

    def samples_of(self, frames: int) -> int:
        """Samples that so many frames are decoded to."""
        return self.model.samples_of(frames // (2 if self.per_timestep else 1))

    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, 2, S]``; the scale is ``[B, 2]``, where the codec has one."""
        check_waveform(wav, channels=2)
        return self._join(*self.model.encode(_apart(wav)))

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode to ``[B, 2, S]``."""
        return _together(self.model.decode(*self._split(codes, scale)))

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latents of left and right, one above the other: ``[B, 2 D, T]``."""
        latent = self.model.decode_latent(self._split(codes)[0])
        return latent.reshape(len(codes), -1, latent.shape[-1])

    def _encode_long(self, wav: Tensor, progress: bool) -> tuple[Tensor, Tensor | None]:
        return self._join(*self.model._encode_long(_apart(wav), progress))

    def _decode_long(self, codes: Tensor, scale: Tensor | None, progress: bool) -> Tensor:
        return _together(self.model._decode_long(*self._split(codes, scale), progress))

    def _scale_shape(self, batch: int, frames: int) -> tuple[int, ...]:
        _, scales, *windows = self.model._scale_shape(2 * batch, frames // (2 if self.per_timestep else 1))
        return batch, 2 * scales, *windows

    def _join(self, codes: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Codes and scales of either channel, left and right of each item in turn, as those of items."""
        left, right = codes[0::2], codes[1::2]
        codes = torch.stack([left, right], dim=3 if self.per_timestep else 2)
        codes = codes.flatten(2, 3) if self.per_timestep else codes.flatten(1, 2)
        return codes, None if scale is None else scale.reshape(len(codes), -1, *scale.shape[2:])

    def _split(self, codes: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The opposite of :meth:`_join`."""
        axis = 2 if self.per_timestep else 1
        if codes.dim() == 3 and codes.shape[axis] % 2:
            what = "frames" if self.per_timestep else "codebooks"
            raise CodeRangeError(f"The codes have {codes.shape[axis]} {what}, which two channels cannot share.")
        self.check_codes(codes)
        left, right = (codes[:, :, i::2] if self.per_timestep else codes[:, i::2] for i in (0, 1))
        both = torch.stack([left, right], dim=1).flatten(0, 1)
        return both, None if scale is None else scale.reshape(len(both), -1, *scale.shape[2:])


def _apart(wav: Tensor) -> Tensor:
    """Waveforms ``[B, 2, S]`` as mono ones ``[2 B, 1, S]``, left and right of each item in turn."""
    return wav.flatten(0, 1)[:, None]


def _together(wav: Tensor) -> Tensor:
    """The opposite of :func:`_apart`."""
    return wav.reshape(-1, 2, wav.shape[-1])
