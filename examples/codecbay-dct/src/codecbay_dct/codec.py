"""The codec itself.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames, ``N`` entries, ``D`` width of an entry.
"""

from __future__ import annotations

import math

import torch
from codecbay import Codec, PackageFile, assign, check_tensors, check_waveform
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay_dct.backend import DctConfig


class DctCodec(Codec):
    """The codec. See :class:`codecbay.Codec` for what its methods promise.

    Args:
        config: of the codec.
        name: what it was loaded by.
    """

    basis: Tensor

    def __init__(self, config: DctConfig, name: str) -> None:
        super().__init__(config.spec, name)
        self.entries = nn.ParameterList(torch.empty(size, config.width) for size in config.codebook_sizes)
        # Computed, and not in the package: a buffer that is no part of the state dict moves with the codec all the same.
        basis = cosine_basis(config.num_coefficients, config.frame_size)
        self.register_buffer("basis", basis, persistent=False)

    def encode(self, wav: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, C, S]`` to codes ``[B, K, T]``."""
        check_waveform(wav, channels=self.channels)
        residual = coefficients(wav.to(self.basis), self.basis)
        codes = []
        for entries in self.entries[: self.num_codebooks]:
            codes.append(nearest(residual, entries))
            residual = residual - F.embedding(codes[-1], entries)
        return torch.stack(codes, dim=1), None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]``, of which ``K`` may be fewer than there are, to ``[B, C, T * frame_size]``."""
        latent = self.decode_latent(codes).unflatten(1, (self.channels, -1))  # [B, C, D / C, T]
        wav: Tensor = (latent.mT @ self.basis).flatten(2)
        return wav

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The coefficients ``[B, D, T]`` that codes ``[B, K, T]`` stand for."""
        rows = self.check_codes(codes).unbind(1)
        parts = [F.embedding(row, entries) for row, entries in zip(rows, self.entries, strict=False)]
        return torch.stack(parts).sum(0).mT

    def codebooks(self) -> list[Tensor]:
        """The codebooks, ``[N, D]`` each; ``N`` may differ."""
        return list(self.entries)


def cosine_basis(count: int, size: int) -> Tensor:
    """The ``count`` lowest rows of the orthonormal cosine transform of ``size`` samples, ``[count, size]``.

    Ahmed et al. 1974, "Discrete cosine transform", https://doi.org/10.1109/T-C.1974.223784.
    """
    k, s = (torch.arange(n, dtype=torch.float64, device="cpu") for n in (count, size))
    basis = torch.cos(math.pi / size * k[:, None] * (s + 0.5)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float()


def coefficients(wav: Tensor, basis: Tensor) -> Tensor:
    """The coefficients of each frame of ``[B, C, S]``, of all channels in one row: ``[B, T, D]``."""
    size = basis.shape[1]
    frames = F.pad(wav, (0, -wav.shape[-1] % size)).unflatten(2, (-1, size))
    rows: Tensor = (frames @ basis.mT).transpose(1, 2).flatten(2)
    return rows


def nearest(rows: Tensor, entries: Tensor) -> Tensor:
    """The entry of ``[N, D]`` that is nearest to each row of ``[..., D]``: ``[...]``."""
    distances = entries.square().sum(-1) - 2 * rows @ entries.mT  # but for what all entries share
    index: Tensor = distances.argmin(-1)
    return index


def load(file: PackageFile, config: DctConfig, *, device: torch.device, dtype: torch.dtype) -> DctCodec:
    """Build the codec and give it the tensors of its package.

    Raises:
        WeightsError: they are not those that the configuration describes.
    """
    with torch.device("meta"):  # nothing is allocated before the tensors' shapes are known to be right
        codec = DctCodec(config, str(file.header.path))
    check_tensors(file.header, {name: tuple(tensor.shape) for name, tensor in codec.state_dict().items()})
    assign(codec, file.tensors(), device=torch.device("cpu"), dtype=torch.float32)
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    return codec.to(device=device, dtype=dtype).eval()
