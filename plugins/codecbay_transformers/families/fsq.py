"""X-Codec2 and NeuCodec: one codebook, by finite scalar quantization of what two encoders hear.

The semantic one, w2v-BERT, hears mel features, which the library's feature extractor computes with fixed numbers: one
frame for 320 samples. Whatever else a configuration says contradicts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from codecbay.package import Header, Section
from codecbay.package.config import read_json
from codecbay_transformers.families.description import Description, check_shapes, make_spec
from codecbay_transformers.families.values import (
    ACTIVATIONS,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_RATE,
    MAX_SCALAR,
    take_ratios,
    take_rope,
)

_EXTRACTOR_FILE = "preprocessor_config.json"
_EXTRACTORS = {"xcodec2": "Xcodec2FeatureExtractor", "neucodec": "NeuCodecFeatureExtractor"}
_FRAME = 320  # samples to a frame of features: two windows of the mel spectrogram
_FEATURES = 160  # of a frame: 80 bands of two windows
_MIN_RATE = 42  # Hz; the bands lie between 20 Hz and half of it
_GROUPS = 32  # of the decoder's norms
_MAX_LEVELS = 32
_MAX_CARDINALITY = 1 << 20


def describe_xcodec2(top: Section, header: Header) -> Description:
    """The codec of a configuration of X-Codec2."""
    rate = top.take_int("sampling_rate", 16_000, low=_MIN_RATE, high=MAX_RATE)
    return _describe("xcodec2", top, header, {"sampling_rate": rate}, rate, rate)


def describe_neucodec(top: Section, header: Header) -> Description:
    """The codec of a configuration of NeuCodec, which decodes at a higher sample rate."""
    rate = top.take_int("input_sampling_rate", 16_000, low=_MIN_RATE, high=MAX_RATE)
    decoded = top.take_int("output_sampling_rate", 24_000, high=MAX_RATE)
    if decoded * _FRAME % rate:
        raise top.error(
            "output_sampling_rate", f"is {decoded}, which has no whole number of samples for {_FRAME} at {rate} Hz."
        )
    rates = {"input_sampling_rate": rate, "output_sampling_rate": decoded}
    return _describe("neucodec", top, header, rates, rate, decoded)


def _describe(
    model_type: str, top: Section, header: Header, rates: Mapping[str, int], rate: int, decoded: int
) -> Description:
    ratios = take_ratios(top, "downsampling_ratios", (2, 2, 4, 4, 5), low=2)
    if math.prod(ratios) != _FRAME:
        raise top.error(
            "downsampling_ratios", f"have the product {math.prod(ratios)}, but features come every {_FRAME} samples."
        )
    levels = top.take_ints("quantization_levels", (4,) * 8, low=2, high=MAX_SCALAR)
    if not 1 <= len(levels) <= _MAX_LEVELS or math.prod(levels) > _MAX_CARDINALITY:
        raise top.error(
            "quantization_levels", f"should be 1 to {_MAX_LEVELS} with a product of {_MAX_CARDINALITY} at most."
        )
    semantic = _take_semantic(top)
    hidden = top.take_int("hidden_size", 1024)
    if hidden % _GROUPS:
        raise top.error("hidden_size", f"is {hidden}, expected a multiple of {_GROUPS}.")
    width = top.take_int("quantization_dim", 2048)
    if width != hidden + semantic["hidden_size"]:
        raise top.error("quantization_dim", f"is {width}, but both encoders make {hidden + semantic['hidden_size']}.")
    heads = top.take_int("num_attention_heads", 16, high=MAX_SCALAR)
    if top.take_int("num_key_value_heads", 16, high=MAX_SCALAR) != heads:
        raise top.error("num_key_value_heads", f"should be {heads}, as 'num_attention_heads' is.")
    head = top.take_int("head_dim", 64, high=MAX_SCALAR)
    if head % 2:
        raise top.error("head_dim", f"is {head}, expected an even number: rotary positions turn pairs.")
    arguments = {
        **rates,
        "encoder_hidden_size": top.take_int("encoder_hidden_size", 48),
        "downsampling_ratios": list(ratios),
        "semantic_model_config": semantic,
        "quantization_dim": width,
        "quantization_levels": list(levels),
        "hidden_size": hidden,
        "intermediate_size": top.take_int("intermediate_size", 4096),
        "num_hidden_layers": top.take_int("num_hidden_layers", 12, high=MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": head,
        "hidden_act": top.take_str("hidden_act", "silu", choices=ACTIVATIONS),
        "max_position_embeddings": top.take_int("max_position_embeddings", 4096),
        "rms_norm_eps": top.take_float("rms_norm_eps", 1e-6, low=0, high=1),
        "rope_parameters": take_rope(top),
        "attention_bias": top.take_bool("attention_bias", False),
    }
    _check_extractor(header, _EXTRACTORS[model_type], rate)
    check_shapes(header, ["quantizer.project_in.weight"], (len(levels), width))
    check_shapes(header, ["quantizer.project_out.weight"], (width, len(levels)))
    decoded_rate = None if decoded == rate else decoded
    spec = make_spec(rate, (math.prod(levels),), _FRAME, (1,), decoded_sample_rate=decoded_rate)
    # The decoder attends and normalizes over all that it is given: its samples are near to those of one pass, not more.
    return Description(model_type, replace(spec, chunked_tolerance=0.9), arguments)


def _take_semantic(top: Section) -> dict[str, Any]:
    """The configuration of w2v-BERT."""
    own = top.take_section("semantic_model_config", {})
    own.take_str("model_type", "wav2vec2-bert", choices=("wav2vec2-bert",))
    own.take_str("position_embeddings_type", "relative_key", choices=("relative_key",))
    width = own.take_int("feature_projection_input_dim", _FEATURES)
    if width != _FEATURES:
        raise own.error("feature_projection_input_dim", f"is {width}, but a frame of features has {_FEATURES}.")
    if own.take_bool("add_adapter", False):
        raise own.error("add_adapter", "is true, but an adapter would change the frame rate.")
    hidden = own.take_int("hidden_size", 1024)
    heads = own.take_int("num_attention_heads", 16, high=MAX_SCALAR)
    if hidden % heads:
        raise own.error("num_attention_heads", f"is {heads}, which does not divide 'hidden_size' {hidden}.")
    layers = 24 if top.has("semantic_model_config") else 16  # as the library: its own default, or X-Codec2's
    return {
        "model_type": "wav2vec2-bert",
        "hidden_size": hidden,
        "num_hidden_layers": own.take_int("num_hidden_layers", layers, high=MAX_LAYERS),
        "num_attention_heads": heads,
        "intermediate_size": own.take_int("intermediate_size", 4096),
        "hidden_act": own.take_str("hidden_act", "swish", choices=ACTIVATIONS),
        "layer_norm_eps": own.take_float("layer_norm_eps", 1e-5, low=0, high=1),
        "left_max_position_embeddings": own.take_int("left_max_position_embeddings", 64, low=0, high=MAX_SCALAR),
        "right_max_position_embeddings": own.take_int("right_max_position_embeddings", 8, low=0, high=MAX_SCALAR),
        "conv_depthwise_kernel_size": own.take_int("conv_depthwise_kernel_size", 31, high=MAX_KERNEL),
        # Whether there is a vector for masked frames, which training alone uses.
        "mask_time_prob": own.take_float("mask_time_prob", 0.05, low=0, high=1),
        "mask_feature_prob": own.take_float("mask_feature_prob", 0.0, low=0, high=1),
    }


def _check_extractor(header: Header, name: str, rate: int) -> None:
    """The feature extractor beside the weights, if there is one, is the library's for this codec.

    Raises:
        ConfigError: it is another one, or contradicts the codec.
    """
    path = header.path / _EXTRACTOR_FILE
    if not path.is_file():
        return
    values = read_json(path).top()
    values.take_str("feature_extractor_type", name, choices=(name,))
    for key, own in (("sampling_rate", rate), ("hop_length", _FRAME)):
        if values.take_int(key, own) != own:
            raise values.error(key, f"is {values.take_int(key)}, but that of the codec is {own}.")
