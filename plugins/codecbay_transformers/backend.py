"""The back-end: which packages are codecs of the transformers library, what they declare, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codecbay.package import Header, PackageFile
from codecbay.spec import CodecSpec
from codecbay_transformers.families import FAMILIES, describe

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec


class TransformersBackend:
    """Directories with ``config.json`` and weights whose ``model_type`` is a discrete codec."""

    name = "transformers"
    requires: tuple[str, ...] = ("torch", "transformers")

    def claims(self, header: Header) -> bool:
        """Packages in the layout of transformers, of a family in the table."""
        model_type = header.config.get("model_type") if header.layout == "transformers" else None
        return isinstance(model_type, str) and model_type in FAMILIES

    def spec(self, header: Header) -> CodecSpec:
        """What the configuration declares, compared with the codebooks that the package holds.

        Raises:
            ConfigError: the configuration is wrong.
            WeightsError: the codebooks contradict it.
        """
        return describe(header).spec

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec, in evaluation mode.

        Raises:
            MissingDependencyError: transformers is not installed.
            ConfigError: the configuration is wrong.
            WeightsError: the tensors are not those that it describes.
        """
        from codecbay_transformers.loading import load

        return load(file, describe(file.header), device=device, dtype=dtype)
