"""The back-end: which packages are SNAC's, what they declare, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codecbay.package import Header, PackageFile
from codecbay.spec import CodecSpec
from codecbay_snac.config import read_config

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec

_OWN_KEYS = (("vq_strides",), ("attn_window_size",), ("sampling_rate", "encoder_rates"))  # any of them tells it apart


class SnacBackend:
    """Directories with SNAC's ``config.json`` and ``pytorch_model.bin``."""

    name = "snac"
    requires: tuple[str, ...] = ("snac",)

    def claims(self, header: Header) -> bool:
        """Directories whose configuration has keys of SNAC, and no ``model_type`` of transformers."""
        config = header.config
        return (
            header.role == "codec"
            and header.layout == "transformers"
            and any(all(key in config for key in keys) for keys in _OWN_KEYS)
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
            MissingDependencyError: SNAC's library cannot be imported.
        """
        from codecbay_snac.codec import load

        return load(file, read_config(file.header), device=device, dtype=dtype)
