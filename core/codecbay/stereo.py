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

    _scales_per_item = 2

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

    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, 2, S]``; the scale is ``[B, 2]``, where the codec has one."""
        check_waveform(wav, channels=2)
        codes, scale = self.model.encode(wav.flatten(0, 1)[:, None])  # left and right of each item, in turn
        left, right = codes[0::2], codes[1::2]
        codes = torch.stack([left, right], dim=3 if self.per_timestep else 2)
        codes = codes.flatten(2, 3) if self.per_timestep else codes.flatten(1, 2)
        return codes, None if scale is None else scale.view(-1, 2)

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode to ``[B, 2, S]``."""
        both = self._split(codes)
        wav = self.model.decode(both, None if scale is None else scale.reshape(-1, 1))
        return wav.view(len(codes), 2, -1)

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latents of left and right, one above the other: ``[B, 2 D, T]``."""
        latent = self.model.decode_latent(self._split(codes))
        return latent.reshape(len(codes), -1, latent.shape[-1])

    def _split(self, codes: Tensor) -> Tensor:
        """Codes of either channel, ``[2 B, K, T]``: left and right of each item, in turn."""
        axis = 2 if self.per_timestep else 1
        if codes.dim() == 3 and codes.shape[axis] % 2:
            what = "frames" if self.per_timestep else "codebooks"
            raise CodeRangeError(f"The codes have {codes.shape[axis]} {what}, which two channels cannot share.")
        self.check_codes(codes)
        left, right = (codes[:, :, i::2] if self.per_timestep else codes[:, i::2] for i in (0, 1))
        return torch.stack([left, right], dim=1).flatten(0, 1)
