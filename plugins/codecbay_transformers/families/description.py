"""``Description``: what a header says of a codec, and what all families' descriptions share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from codecbay.errors import WeightsError
from codecbay.package import Header
from codecbay.spec import CodecSpec


@dataclass(frozen=True)
class Description:
    """A codec, as its header describes it.

    Attributes:
        model_type: the family.
        spec: what the codec is.
        arguments: of the library's configuration class.
        bandwidths: in kbit/s, by number of codebooks, where the library chooses codebooks by bandwidth.
        chunk: samples that are encoded at once, where the codec works on chunks of a fixed length.
        stride: samples from the start of a chunk to the start of the next.
        reach: frames to either side that a frame depends on, where that may be more than a second, and is bounded.
        unused: tensors that published packages hold, and the model has no use for.
    """

    model_type: str
    spec: CodecSpec
    arguments: Mapping[str, Any]
    bandwidths: Mapping[int, float] = field(default_factory=dict)
    chunk: int | None = None
    stride: int | None = None
    reach: int = 0
    unused: tuple[str, ...] = ()


def make_spec(
    rate: int,
    cardinalities: tuple[int, ...],
    frame_size: int,
    allowed: Iterable[int],
    *,
    channels: int = 1,
    has_scale: bool = False,
    decoded_sample_rate: int | None = None,
) -> CodecSpec:
    """The spec of a codec with all its codebooks in use."""
    return CodecSpec(
        sample_rate=rate,
        channels=channels,
        cardinalities=cardinalities,
        frame_size=frame_size,
        frame_rate=Fraction(rate, frame_size),
        num_codebooks=len(cardinalities),
        allowed_num_codebooks=tuple(sorted(allowed)),
        has_scale=has_scale,
        decoded_sample_rate=decoded_sample_rate,
    )


def check_shapes(header: Header, names: Iterable[str], shape: tuple[int, ...]) -> None:
    """The tensors that tell codecs apart, such as codebooks, are there, with the sizes of the configuration.

    Raises:
        WeightsError: one is missing or misshapen.
    """
    for name in names:
        info = header.tensors.get(name)
        if info is None or info.shape != shape:
            found = "is missing" if info is None else f"has the shape {list(info.shape)}"
            raise WeightsError(
                f"{header.path}: the configuration asks for the tensor '{name}' {list(shape)}, but it {found}."
            )
