"""HuBERT and WavLM, the semantic models of X-Codec and of Higgs Audio's tokenizer."""

from __future__ import annotations

from typing import Any

from codecbay.package import Section
from codecbay_transformers.families.values import (
    ACTIVATIONS,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_RATIOS,
    MAX_SCALAR,
)

_CONVOLUTIONS = {  # of the feature extractor, one value a layer
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
}


def take_semantic(top: Section, *, mask_time_prob: float) -> dict[str, Any]:
    """What shapes the semantic model, from its section of a configuration.

    Args:
        top: the configuration.
        mask_time_prob: where its section tells none; families have defaults of their own.
    """
    own = top.take_section("semantic_model_config", {})
    kind = own.take_str("model_type", "hubert", choices=("hubert", "wavlm"))
    hidden = own.take_int("hidden_size", 768)
    heads = own.take_int("num_attention_heads", 12, high=MAX_SCALAR)
    if hidden % heads:
        raise own.error("num_attention_heads", f"is {heads}, which does not divide 'hidden_size' {hidden}.")
    convolutions = {
        key: own.take_ints(key, default, high=MAX_SCALAR if key == "conv_dim" else MAX_KERNEL)
        for key, default in _CONVOLUTIONS.items()
    }
    layers = {len(values) for values in convolutions.values()}
    if len(layers) > 1 or not 1 <= max(layers) <= MAX_RATIOS:
        raise own.error("conv_dim", "and 'conv_kernel' and 'conv_stride' should have one value for each layer.")
    arguments: dict[str, Any] = {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": own.take_int("num_hidden_layers", 12, high=MAX_LAYERS),
        "num_attention_heads": heads,
        "intermediate_size": own.take_int("intermediate_size", 3072),
        "hidden_act": own.take_str("hidden_act", "gelu", choices=ACTIVATIONS),
        "layer_norm_eps": own.take_float("layer_norm_eps", 1e-5, low=0, high=1),
        "feat_extract_norm": own.take_str("feat_extract_norm", "group", choices=("group", "layer")),
        "feat_extract_activation": own.take_str("feat_extract_activation", "gelu", choices=ACTIVATIONS),
        **{key: list(values) for key, values in convolutions.items()},
        "conv_bias": own.take_bool("conv_bias", False),
        "num_conv_pos_embeddings": own.take_int("num_conv_pos_embeddings", 128, high=MAX_KERNEL),
        "num_conv_pos_embedding_groups": own.take_int("num_conv_pos_embedding_groups", 16, high=MAX_SCALAR),
        "do_stable_layer_norm": own.take_bool("do_stable_layer_norm", False),
        # Whether there is a vector for masked frames, which training alone uses.
        "mask_time_prob": own.take_float("mask_time_prob", mask_time_prob, low=0, high=1),
        "mask_feature_prob": own.take_float("mask_feature_prob", 0.0, low=0, high=1),
    }
    if kind == "hubert":
        arguments["feat_proj_layer_norm"] = own.take_bool("feat_proj_layer_norm", True)
        arguments["conv_pos_batch_norm"] = own.take_bool("conv_pos_batch_norm", False)
        return arguments
    if own.take_bool("add_adapter", False):
        raise own.error("add_adapter", "is true, but an adapter would change the frame rate.")
    arguments["num_buckets"] = own.take_int("num_buckets", 320, high=MAX_SCALAR)
    arguments["max_bucket_distance"] = own.take_int("max_bucket_distance", 800, high=MAX_SCALAR)
    return arguments
