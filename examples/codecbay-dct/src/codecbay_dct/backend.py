"""The back-end: which packages are ours, what they declare, and how they are built. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from codecbay import CodecSpec, Header, PackageFile

if TYPE_CHECKING:
    import torch
    from codecbay import Codec

MODEL_TYPE = "dct"


class DctBackend:
    """Directories with ``config.json``, whose ``model_type`` is ``dct``, and ``model.safetensors``."""

    name = "dct"
    requires: tuple[str, ...] = ()

    def claims(self, header: Header) -> bool:
        """Whether the package is ours. Headers of other layouts, and of mere names, are shown here too."""
        return header.layout == "transformers" and header.config.get("model_type") == MODEL_TYPE

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
        from codecbay_dct.codec import load

        return load(file, read_config(file.header), device=device, dtype=dtype)


@dataclass(frozen=True)
class DctConfig:
    """The values of ``config.json``.

    Attributes:
        sample_rate: of the waveform, in Hz.
        channels: of the waveform.
        frame_size: samples to a frame.
        num_coefficients: lowest frequencies that are kept of a frame, of each channel.
        codebook_sizes: entries of each codebook.
        licence: of the codebooks.
    """

    sample_rate: int
    channels: int
    frame_size: int
    num_coefficients: int
    codebook_sizes: tuple[int, ...]
    licence: str

    @property
    def width(self) -> int:
        """Numbers in an entry of a codebook."""
        return self.channels * self.num_coefficients

    @property
    def spec(self) -> CodecSpec:
        """What the codec is. No frame depends on another: nothing is ahead of it, and windows change nothing."""
        count = len(self.codebook_sizes)
        return CodecSpec(
            sample_rate=self.sample_rate,
            channels=self.channels,
            cardinalities=self.codebook_sizes,
            frame_size=self.frame_size,
            frame_rate=Fraction(self.sample_rate, self.frame_size),
            num_codebooks=count,
            allowed_num_codebooks=tuple(range(1, count + 1)),
            lookahead=0,
            chunked_tolerance=0.0,
            licence=self.licence,
        )

    def to_json(self) -> dict[str, Any]:
        """What :func:`read_config` reads."""
        return {"model_type": MODEL_TYPE, **asdict(self)}


def read_config(header: Header) -> DctConfig:
    """The configuration of a package, compared with the shapes of its codebooks.

    Raises:
        ConfigError: a value is missing, unknown, of the wrong kind or out of range, or contradicts the codebooks.
    """
    section = header.config.top()
    section.take_str("model_type")
    frame_size = section.take_int("frame_size", high=1 << 16)
    config = DctConfig(
        sample_rate=section.take_int("sample_rate", high=768_000),
        channels=section.take_int("channels", high=2),
        frame_size=frame_size,
        num_coefficients=section.take_int("num_coefficients", high=frame_size),
        codebook_sizes=section.take_ints("codebook_sizes"),
        licence=section.take_str("licence"),
    )
    section.finish()
    if not config.codebook_sizes:
        raise section.error("codebook_sizes", "names no codebook.")
    for k, size in enumerate(config.codebook_sizes):
        header.check_shape(section, tensor_name(k), (size, config.width), "codebook_sizes", "num_coefficients")
    return config


def tensor_name(k: int) -> str:
    """The name of codebook ``k`` in a package."""
    return f"entries.{k}"
