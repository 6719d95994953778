"""EnCodec, with or without chunks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from codecbay.package import Header, Section
from codecbay_transformers.families.description import Description, check_shapes, make_spec
from codecbay_transformers.families.values import (
    CAUSAL_PADS,
    MAX_BLOCKS,
    MAX_KERNEL,
    MAX_RATE,
    PAD_MODES,
    check_growth,
    codebooks_by_bandwidth,
    take_bandwidths,
    take_power_of_two,
    take_ratios,
)

_MIN_CHUNK, _MAX_CHUNK = 0.01, 3600.0  # seconds
_MAX_OVERLAP = 0.5  # of a chunk; with more, the library cannot stack the codes of what is left at the end


def describe(top: Section, header: Header) -> Description:
    """The codec of a configuration."""
    rate = top.take_int("sampling_rate", 24_000, high=MAX_RATE)
    channels = top.take_int("audio_channels", 1, high=2)
    hidden = top.take_int("hidden_size", 128)
    ratios = take_ratios(top, "upsampling_ratios", (8, 5, 4, 2))
    size = take_power_of_two(top, "codebook_size", 1024)
    dim = top.take_optional_int("codebook_dim")
    if dim not in (None, hidden):
        raise top.error("codebook_dim", f"is {dim}, but the latent has the width {hidden}.")
    filters = top.take_int("num_filters", 32)
    normalize = top.take_bool("normalize", False)
    length = top.take_optional_float("chunk_length_s", low=_MIN_CHUNK, high=_MAX_CHUNK)
    overlap = top.take_optional_float("overlap")
    causal = top.take_bool("use_causal_conv", True)
    norm = top.take_str("norm_type", "weight_norm", choices=("weight_norm", "time_group_norm"))
    trim = top.take_float("trim_right_ratio", 1.0, low=0, high=1)
    if not causal and trim != 1:
        raise top.error("trim_right_ratio", "other than 1 needs causal convolutions.")
    arguments: dict[str, Any] = {
        "target_bandwidths": take_bandwidths(top, (1.5, 3.0, 6.0, 12.0, 24.0)),
        "sampling_rate": rate,
        "audio_channels": channels,
        "normalize": normalize,
        "chunk_length_s": length,
        "overlap": overlap,
        "hidden_size": hidden,
        "num_filters": filters,
        "num_residual_layers": top.take_int("num_residual_layers", 1, low=0, high=MAX_BLOCKS),
        "upsampling_ratios": list(ratios),
        "norm_type": norm,
        "kernel_size": top.take_int("kernel_size", 7, high=MAX_KERNEL),
        "last_kernel_size": top.take_int("last_kernel_size", 7, high=MAX_KERNEL),
        "residual_kernel_size": top.take_int("residual_kernel_size", 3, high=MAX_KERNEL),
        "dilation_growth_rate": top.take_int("dilation_growth_rate", 2, high=MAX_KERNEL),
        "use_causal_conv": causal,
        "pad_mode": top.take_str("pad_mode", "reflect", choices=PAD_MODES),
        "compress": top.take_int("compress", 2, high=filters),
        "num_lstm_layers": top.take_int("num_lstm_layers", 2, high=MAX_BLOCKS),
        "trim_right_ratio": trim,
        "codebook_size": size,
        "codebook_dim": hidden,
        "use_conv_shortcut": top.take_bool("use_conv_shortcut", True),
    }
    check_growth(top, arguments["dilation_growth_rate"], arguments["num_residual_layers"])
    hop = math.prod(ratios)
    total, bandwidths = codebooks_by_bandwidth(top, arguments["target_bandwidths"], rate, hop, size)
    check_shapes(header, [f"quantizer.layers.{k}.codebook.embed" for k in range(total)], (size, hidden))
    chunk = stride = None
    if length is not None:
        chunk = int(length * rate)
        if overlap is None or not 0 <= overlap <= _MAX_OVERLAP:
            raise top.error("overlap", f"is {overlap}, expected 0 to {_MAX_OVERLAP}, as there are chunks.")
        if chunk < hop:
            raise top.error("chunk_length_s", f"is {length}, which is shorter than a frame of {hop} samples.")
        stride = max(1, int((1.0 - overlap) * chunk))
    spec = make_spec(rate, (size,) * total, hop, bandwidths, channels=channels, has_scale=normalize)
    # A chunk, a scale, a norm over time, or what is reflected at the start lets a frame depend on what comes after it.
    whole = chunk is not None or normalize or norm == "time_group_norm"
    sees_no_future = causal and not whole and arguments["pad_mode"] in CAUSAL_PADS and trim == 1
    spec = replace(spec, lookahead=0 if sees_no_future else None)
    return Description("encodec", spec, arguments, bandwidths, chunk, stride)
