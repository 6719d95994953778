"""The codec itself: frames of samples, a linear map, residual codebooks, and a linear map back.

Letters: ``B`` batch, ``S`` samples, ``K`` codebooks, ``T`` frames, ``N`` entries, ``D`` width of the latent.
"""

from __future__ import annotations

import torch
from codecbay import Codec, PackageFile, assign, check_tensors, check_waveform
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay_name.backend import NAMEConfig


class ResidualQuantizer(nn.Module):
    """Codebooks, each of which stands for what those before it left over."""

    def __init__(self, config: NAMEConfig) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.empty(config.num_codebooks, config.codebook_size, config.latent_dim))

    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """Codes ``[B, K, T]`` of a latent ``[B, D, T]``: of each codebook, the nearest entry."""
        codes, residual = [], latent.mT
        for entries in self.entries[:num_codebooks]:
            distances = entries.square().sum(-1) - 2 * residual @ entries.mT  # but for what all entries share
            codes.append(distances.argmin(-1))
            residual = residual - F.embedding(codes[-1], entries)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` that codes ``[B, K, T]`` stand for."""
        parts = [F.embedding(row, entries) for row, entries in zip(codes.unbind(1), self.entries, strict=False)]
        return torch.stack(parts).sum(0).mT


class NAMECodec(Codec):
    """The codec. See :class:`codecbay.Codec` for what its methods promise.

    Args:
        config: of the codec.
        name: what it was loaded by.
    """

    def __init__(self, config: NAMEConfig, name: str) -> None:
        super().__init__(config.spec, name)
        size = config.frame_size
        self.encoder = nn.Conv1d(1, config.latent_dim, size, stride=size)
        self.quantizer = ResidualQuantizer(config)
        self.decoder = nn.ConvTranspose1d(config.latent_dim, 1, size, stride=size)

    def encode(self, wav: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, 1, S]`` to codes ``[B, K, T]``."""
        check_waveform(wav, channels=self.channels)
        wav = F.pad(wav.to(self.encoder.weight), (0, -wav.shape[-1] % self.frame_size))
        return self.quantizer.encode(self.encoder(wav), self.num_codebooks), None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]`` to ``[B, 1, T * frame_size]``."""
        wav: Tensor = self.decoder(self.decode_latent(codes))
        return wav

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        return self.quantizer.decode(self.check_codes(codes))

    def codebooks(self) -> list[Tensor]:
        """The codebooks, ``[N, D]`` each."""
        return list(self.quantizer.entries)


def load(
    file: PackageFile,
    config: NAMEConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> NAMECodec:
    """Build the codec on the meta device, where nothing is allocated, and give it the tensors of its package.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
    """
    with torch.device("meta"):
        codec = NAMECodec(config, str(file.header.path))
    check_tensors(file.header, {name: tuple(tensor.shape) for name, tensor in codec.state_dict().items()})
    assign(codec, file.tensors(), device=torch.device("cpu"), dtype=torch.float32)
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    return codec.to(device=device, dtype=dtype).eval()
