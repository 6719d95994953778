"""The back-end: which packages are SpeechTokenizer's, what they declare, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codecbay.package import Header, PackageFile
from codecbay.spec import CodecSpec
from codecbay_speechtokenizer.config import read_config

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec


class SpeechTokenizerBackend:
    """Directories with the ``config.json`` of SpeechTokenizer's trainer and the checkpoint that it saved."""

    name = "speechtokenizer"
    requires: tuple[str, ...] = ("speechtokenizer", "beartype", "tensorboard")

    def claims(self, header: Header) -> bool:
        """Directories whose configuration has ``n_q``, ``strides`` and ``semantic_dimension``; no ``model_type``."""
        config = header.config
        return (
            header.role == "codec"
            and header.layout == "transformers"
            and all(key in config for key in ("n_q", "strides", "semantic_dimension"))
            and not config.get("model_type")
        )

    def spec(self, header: Header) -> CodecSpec:
        """What the configuration declares, compared with the tensors' shapes.

        Raises:
            ConfigError: the configuration is wrong, or the tensors contradict it.
        """
        return read_config(header).spec

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec, in evaluation mode.

        Raises:
            ConfigError: the configuration is wrong.
            WeightsError: the tensors are not those that it describes.
            MissingDependencyError: SpeechTokenizer's library cannot be imported.
        """
        from codecbay_speechtokenizer.codec import load

        return load(file, read_config(file.header), device=device, dtype=dtype)
