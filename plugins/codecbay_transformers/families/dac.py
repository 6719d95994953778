"""DAC."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from codecbay.package import Header, Section
from codecbay_transformers.families.description import Description, check_shapes, make_spec
from codecbay_transformers.families.values import (
    MAX_RATE,
    take_power_of_two,
    take_ratios,
    take_upsampling,
)

_REACH = 48  # of convolutions whose ratios are 2 at least: they see 39 steps of each layer, and few of the last


def describe(top: Section, header: Header) -> Description:
    """The codec of a configuration."""
    rate = top.take_int("sampling_rate", 16_000, high=MAX_RATE)
    ratios = take_ratios(top, "downsampling_ratios", (2, 4, 8, 8), low=2)
    size = take_power_of_two(top, "codebook_size", 1024)
    total = top.take_int("n_codebooks", 9, high=len(header.tensors) + 1)
    width = top.take_int("encoder_hidden_size", 64)
    up = take_upsampling(top, ratios, ratios[::-1])
    arguments: dict[str, Any] = {
        "encoder_hidden_size": width,
        "hidden_size": top.take_int("hidden_size", width * 2 ** len(ratios)),
        "downsampling_ratios": list(ratios),
        "upsampling_ratios": list(up),
        "decoder_hidden_size": top.take_int("decoder_hidden_size", 1536, low=2 ** len(up)),
        "n_codebooks": total,
        "codebook_size": size,
        "codebook_dim": top.take_int("codebook_dim", 8),
        "sampling_rate": rate,
    }
    names = [f"quantizer.quantizers.{k}.codebook.weight" for k in range(total)]
    check_shapes(header, names, (size, arguments["codebook_dim"]))
    spec = make_spec(rate, (size,) * total, math.prod(ratios), range(1, total + 1))
    return Description("dac", replace(spec, chunked_tolerance=0.0), arguments, reach=_REACH)
