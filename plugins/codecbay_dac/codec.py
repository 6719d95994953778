"""``DacCodec``: the codec itself, and how it gets its tensors.

Letters: ``B`` batch, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError
from codecbay.package import PackageFile
from codecbay.package.weights import assign, check_tensors
from codecbay.streaming import Chain, Each, gathered, stream, streamed
from codecbay_dac.config import DacConfig
from codecbay_dac.network import Decoder, Encoder, ResidualVectorQuantizer

_PIECE = 0.5  # seconds of the items of a batch, all taken together, that go through the network at once
_LENGTH, _DIRECTION = ".weight_g", ".weight_v"


class DacCodec(Codec):
    """Descript's codec. See :class:`codecbay.codec.Codec` for what its methods promise.

    A signal of any length goes through the network piece by piece.

    Args:
        config: of the codec.
        name: what it was loaded by.
    """

    def __init__(self, config: DacConfig, name: str) -> None:
        super().__init__(config.spec, name)
        self.encoder = Encoder(config)
        self.quantizer = ResidualVectorQuantizer(config)
        self.decoder = Decoder(config)

    def codebooks(self) -> list[Tensor]:
        """The codebooks, ``[entries, width]`` each."""
        return [part.codebook.weight for part in self.quantizer.parts]

    def encode(self, wav: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, 1, S]``, padded with zeros to whole frames, to codes ``[B, K, T]``."""
        check_waveform(wav, channels=1)
        frames = self.frames_of(wav.shape[-1])
        wav = wav.to(self.codebooks()[0])
        if missing := frames * self.frame_size - wav.shape[-1]:
            wav = F.pad(wav, (0, missing))
        quantize = Each(lambda latent: self.quantizer.encode(latent, self.num_codebooks))
        layers = Chain([stream(self.encoder), quantize])
        return gathered(streamed(layers, wav, self._piece(len(wav)) * self.frame_size), frames), None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]`` to ``[B, 1, T * frame_size]``.

        Each odd rate loses a sample, so that descript's decoder ends a few samples early (8, at 16 and 24 kHz),
        however long the signal; zeros take their place.
        """
        if scale is not None:
            raise AudioError(f"The codec '{self.name}' has no scale, but one was given.")
        codes = self.check_codes(codes)
        layers = Chain([Each(self.quantizer.decode), stream(self.decoder)])
        return gathered(streamed(layers, codes, self._piece(len(codes))), self.samples_of(codes.shape[-1]))

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        return self.quantizer.decode(self.check_codes(codes))

    @property
    def streams(self) -> bool:
        """See :attr:`Codec.streams`."""
        return True

    def _piece(self, batch: int) -> int:
        """Frames that go through the network at once."""
        return max(round(_PIECE * self.sample_rate / self.frame_size / batch), 1)


def load(file: PackageFile, config: DacConfig, *, device: torch.device, dtype: torch.dtype) -> DacCodec:
    """Build a codec on the meta device and give it the tensors of its package.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
    """
    with torch.device("meta"):
        codec = DacCodec(config, str(file.header.path))
    check_tensors(file.header, _stored_shapes(codec))
    assign(codec, _fold(file.tensors()), device=torch.device("cpu"), dtype=torch.float32)
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    return codec.to(device=device, dtype=dtype).eval()


def _stored_shapes(codec: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by name, with length and direction in place of each convolution's weight."""
    shapes = {name: tuple(tensor.shape) for name, tensor in codec.state_dict().items()}
    for name, module in codec.named_modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            shape = shapes.pop(f"{name}.weight")
            shapes |= {name + _LENGTH: (shape[0], 1, 1), name + _DIRECTION: shape}
    return shapes


def _fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in float32, each pair of length and direction folded into the weight of its convolution."""
    folded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_DIRECTION):
            stem = name.removesuffix(_DIRECTION)
            folded[f"{stem}.weight"] = torch._weight_norm(tensor.float(), tensors[stem + _LENGTH].float(), 0)
        elif not name.endswith(_LENGTH):
            folded[name] = tensor.float()
    return folded
