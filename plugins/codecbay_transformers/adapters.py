"""The adapters to each family's methods: how its model encodes, decodes, and holds its codebooks.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from codecbay_transformers.signal import mel_features, resample


class Adapter(Protocol):
    """What the methods of a family's model are called."""

    pads: bool
    """Whether waveforms are padded to whole frames before they are encoded; else the adapter or the model does so."""

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        """Codes ``[B, K, T]`` of a waveform ``[B, C, S]`` in float32, and their scale ``[B, 1]`` or ``None``."""
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

    def learned(self, model: Any) -> list[Tensor]:
        """What gives codes their meaning where codebooks, not being learned, are those of every codec of the family."""
        return []


class _Encodec(Adapter):
    pads = False

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        # The steps of the library's own, which would go on to a next chunk; and the volume in float32: in float16, that
        # of silence is 0.
        scale = None
        if model.config.normalize:
            scale = wav.mean(1, keepdim=True).pow(2).mean(-1, keepdim=True).sqrt() + 1e-8
            wav = wav / scale
        codes: Tensor = model.quantizer.encode(model.encoder(wav.to(model.dtype)), bandwidth)
        return codes.transpose(0, 1), None if scale is None else scale[:, 0]

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(codes[None], [scale], return_dict=True).audio_values
        return wav

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.decode(codes.transpose(0, 1))
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        return [layer.codebook.embed for layer in model.quantizer.layers]


class _Dac(Adapter):
    pads = True

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        return model.encode(wav.to(model.dtype), n_quantizers=codebooks, return_dict=True).audio_codes, None

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(audio_codes=codes, return_dict=True).audio_values
        return wav[:, None]

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.from_codes(codes)[0]
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        return [quantizer.codebook.weight for quantizer in model.quantizer.quantizers]


class _Mimi(Adapter):
    pads = False

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        return model.encode(wav.to(model.dtype), num_quantizers=codebooks, return_dict=True).audio_codes, None

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


class _Xcodec(Adapter):
    pads = True

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        return model.encode(wav.to(model.dtype), bandwidth=bandwidth, return_dict=True).audio_codes, None

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        wav: Tensor = model.decode(codes, return_dict=True).audio_values
        return wav

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        latent: Tensor = model.quantizer.decode(codes.transpose(0, 1))
        return latent

    def codebooks(self, model: Any) -> list[Tensor]:
        return [quantizer.codebook.embed for quantizer in model.quantizer.quantizers]


class _Higgs(_Xcodec):
    """The library's own ``encode``, but for its resampling by torchaudio."""

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        config = model.config
        heard = F.pad(resample(wav, config.sample_rate, config.semantic_sample_rate)[:, 0], (160, 160))
        layers = model.semantic_model(heard.to(model.dtype), output_hidden_states=True).hidden_states
        semantic = torch.stack(layers, dim=1).mean(1)[:, :: max(config.semantic_downsample_factor, 1)]
        semantic = model.encoder_semantic(semantic.transpose(1, 2))
        acoustic = model.acoustic_encoder(wav.to(model.dtype))
        latent = model.fc(torch.cat([acoustic, semantic], dim=1).transpose(1, 2)).transpose(1, 2)
        return model.quantizer.encode(latent, bandwidth).transpose(0, 1), None


class _Xcodec2(Adapter):
    pads = False

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        # As the library's feature extractor: at least one zero after the signal, and as many as make whole frames.
        wav = F.pad(wav, (0, model.hop_length - wav.shape[-1] % model.hop_length))
        features = self._features(model, wav[:, 0]).to(model.dtype)
        output = model.encode(wav.to(model.dtype), input_features=features, return_dict=True)
        return output.audio_codes.long(), None

    def _features(self, model: Any, wav: Tensor) -> Tensor:
        half = model.hop_length // 2
        return mel_features(F.pad(wav, (half, half)), model.config.sampling_rate)

    def decode(self, model: Any, codes: Tensor, scale: Tensor | None) -> Tensor:
        latent = self.latent(model, codes)
        if latent.shape[-1] == 1:  # of a lone frame in a small model, groups have one value, which torch does not take
            latent = torch.cat([latent, latent])
        wav: Tensor = model.decode(latents=latent, return_dict=True).audio_values
        return wav[: len(codes)].to(model.dtype)  # the last step is in float32, whatever the model is in

    def latent(self, model: Any, codes: Tensor) -> Tensor:
        # The library's own cannot be used: it has the codebook in the model's precision, here it keeps float32.
        quantizer = model.quantizer
        latent: Tensor = quantizer.project_out(quantizer.quantizer.codebook[codes[:, 0]].to(model.dtype))
        return latent.transpose(1, 2)

    def codebooks(self, model: Any) -> list[Tensor]:
        return [model.quantizer.quantizer.codebook]

    def learned(self, model: Any) -> list[Tensor]:
        return list(model.quantizer.project_out.parameters())


class _NeuCodec(_Xcodec2):
    """As X-Codec2, but for features of the padded signal as it is, which last a frame less.

    So the library has no code for a frame that the signal fills only in part. Here it gets the code that it has where
    the signal, or its last second, is padded to whole frames; all other codes are the library's.
    """

    def encode(self, model: Any, wav: Tensor, codebooks: int, bandwidth: float | None) -> tuple[Tensor, Tensor | None]:
        frame, second = model.hop_length, model.config.input_sampling_rate
        whole, rest = divmod(wav.shape[-1], frame)
        parts = [super().encode(model, wav, codebooks, bandwidth)[0]] if whole else []
        if rest:
            end = F.pad(wav[..., max(whole - second // frame, 0) * frame :], (0, frame - rest))
            parts.append(super().encode(model, end, codebooks, bandwidth)[0][..., -1:])
        return torch.cat(parts, dim=-1), None

    def _features(self, model: Any, wav: Tensor) -> Tensor:
        return mel_features(wav, model.config.input_sampling_rate)


ADAPTERS: dict[str, Adapter] = {
    "encodec": _Encodec(),
    "dac": _Dac(),
    "mimi": _Mimi(),
    "xcodec": _Xcodec(),
    "xcodec2": _Xcodec2(),
    "neucodec": _NeuCodec(),
    "higgs_audio_v2_tokenizer": _Higgs(),
}
