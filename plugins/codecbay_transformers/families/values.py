"""Values that several families take from their configuration, and the bounds of all."""

from __future__ import annotations

import math
from typing import Any

from codecbay.package import Section

MAX_RATE = 768_000  # Hz
MAX_RATIOS = 16
MAX_KERNEL = 1 << 10
MAX_BLOCKS = 64
MAX_LAYERS = 128
MAX_SCALAR = 1 << 16
CAUSAL_PADS = ("constant", "replicate")
ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "quick_gelu", "relu", "silu", "swish")
PAD_MODES = ("constant", "reflect", "replicate", "circular")


def take_ratios(top: Section, key: str, default: tuple[int, ...], *, low: int = 1) -> tuple[int, ...]:
    """Strides of convolutions, and bounds of their product: the samples to a frame."""
    ratios = default if not top.has(key) else top.take_ints(key, low=low, high=MAX_KERNEL)
    if not 1 <= len(ratios) <= MAX_RATIOS or math.prod(ratios) > MAX_RATE:
        raise top.error(key, f"should be 1 to {MAX_RATIOS} numbers with a product of {MAX_RATE} at most.")
    return ratios


def take_upsampling(top: Section, down: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    """The decoder's ratios, which undo the encoder's."""
    up = take_ratios(top, "upsampling_ratios", default, low=2)
    if math.prod(up) != math.prod(down):
        raise top.error("upsampling_ratios", f"{list(up)} do not undo 'downsampling_ratios' {list(down)}.")
    return up


def take_power_of_two(top: Section, key: str, default: int) -> int:
    """The entries of a codebook."""
    size = top.take_int(key, default, low=2)
    if size & (size - 1):
        raise top.error(key, f"is {size}, expected a power of two.")
    return size


def take_bandwidths(top: Section, default: tuple[float, ...]) -> list[float]:
    """Bandwidths in kbit/s."""
    values = top.take("target_bandwidths", default)
    if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= MAX_BLOCKS:
        raise top.error("target_bandwidths", f"should be a list of 1 to {MAX_BLOCKS} numbers.")
    if not all(type(value) in (int, float) and 0 < value <= 1e6 for value in values):
        raise top.error("target_bandwidths", "should hold numbers above 0 and at most 1e6, in kbit/s.")
    return list(values)


def codebooks_by_bandwidth(
    top: Section, bandwidths: list[float], rate: int, hop: int, size: int, *, in_kbits: bool = False
) -> tuple[int, dict[int, float]]:
    """How many codebooks there are, and the bandwidth for each number of them that can be in use, as the library
    counts: frames a second rounded up, bits of a code rounded up for the one, exact for the other.

    Families divide in bit/s or in kbit/s, which can round to another whole number.
    """
    frame_rate = -(-rate // hop)
    total = int(1000 * bandwidths[-1] // (frame_rate * math.ceil(math.log2(size))))
    if total < 1:
        raise top.error("target_bandwidths", f"ends with {bandwidths[-1]}, which leaves no codebook.")
    each = math.log2(size) * frame_rate
    by_count: dict[int, float] = {}
    for bandwidth in bandwidths:
        n = max(1, math.floor(bandwidth / (each / 1000) if in_kbits else bandwidth * 1000 / each))
        by_count.setdefault(min(n, total), bandwidth)
    return total, by_count


def check_growth(top: Section, growth: int, layers: int) -> None:
    """Dilations stay within bounds.

    Raises:
        ConfigError: they do not.
    """
    if growth ** max(layers - 1, 0) > MAX_SCALAR:
        raise top.error("dilation_growth_rate", f"is {growth}, which is too much for {layers} residual layers.")


def take_rope(top: Section) -> dict[str, Any]:
    """The rotary parameters, in the present and in the older form."""
    rope = top.take_section("rope_parameters", None)
    theta = rope.take_float("rope_theta", top.take_float("rope_theta", 10_000.0, low=1), low=1)
    rope.take_str("rope_type", "default", choices=("default",))
    return {"rope_type": "default", "rope_theta": theta}
