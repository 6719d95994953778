"""The tokenizer of Higgs Audio v2: X-Codec's structure, whose semantic model hears a lower sample rate."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from codecbay.package import Header, Section
from codecbay_transformers.families.description import Description
from codecbay_transformers.families.values import MAX_KERNEL, MAX_RATE
from codecbay_transformers.families.xcodec import describe_residual, take_arguments

_PADDING = 320  # samples that the library puts around what the semantic model hears
_FRAMES = (1, 2, 100)  # lengths at which both models have to agree


def describe(top: Section, header: Header) -> Description:
    """The codec of a configuration."""
    arguments, width = take_arguments(top, sample_rate=24_000, mask_time_prob=0.0)
    dim = top.take_optional_int("codebook_dim") if "codebook_dim" in header.config else 64
    arguments |= {
        "codebook_dim": width if dim is None else dim,
        "semantic_sample_rate": top.take_int("semantic_sample_rate", 16_000, high=MAX_RATE),
        "downsample_factor": top.take_int("downsample_factor", 320, high=MAX_RATE),
    }
    _check_frames(top, arguments)
    description = describe_residual("higgs_audio_v2_tokenizer", top, header, arguments)
    # A vector of HuBERT's training, which the published package keeps.
    return replace(description, unused=("semantic_model.masked_spec_embed",))


def _check_frames(top: Section, arguments: dict[str, Any]) -> None:
    """Both models have to make as many frames of a signal, which are laid side by side."""
    rate, semantic_rate = arguments["sample_rate"], arguments["semantic_sample_rate"]
    divisor = math.gcd(rate, semantic_rate)
    if max(rate, semantic_rate) // divisor > MAX_KERNEL:
        raise top.error("semantic_sample_rate", f"is {semantic_rate}, out of proportion to 'sample_rate' {rate}.")
    hop = math.prod(arguments["acoustic_model_config"]["downsampling_ratios"])
    factor = int(hop / (rate / semantic_rate) / arguments["downsample_factor"])
    semantic = arguments["semantic_model_config"]
    for frames in _FRAMES:
        found = -(-frames * hop * semantic_rate // rate) + _PADDING
        for kernel, stride in zip(semantic["conv_kernel"], semantic["conv_stride"], strict=True):
            found = (found - kernel) // stride + 1
        found = -(-found // max(factor, 1))
        for stride in arguments["strides"]:
            kernel = 3 if stride == 1 else 2 * stride
            found = (found + (kernel - 1) // 2 * 2 - kernel) // stride + 1
        if found != frames:
            raise top.error(
                "downsample_factor",
                f"is {arguments['downsample_factor']}: the semantic model makes {found} frames of {frames * hop} "
                f"samples at {rate} Hz, the acoustic one {frames}.",
            )
