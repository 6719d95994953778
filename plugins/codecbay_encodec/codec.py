"""``EncodecCodec``: the codec itself, and how it gets its tensors.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError
from codecbay.package import PackageFile
from codecbay.package.weights import assign, check_tensors
from codecbay.packed import Pack
from codecbay.streaming import Chain, Each, gathered, stream, streamed
from codecbay_encodec.config import EncodecConfig
from codecbay_encodec.seanet import Decoder, Encoder, fold_norms

_PIECE = 4.0  # bytes times seconds of all items of a batch that go through the layers at once: 1 s of float32


class _Codebook(nn.Module):
    """Vectors ``[bins, D]``, and the statistics that training keeps beside them."""

    embed: Tensor

    def __init__(self, bins: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(bins))
        self.register_buffer("embed", torch.randn(bins, dim))
        self.register_buffer("embed_avg", torch.zeros(bins, dim))
        self._search = Pack(_search)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The index of the vector nearest to each of ``[N, D]`` in float32, and what that vector leaves over."""
        embed, squares = self._search(self.embed)
        # Summed in this order, rounding breaks ties as it does in AudioCraft.
        distance = x.pow(2).sum(1, keepdim=True) - 2 * x @ embed.t() + squares
        indices = distance.argmin(dim=-1)
        return indices, x - F.embedding(indices, embed)


def _search(embed: Tensor) -> tuple[Tensor, Tensor]:
    embed = embed.float()
    return embed, embed.t().pow(2).sum(0, keepdim=True)


class _Layer(nn.Module):
    def __init__(self, bins: int, dim: int) -> None:
        super().__init__()
        self._codebook = _Codebook(bins, dim)

    @property
    def codebook(self) -> _Codebook:
        return self._codebook


class _Layers(nn.Module):
    def __init__(self, n_q: int, bins: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(bins, dim) for _ in range(n_q))


class ResidualVectorQuantizer(nn.Module):
    """Each codebook quantizes what the ones before it left over (algorithm 1 of https://arxiv.org/abs/2107.03312)."""

    def __init__(self, n_q: int, bins: int, dim: int) -> None:
        super().__init__()
        self.vq = _Layers(n_q, bins, dim)

    @property
    def codebooks(self) -> list[_Codebook]:
        """All codebooks, the coarsest first."""
        return [layer.codebook for layer in self.vq.layers]  # type: ignore[misc]

    def encode(self, latent: Tensor, n_q: int) -> Tensor:
        """Latent ``[B, D, T]`` to codes ``[B, K, T]`` of the first ``n_q`` codebooks."""
        batch, dim, frames = latent.shape
        # Distances are compared in float32, whatever the latent is in: in bfloat16, many would be equal.
        residual = latent.transpose(1, 2).reshape(-1, dim).float()
        codes = []
        for codebook in self.codebooks[:n_q]:
            indices, residual = codebook.quantize(residual)
            codes.append(indices.view(batch, frames))
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, K, T]`` to latent ``[B, D, T]``."""
        latent: Tensor | None = None
        for k, codebook in enumerate(self.codebooks[: codes.shape[1]]):
            vectors = F.embedding(codes[:, k], codebook.embed)
            latent = vectors if latent is None else latent + vectors
        assert latent is not None
        return latent.transpose(1, 2)


class EncodecCodec(Codec):
    """AudioCraft's EnCodec. See :class:`codecbay.codec.Codec` for what its methods promise."""

    def __init__(self, config: EncodecConfig, name: str) -> None:
        super().__init__(config.spec, name)
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder)
        self.quantizer = ResidualVectorQuantizer(config.n_q, config.bins, config.encoder.dimension)

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz, as AudioCraft counts them: rounded down."""
        return float(self.config.frame_rate)

    def codebooks(self) -> list[Tensor]:
        """The codebooks, ``[bins, D]`` each."""
        return [codebook.embed for codebook in self.quantizer.codebooks]

    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, C, S]`` to codes ``[B, K, T]`` and, where the codec renormalizes, the volume ``[B, 1]``."""
        check_waveform(wav, channels=self.channels)
        wav = wav.to(self.codebooks()[0])
        scale = None
        if self.config.renormalize:
            volume = wav.mean(dim=1, keepdim=True).pow(2).mean(dim=2, keepdim=True).sqrt()
            scale = 1e-8 + volume
            wav = wav / scale
            scale = scale.view(-1, 1)
        quantize = Each(lambda latent: self.quantizer.encode(latent, self.num_codebooks))
        pieces = streamed(Chain([stream(self.encoder), quantize]), wav, self._piece(len(wav)) * self.frame_size)
        return gathered(pieces, self.frames_of(wav.shape[-1])), scale

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]`` to ``[B, C, T * frame_size]``."""
        if scale is not None and (not self.config.renormalize or scale.numel() != len(codes)):
            expected = f"[{len(codes)}, 1]" if self.config.renormalize else "none"
            raise AudioError(f"The scale of codec '{self.name}' should be {expected}, found {list(scale.shape)}.")
        decoding = Chain([Each(self.quantizer.decode), stream(self.decoder)])
        pieces = streamed(decoding, self.check_codes(codes), self._piece(len(codes)))
        wav = gathered(pieces, self.samples_of(codes.shape[-1]))
        return wav if scale is None else wav * scale.to(wav).view(-1, 1, 1)

    @property
    def streams(self) -> bool:
        """See :attr:`Codec.streams`."""
        return self.config.streams

    def _piece(self, batch: int) -> int:
        """Frames that go through the layers at once."""
        seconds = _PIECE / self.codebooks()[0].element_size() / batch
        return max(round(seconds * self.sample_rate / self.frame_size), 1)

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        return self.quantizer.decode(self.check_codes(codes))


def load(file: PackageFile, config: EncodecConfig, *, device: torch.device, dtype: torch.dtype) -> EncodecCodec:
    """Build a codec on the meta device and give it the tensors of its package.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
    """
    with torch.device("meta"):
        codec = EncodecCodec(config, str(file.header.path))
    check_tensors(file.header, {name: tuple(t.shape) for name, t in codec.state_dict().items()})
    assign(codec, file.tensors(), device=torch.device("cpu"), dtype=torch.float32)
    return _finish(codec, device, dtype)


def random(config: EncodecConfig, name: str, *, device: torch.device, dtype: torch.dtype) -> EncodecCodec:
    """A codec with random weights, for trying things out."""
    return _finish(EncodecCodec(config, name), device, dtype)


def _finish(codec: EncodecCodec, device: torch.device, dtype: torch.dtype) -> EncodecCodec:
    fold_norms(codec)
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    return codec.to(device=device, dtype=dtype).eval()
