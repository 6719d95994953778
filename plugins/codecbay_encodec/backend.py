"""The back-end: which packages are EnCodec's, what they declare, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codecbay.package import Header, PackageFile
from codecbay.spec import CodecSpec
from codecbay_encodec.config import EncodecConfig, debug_config, read_config

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec

# AudioCraft's name for a small random codec that test suites use, and the one of its AudioGen counterpart.
DEBUG_SAMPLE_RATES = {"debug_compression_model": 32_000, "debug_compression_model_16khz": 16_000}


class EncodecBackend:
    """AudioCraft's EnCodec packages, and its random ``debug_compression_model``."""

    name = "encodec"
    requires: tuple[str, ...] = ("torch",)

    def claims(self, header: Header) -> bool:
        """Packages whose configuration says ``compression_model: encodec``."""
        if header.role == "reference":
            return header.reference in DEBUG_SAMPLE_RATES
        return header.role == "codec" and header.config.get("compression_model") == "encodec"

    def spec(self, header: Header) -> CodecSpec:
        """What the configuration declares, compared with the tensors' shapes.

        Raises:
            ConfigError: the configuration is wrong, or the tensors contradict it.
        """
        return self._config(header).spec

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec, in evaluation mode.

        Raises:
            ConfigError: the configuration is wrong.
            WeightsError: the tensors are not those that it describes.
        """
        from codecbay_encodec.codec import load, random

        config = self._config(file.header)
        if file.header.role == "reference":
            return random(config, str(file.header.reference), device=device, dtype=dtype)
        return load(file, config, device=device, dtype=dtype)

    def _config(self, header: Header) -> EncodecConfig:
        if header.role == "reference":
            return debug_config(DEBUG_SAMPLE_RATES[str(header.reference)])
        return read_config(header)
