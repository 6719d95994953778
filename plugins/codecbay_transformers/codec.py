"""``TransformersCodec``: a codec around a model of the transformers library.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError
from codecbay_transformers.adapters import ADAPTERS
from codecbay_transformers.families import Description


class TransformersCodec(Codec):
    """A codec of the transformers library. See :class:`codecbay.codec.Codec` for what its methods promise."""

    def __init__(self, description: Description, model: nn.Module, name: str) -> None:
        super().__init__(description.spec, name)
        self.description = description
        self.model = model
        self._adapter = ADAPTERS[description.model_type]
        self._reach = description.reach

    def codebooks(self) -> list[Tensor]:
        """The codebooks, a row for each code."""
        return self._adapter.codebooks(self.model)

    def identity(self) -> list[Tensor]:
        """The codebooks; where they are not learned, the projection behind them too."""
        return [*self.codebooks(), *self._adapter.learned(self.model)]

    @torch.no_grad()
    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, C, S]`` to codes ``[B, K, T]`` and, where the codec normalizes, the volume ``[B, 1]``."""
        check_waveform(wav, channels=self.channels)
        wav = wav.to(self.device, torch.float32)
        frames = -(-wav.shape[-1] // self.frame_size)
        if self._adapter.pads:
            wav = F.pad(wav, (0, frames * self.frame_size - wav.shape[-1]))
        with torch.random.fork_rng(devices=[]):  # up to 5.22, the library draws which layers to drop, and drops none
            codes, scale = self._encode(wav)
        return codes[..., :frames].contiguous(), scale

    @torch.no_grad()
    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]`` to ``[B, C, T * output_frame_size]``."""
        codes = self.check_codes(codes)
        wav = self._decode(codes, self._checked(scale, len(codes), 1))
        size = codes.shape[-1] * self.output_frame_size
        return F.pad(wav[..., :size], (0, max(size - wav.shape[-1], 0)))

    @torch.no_grad()
    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        return self._adapter.latent(self.model, self.check_codes(codes))

    def _encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        n = self.num_codebooks
        return self._adapter.encode(self.model, wav, n, self.description.bandwidths.get(n))

    def _decode(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        return self._adapter.decode(self.model, codes, scale)

    def _checked(self, scale: Tensor | None, batch: int, per_item: int) -> Tensor | None:
        if scale is None:
            return None
        if not self.spec.has_scale:
            raise AudioError(f"The codec '{self.name}' has no scale, but one was given.")
        if tuple(scale.shape) != (batch, per_item):
            raise AudioError(f"The scale has the shape {list(scale.shape)}, expected {[batch, per_item]}.")
        return scale.to(next(self.parameters()))
