"""``DacCodec``: the codec itself.

Letters: ``B`` batch, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError
from codecbay.package import PackageFile
from codecbay.spec import CodecSpec
from codecbay_dac.config import DacConfig
from codecbay_dac.models import build_model


class DacCodec(Codec):
    """Descript's codec. See :class:`codecbay.codec.Codec` for what its methods promise.

    Both models have an ``encoder``, a ``decoder`` and a ``quantizer`` of the same parts; quantizing is done here, as
    descript does it, so that the codes do not depend on the library. (Transformers adds the squared length of a
    vector of the codebook where it has to be subtracted.)

    Args:
        spec: what the codec is.
        name: what it was loaded by.
        model: descript's ``DAC`` or transformers' ``DacModel``.
        library: that the model is of.
    """

    _reach = 48  # of convolutions whose rates are 2 at least: they see 39 steps of each layer, and few of the last

    def __init__(self, spec: CodecSpec, name: str, model: Any, library: str) -> None:
        super().__init__(spec, name)
        self.model = model
        self.library = library

    def codebooks(self) -> list[Tensor]:
        """The codebooks, ``[entries, width]`` each."""
        return [part.codebook.weight for part in self.model.quantizer.quantizers]

    def encode(self, wav: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, 1, S]``, padded with zeros to whole frames, to codes ``[B, K, T]``."""
        check_waveform(wav, channels=1)
        wav = F.pad(wav.to(self.codebooks()[0]), (0, -wav.shape[-1] % self.frame_size))
        residual = self.model.encoder(wav)
        codes = []
        for part in self.model.quantizer.quantizers[: self.num_codebooks]:
            projected = part.in_proj(residual)
            indices = _nearest(projected, part.codebook.weight)
            vectors = F.embedding(indices, part.codebook.weight).transpose(1, 2)
            # Without effect but on rounding: what is left of the straight-through gradient that trained it.
            residual = residual - part.out_proj(projected + (vectors - projected))
            codes.append(indices)
        return torch.stack(codes, dim=1), None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]`` to ``[B, 1, T * frame_size]``.

        Each odd rate loses a sample, so that descript's decoder ends a few samples early (8, at 16 and 24 kHz),
        however long the signal; zeros take their place.
        """
        if scale is not None:
            raise AudioError(f"The codec '{self.name}' has no scale, but one was given.")
        wav: Tensor = self.model.decoder(self.decode_latent(codes))
        return F.pad(wav, (0, codes.shape[-1] * self.frame_size - wav.shape[-1]))

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        latent: Tensor = self.model.quantizer.from_codes(self.check_codes(codes))[0]
        return latent


def _nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """The index ``[B, T]`` of the vector nearest to each of ``[B, D, T]``, all of them scaled to length 1."""
    # Summed in this order, rounding breaks ties as it does in descript's library.
    vectors, codebook = F.normalize(x.transpose(1, 2).flatten(0, 1)), F.normalize(codebook)
    distance = (
        vectors.pow(2).sum(1, keepdim=True) - 2 * vectors @ codebook.t() + codebook.pow(2).sum(1, keepdim=True).t()
    )
    return (-distance).max(1)[1].view(len(x), -1)


def load(file: PackageFile, config: DacConfig, *, device: torch.device, dtype: torch.dtype) -> DacCodec:
    """Build a codec and give it the tensors of its package.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
        MissingDependencyError: no library can build it.
    """
    library, model = build_model(file, config)
    codec = DacCodec(config.spec, str(file.header.path), model, library)
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    return codec.to(device=device, dtype=dtype).eval()
