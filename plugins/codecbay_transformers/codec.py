"""``TransformersCodec``: a codec around a model of the transformers library, and the adapters to each family's methods.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError
from codecbay_transformers.families import Description


class Adapter(Protocol):
    """What the methods of a family's model are called."""

    pads: bool
    """Whether waveforms are padded to whole frames before they are encoded; else the model does so itself."""

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        """Codes ``[B, K, T]`` of ``[B, C, S]``, and their scale ``[B, 1]`` or ``None``."""
        ...

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        """The waveform ``[B, C, S]`` of codes ``[B, K, T]``."""
        ...

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        ...

    def codebooks(self, model: Any) -> list[Tensor]:
        """The vectors of each codebook."""
        ...


class _Encodec:
    pads = False

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        output = model.encode(wav, bandwidth=bandwidth, return_dict=True)
        return output.audio_codes[0], output.audio_scales[0]

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(codes[None], [scale], return_dict=True).audio_values
        return wav

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.decode(codes.transpose(0, 1))
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        return [layer.codebook.embed for layer in model.quantizer.layers]


class _Dac:
    pads = True

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        return model.encode(wav, n_quantizers=codebooks, return_dict=True).audio_codes, None

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(audio_codes=codes, return_dict=True).audio_values
        return wav[:, None]

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.from_codes(codes)[0]
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        return [quantizer.codebook.weight for quantizer in model.quantizer.quantizers]


class _Mimi:
    pads = False

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        return model.encode(wav, num_quantizers=codebooks, return_dict=True).audio_codes, None

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(codes, return_dict=True).audio_values
        return wav

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.decode(codes)
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        quantizer = model.quantizer
        parts = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
        tables = [layer.codebook for part in parts for layer in part.layers]
        return [table.embed_sum / table.cluster_usage.clamp(min=table.epsilon)[:, None] for table in tables]


class _Xcodec:
    pads = True

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        return model.encode(wav, bandwidth=bandwidth, return_dict=True).audio_codes, None

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(codes, return_dict=True).audio_values
        return wav

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.decode(codes.transpose(0, 1))
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        return [quantizer.codebook.embed for quantizer in model.quantizer.quantizers]


ADAPTERS: dict[str, Adapter] = {"encodec": _Encodec(), "dac": _Dac(), "mimi": _Mimi(), "xcodec": _Xcodec()}


class TransformersCodec(Codec):
    """A codec of the transformers library. See :class:`codecbay.codec.Codec` for what its methods promise."""

    def __init__(self, description: Description, model: nn.Module, name: str) -> None:
        super().__init__(description.spec, name)
        self.description = description
        self.model = model
        self._adapter = ADAPTERS[description.model_type]

    def codebooks(self) -> list[Tensor]:
        """The codebooks, a row for each code."""
        return self._adapter.codebooks(self.model)

    @torch.no_grad()
    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, C, S]`` to codes ``[B, K, T]`` and, where the codec normalizes, the volume ``[B, 1]``."""
        check_waveform(wav, channels=self.channels)
        wav = wav.to(next(self.parameters()))
        frames = -(-wav.shape[-1] // self.frame_size)
        if self._adapter.pads:
            wav = F.pad(wav, (0, frames * self.frame_size - wav.shape[-1]))
        codes, scale = self._encode(wav)
        return codes[..., :frames], scale

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
