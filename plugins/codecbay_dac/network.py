"""The network: an encoder and a decoder of convolutions (SEANet's, with Snakes), and a quantizer between them.

Modules have descript's names, and their folded weights, so that its state dicts fit.

Letters: ``B`` batch, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent, ``W`` of a codebook.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.packed import Conv1d, ConvTranspose1d, Snake
from codecbay.streaming import Residual, Stream, stream
from codecbay_dac.config import DacConfig


class ResidualUnit(nn.Module):
    """Two convolutions, the first dilated, beside what they are given."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(width),
            Conv1d(width, width, 7, dilation=dilation, padding=3 * dilation),
            Snake(width),
            Conv1d(width, width, 1),
        )

    def stream(self) -> Stream:
        """The unit at work on a signal ``[B, C, S]``."""
        return Residual(stream(self.block))


def _units(width: int) -> list[nn.Module]:
    return [ResidualUnit(width, dilation) for dilation in (1, 3, 9)]


class EncoderBlock(nn.Module):
    """Residual units, and a convolution to twice as many channels at a lower rate."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        down = Conv1d(width, 2 * width, 2 * stride, stride=stride, padding=-(-stride // 2))
        self.block = nn.Sequential(*_units(width), Snake(width), down)

    def stream(self) -> Stream:
        """The block at work on a signal ``[B, C, S]``."""
        return stream(self.block)


class DecoderBlock(nn.Module):
    """A convolution to half as many channels at a higher rate, and residual units."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        up = ConvTranspose1d(width, width // 2, 2 * stride, stride=stride, padding=-(-stride // 2))
        self.block = nn.Sequential(Snake(width), up, *_units(width // 2))

    def stream(self) -> Stream:
        """The block at work on a signal ``[B, C, S]``."""
        return stream(self.block)


class Encoder(nn.Module):
    """Waveform ``[B, 1, S]`` of whole frames to latent ``[B, D, T]``."""

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        width = config.encoder_dim
        layers: list[nn.Module] = [Conv1d(1, width, 7, padding=3)]
        for rate in config.encoder_rates:
            layers.append(EncoderBlock(width, rate))
            width *= 2
        self.block = nn.Sequential(*layers, Snake(width), Conv1d(width, config.latent_dim, 3, padding=1))

    def stream(self) -> Stream:
        """The encoder at work on a waveform."""
        return stream(self.block)


class Decoder(nn.Module):
    """Latent ``[B, D, T]`` to waveform ``[B, 1, S]``."""

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        width = config.decoder_dim
        layers: list[nn.Module] = [Conv1d(config.latent_dim, width, 7, padding=3)]
        for rate in config.decoder_rates:
            layers.append(DecoderBlock(width, rate))
            width //= 2
        self.model = nn.Sequential(*layers, Snake(width), Conv1d(width, 1, 7, padding=3), nn.Tanh())

    def stream(self) -> Stream:
        """The decoder at work on a latent."""
        return stream(self.model)


class VectorQuantizer(nn.Module):
    """A codebook of few dimensions, and projections from the latent and back."""

    def __init__(self, latent_dim: int, size: int, width: int) -> None:
        super().__init__()
        self.in_proj = Conv1d(latent_dim, width, 1)
        self.out_proj = Conv1d(width, latent_dim, 1)
        self.codebook = nn.Embedding(size, width)

    def nearest(self, projected: Tensor) -> Tensor:
        """The index ``[B, T]`` of the vector nearest to each of ``[B, W, T]``, all of them scaled to length 1."""
        # In float32, whatever the latent is in; and summed in this order, rounding breaks ties as it does in descript's
        # library.
        vectors = F.normalize(projected.transpose(1, 2).flatten(0, 1).float())
        codebook = F.normalize(self.codebook.weight.float())
        distance = (
            vectors.pow(2).sum(1, keepdim=True) - 2 * vectors @ codebook.t() + codebook.pow(2).sum(1, keepdim=True).t()
        )
        return (-distance).max(1)[1].view(len(projected), -1)

    def vectors(self, indices: Tensor) -> Tensor:
        """The vectors ``[B, W, T]`` of indices ``[B, T]``."""
        return F.embedding(indices, self.codebook.weight).transpose(1, 2)


class ResidualVectorQuantizer(nn.Module):
    """Each codebook quantizes what the ones before it left over."""

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        size = config.codebook_size
        self.quantizers = nn.ModuleList(VectorQuantizer(config.latent_dim, size, dim) for dim in config.codebook_dims)

    @property
    def parts(self) -> list[VectorQuantizer]:
        """One for each codebook, the coarsest first."""
        return list(self.quantizers)  # type: ignore[arg-type]

    def encode(self, latent: Tensor, n: int) -> Tensor:
        """Latent ``[B, D, T]`` to codes ``[B, K, T]`` of the first ``n`` codebooks."""
        codes = []
        for part in self.parts[:n]:
            projected = part.in_proj(latent)
            indices = part.nearest(projected)
            # Without effect but on rounding: what is left of the straight-through gradient that trained it.
            latent = latent - part.out_proj(projected + (part.vectors(indices) - projected))
            codes.append(indices)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, K, T]`` to latent ``[B, D, T]``."""
        latent: Tensor | None = None
        for part, indices in zip(self.parts, codes.unbind(1), strict=False):
            vectors = part.out_proj(part.vectors(indices))
            latent = vectors if latent is None else latent + vectors
        assert latent is not None
        return latent
