"""``SpeechTokenizerCodec``: the codec itself, and how it gets its tensors.

Letters: ``B`` batch, ``S`` samples, ``K`` codebooks, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from codecbay.audio import check_waveform
from codecbay.codec import Codec
from codecbay.errors import AudioError
from codecbay.imports import import_library
from codecbay.package import PackageFile
from codecbay.package.weights import assign, check_tensors
from codecbay.spec import CodecSpec
from codecbay_speechtokenizer.config import SpeechTokenizerConfig

INSTALL = "pip install 'codecbay[speechtokenizer]'"


class SpeechTokenizerCodec(Codec):
    """SpeechTokenizer. See :class:`codecbay.codec.Codec` for what its methods promise.

    The first codebook holds what is said (its codes alone are the semantic tokens), the others what is left.

    Args:
        spec: what the codec is.
        name: what it was loaded by.
        model: the library's ``SpeechTokenizer``, which puts codebooks before the batch: ``[K, B, T]``.
    """

    def __init__(self, spec: CodecSpec, name: str, model: Any) -> None:
        super().__init__(spec, name)
        self.model = model

    def codebooks(self) -> list[Tensor]:
        """The codebooks, ``[entries, D]`` each."""
        return [layer.codebook for layer in self.model.quantizer.vq.layers]

    def encode(self, wav: Tensor) -> tuple[Tensor, None]:
        """Encode ``[B, 1, S]`` to codes ``[B, K, T]``; the library fills the last frame up."""
        check_waveform(wav, channels=1)
        codes: Tensor = self.model.encode(wav.to(self.codebooks()[0]), n_q=self.num_codebooks)
        return codes.transpose(0, 1).contiguous(), None

    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]``, the first ``K`` codebooks, to ``[B, 1, T * frame_size]``."""
        if scale is not None:
            raise AudioError(f"The codec '{self.name}' has no scale, but one was given.")
        wav: Tensor = self.model.decoder(self.decode_latent(codes))
        return wav

    def decode_latent(self, codes: Tensor) -> Tensor:
        """The latent ``[B, D, T]`` of codes ``[B, K, T]``."""
        latent: Tensor = self.model.quantizer.decode(self.check_codes(codes).transpose(0, 1))
        return latent


def load(
    file: PackageFile, config: SpeechTokenizerConfig, *, device: torch.device, dtype: torch.dtype
) -> SpeechTokenizerCodec:
    """Build a codec on the meta device and give it the tensors of its package.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
        MissingDependencyError: SpeechTokenizer's library cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses torch.jit.script and torch's old weight norm, both deprecated
        library = import_library("speechtokenizer", needed_by="The codec SpeechTokenizer", install=INSTALL)
        with torch.device("meta"):
            model = library.SpeechTokenizer(asdict(config))
    check_tensors(file.header, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    assign(model, file.tensors(), device=torch.device("cpu"), dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            nn.utils.remove_weight_norm(module)  # folded into the weight, which changes no value
    codec = SpeechTokenizerCodec(config.spec, str(file.header.path), model)
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    return codec.to(device=device, dtype=dtype).eval()
