"""X-Codec, and what Higgs Audio's tokenizer has of it: an acoustic model and a semantic one, quantized together."""

from __future__ import annotations

import math
from typing import Any

from codecbay.package import Header, Section
from codecbay_transformers.families.description import Description, check_shapes, make_spec
from codecbay_transformers.families.hubert import take_semantic
from codecbay_transformers.families.values import (
    MAX_BLOCKS,
    MAX_KERNEL,
    MAX_RATE,
    MAX_RATIOS,
    codebooks_by_bandwidth,
    take_bandwidths,
    take_ratios,
    take_upsampling,
)


def describe(top: Section, header: Header) -> Description:
    """The codec of a configuration."""
    arguments, width = take_arguments(top, sample_rate=16_000, mask_time_prob=0.05)
    dim = top.take_optional_int("codebook_dim")
    if dim not in (None, width):
        raise top.error("codebook_dim", f"is {dim}, but the latent has the width {width}.")
    return describe_residual("xcodec", top, header, {**arguments, "codebook_dim": width})


def take_arguments(top: Section, *, sample_rate: int, mask_time_prob: float) -> tuple[dict[str, Any], int]:
    """The arguments that both families share, and the width of the latent.

    Args:
        top: the configuration.
        sample_rate: in Hz, where it tells none.
        mask_time_prob: of the semantic model, where it tells none.
    """
    inner = top.take_section("acoustic_model_config", {})
    inner.take_str("model_type", "dac", choices=("dac",))
    ratios = take_ratios(inner, "downsampling_ratios", (8, 5, 4, 2), low=2)
    up = take_upsampling(inner, ratios, (8, 5, 4, 2))
    acoustic_size = inner.take_int("hidden_size", 256)
    acoustic = {
        "model_type": "dac",
        "hidden_size": acoustic_size,
        "encoder_hidden_size": inner.take_int("encoder_hidden_size", 64),
        "decoder_hidden_size": inner.take_int("decoder_hidden_size", 1024, low=2 ** len(up)),
        "downsampling_ratios": list(ratios),
        "upsampling_ratios": list(up),
    }
    semantic = take_semantic(top, mask_time_prob=mask_time_prob)
    blocks = top.take_ints("strides", (1, 1), high=MAX_KERNEL)
    widths = top.take_ints("channel_ratios", (1, 1), high=MAX_KERNEL)
    dilations = top.take_ints("block_dilations", (1, 1), high=MAX_KERNEL)
    if not 1 <= len(blocks) == len(widths) <= MAX_RATIOS or len(dilations) > MAX_BLOCKS:
        raise top.error("strides", "and 'channel_ratios' should have one value for each block.")
    arguments: dict[str, Any] = {
        "target_bandwidths": take_bandwidths(top, (0.5, 1, 1.5, 2, 4)),
        "sample_rate": top.take_int("sample_rate", sample_rate, high=MAX_RATE),
        "kernel_size": _take_odd(top, "kernel_size"),
        "channel_ratios": list(widths),
        "strides": list(blocks),
        "block_dilations": list(dilations),
        "unit_kernel_size": _take_odd(top, "unit_kernel_size"),
        "codebook_size": top.take_int("codebook_size", 1024, low=2),
        "acoustic_model_config": acoustic,
        "semantic_model_config": semantic,
    }
    return arguments, acoustic_size + semantic["hidden_size"]


def describe_residual(model_type: str, top: Section, header: Header, arguments: dict[str, Any]) -> Description:
    """The codec with these arguments, its codebooks counted by bandwidth.

    Raises:
        WeightsError: the codebooks are not those of the configuration.
    """
    rate, size = arguments["sample_rate"], arguments["codebook_size"]
    hop = math.prod(arguments["acoustic_model_config"]["downsampling_ratios"])
    total, bandwidths = codebooks_by_bandwidth(top, arguments["target_bandwidths"], rate, hop, size, in_kbits=True)
    names = [f"quantizer.quantizers.{k}.codebook.embed" for k in range(total)]
    check_shapes(header, names, (size, arguments["codebook_dim"]))
    return Description(model_type, make_spec(rate, (size,) * total, hop, bandwidths), arguments, bandwidths)


def _take_odd(top: Section, key: str) -> int:
    size = top.take_int(key, 3, high=MAX_KERNEL)
    if size % 2 == 0:
        raise top.error(key, f"is {size}, expected an odd number: an even one changes the number of frames.")
    return size
