"""The back-end: which packages are of NAME, what they declare, and how they are built. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from codecbay import CodecSpec, Header, PackageFile

if TYPE_CHECKING:
    import torch
    from codecbay import Codec


class NAMEBackend:
    """Directories with ``config.json``, whose ``model_type`` is ``NAME``, and ``model.safetensors``."""

    name = "NAME"
    requires: tuple[str, ...] = ()

    def claims(self, header: Header) -> bool:
        """Whether the package is of NAME."""
        return header.layout == "transformers" and header.config.get("model_type") == self.name

    def spec(self, header: Header) -> CodecSpec:
        """What the configuration declares.

        Raises:
            ConfigError: it is wrong, or the codebooks contradict it.
        """
        return read_config(header).spec

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec, in evaluation mode.

        Raises:
            ConfigError: the configuration is wrong.
            WeightsError: the tensors are not those that it describes.
        """
        from codecbay_name.codec import load

        return load(file, read_config(file.header), device=device, dtype=dtype)


@dataclass(frozen=True)
class NAMEConfig:
    """The values of ``config.json``.

    Attributes:
        sample_rate: of the waveform, in Hz.
        frame_size: samples to a frame.
        latent_dim: width of the latent, and of an entry of a codebook.
        num_codebooks: codebooks there are.
        codebook_size: entries of each.
    """

    sample_rate: int
    frame_size: int
    latent_dim: int
    num_codebooks: int
    codebook_size: int

    @property
    def spec(self) -> CodecSpec:
        """What the codec is."""
        return CodecSpec(
            sample_rate=self.sample_rate,
            channels=1,
            cardinalities=(self.codebook_size,) * self.num_codebooks,
            frame_size=self.frame_size,
            frame_rate=Fraction(self.sample_rate, self.frame_size),
            num_codebooks=self.num_codebooks,
            allowed_num_codebooks=tuple(range(1, self.num_codebooks + 1)),
            lookahead=0,
            chunked_tolerance=0.0,
        )


def read_config(header: Header) -> NAMEConfig:
    """The configuration of a package.

    Raises:
        ConfigError: a value is missing, unknown or out of range, or the codebooks contradict it.
    """
    section = header.config.top()
    section.take_str("model_type")
    config = NAMEConfig(
        sample_rate=section.take_int("sample_rate", high=768_000),
        frame_size=section.take_int("frame_size"),
        latent_dim=section.take_int("latent_dim"),
        num_codebooks=section.take_int("num_codebooks"),
        codebook_size=section.take_int("codebook_size"),
    )
    section.finish()
    shape = (config.num_codebooks, config.codebook_size, config.latent_dim)
    header.check_shape(section, "quantizer.entries", shape, "num_codebooks", "codebook_size", "latent_dim")
    return config
