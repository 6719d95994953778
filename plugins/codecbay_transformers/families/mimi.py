"""Mimi."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from codecbay.package import Header, Section
from codecbay_transformers.families.description import Description, check_shapes, make_spec
from codecbay_transformers.families.values import (
    ACTIVATIONS,
    CAUSAL_PADS,
    MAX_BLOCKS,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_RATE,
    MAX_SCALAR,
    PAD_MODES,
    check_growth,
    take_power_of_two,
    take_ratios,
    take_rope,
)


def describe(top: Section, header: Header) -> Description:
    """The codec of a configuration."""
    for half in ("encoder_config", "decoder_config"):
        if top.take(half, {}) is None:
            raise top.error(half, "is null: a Mimi without it is not supported.")
    rate = top.take_int("sampling_rate", 24_000, high=MAX_RATE)
    channels = top.take_int("audio_channels", 1, high=2)
    ratios = take_ratios(top, "upsampling_ratios", (8, 6, 5, 4))
    size = take_power_of_two(top, "codebook_size", 2048)
    total = top.take_int("num_quantizers", 32, low=2, high=len(header.tensors) + 1)
    semantic = top.take_int("num_semantic_quantizers", 1, high=total - 1)
    hidden = top.take_int("hidden_size", 512)
    dim = top.take_int("codebook_dim", 256)
    vector = top.take_int("vector_quantization_hidden_dimension", 256)
    if dim != vector:
        raise top.error("codebook_dim", f"is {dim}, but what is quantized has the width {vector}.")
    filters = top.take_int("num_filters", 64)
    heads = top.take_int("num_attention_heads", 8, high=MAX_SCALAR)
    hop = math.prod(ratios)
    # The library writes it with the underscore, and reads both.
    key = "_frame_rate" if top.has("_frame_rate") else "frame_rate"
    frame_rate = top.take_optional_float(key, low=1e-3, high=MAX_RATE)
    # As the library: frames of the convolutions to a frame of the codes, with both rates as it rounds them.
    stride = int(-(-rate // hop) / (rate / (2 * hop) if frame_rate is None else frame_rate))
    if not 2 <= stride <= MAX_KERNEL:
        raise top.error(key, f"makes {stride} steps of the encoder a frame, expected 2 to {MAX_KERNEL}.")
    if not top.take_bool("use_causal_conv", True):
        raise top.error("use_causal_conv", "is false: only a causal Mimi is supported.")
    arguments: dict[str, Any] = {
        "sampling_rate": rate,
        "audio_channels": channels,
        "hidden_size": hidden,
        "num_filters": filters,
        "num_residual_layers": top.take_int("num_residual_layers", 1, low=0, high=MAX_BLOCKS),
        "upsampling_ratios": list(ratios),
        "kernel_size": top.take_int("kernel_size", 7, high=MAX_KERNEL),
        "last_kernel_size": top.take_int("last_kernel_size", 3, high=MAX_KERNEL),
        "residual_kernel_size": top.take_int("residual_kernel_size", 3, high=MAX_KERNEL),
        "dilation_growth_rate": top.take_int("dilation_growth_rate", 2, high=MAX_KERNEL),
        "pad_mode": top.take_str("pad_mode", "constant", choices=PAD_MODES),
        "compress": top.take_int("compress", 2, high=filters),
        "trim_right_ratio": top.take_float("trim_right_ratio", 1.0, low=0, high=1),
        "codebook_size": size,
        "codebook_dim": dim,
        "num_quantizers": total,
        "use_conv_shortcut": top.take_bool("use_conv_shortcut", False),
        "vector_quantization_hidden_dimension": vector,
        "num_semantic_quantizers": semantic,
        "upsample_groups": top.take_int("upsample_groups", 512),
        "num_hidden_layers": top.take_int("num_hidden_layers", 8, high=MAX_LAYERS),
        "intermediate_size": top.take_int("intermediate_size", 2048),
        "num_attention_heads": heads,
        "num_key_value_heads": top.take_int("num_key_value_heads", 8, high=heads),
        "head_dim": top.take_optional_int("head_dim", high=MAX_SCALAR),
        "hidden_act": top.take_str("hidden_act", "gelu", choices=ACTIVATIONS),
        "max_position_embeddings": top.take_int("max_position_embeddings", 8000),
        "norm_eps": top.take_float("norm_eps", 1e-5, low=0, high=1),
        "rope_parameters": take_rope(top),
        "sliding_window": top.take_int("sliding_window", 250),
        "attention_bias": top.take_bool("attention_bias", False),
    }
    if frame_rate is not None:
        arguments["frame_rate"] = frame_rate
    check_growth(top, arguments["dilation_growth_rate"], arguments["num_residual_layers"])
    names = [
        f"quantizer.{kind}_residual_vector_quantizer.layers.{k}.codebook.embed_sum"
        for kind, layers in (("semantic", semantic), ("acoustic", total - semantic))
        for k in range(layers)
    ]
    check_shapes(header, names, (size, dim))
    spec = make_spec(rate, (size,) * total, hop * stride, range(semantic, total + 1), channels=channels)
    causal = arguments["pad_mode"] in CAUSAL_PADS and arguments["trim_right_ratio"] == 1
    return Description("mimi", replace(spec, lookahead=0 if causal else None), arguments)
