"""The back-end: which packages are descript's, what they declare, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codecbay.package import Header, PackageFile
from codecbay.spec import CodecSpec
from codecbay_dac.config import read_config

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec


class DacBackend:
    """Descript's ``.pth`` files: ``state_dict`` beside ``metadata.kwargs``."""

    name = "dac"
    requires: tuple[str, ...] = ("torch",)

    def claims(self, header: Header) -> bool:
        """Files in descript's layout."""
        return header.role == "codec" and header.layout == "descript"

    def spec(self, header: Header) -> CodecSpec:
        """What the arguments in the metadata declare, compared with the tensors' shapes.

        Raises:
            ConfigError: an argument is wrong, or the tensors contradict it.
        """
        return read_config(header).spec

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec, in evaluation mode.

        Raises:
            ConfigError: the arguments in the metadata are wrong.
            WeightsError: the tensors are not those that they describe.
        """
        from codecbay_dac.codec import load

        return load(file, read_config(file.header), device=device, dtype=dtype)
