"""The T5 encoder, which transformers keeps inside a model and AudioCraft beside it.

transformers puts a projection between text encoder and language model only where their widths differ. Where they do
not, the encoder is widened: channels that are always zero change nothing, and the projection has its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from codecbay.convert.names import Shapes
from codecbay.package import Section

# Four times the channels make the variance that T5 divides by a quarter, and its root a half: both without rounding.
WIDENING = 4
_EPSILON = 1e-6
_DEFAULT_ACTIVATION = {"t5": "relu", "mt5": "gated-gelu"}
_SIZES = {"vocab_size": 32_128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8}
_MAX_LAYERS = 256
_OTHERS = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
EMBEDDING = "shared.weight"
_EMBEDDING_TWIN = "encoder.embed_tokens.weight"  # the same tensor by another name


def read_config(section: Section) -> dict[str, Any]:
    """The configuration of an encoder: sizes, and what else counts in inference.

    Raises:
        ConfigError: it is no T5, or a value is of the wrong kind or out of range.
    """
    kind = section.take_str("model_type", "t5")
    if kind not in _DEFAULT_ACTIVATION:
        raise section.error("model_type", f"is {kind[:40]!r}: only t5 and mt5 are converted.")
    sizes = {key: section.take_int(key, default) for key, default in _SIZES.items()}
    sizes["num_layers"] = section.take_int("num_layers", 6, high=_MAX_LAYERS)
    return {
        "model_type": kind,
        **sizes,
        "num_decoder_layers": sizes["num_layers"],
        **{key: section.take_int(key, low=0) if section.has(key) else default for key, default in _OTHERS.items()},
        "layer_norm_epsilon": section.take_float("layer_norm_epsilon", _EPSILON, low=0.0, high=1.0),
        "dropout_rate": section.take_float("dropout_rate", 0.1, low=0.0, high=1.0),
        "feed_forward_proj": section.take_str("feed_forward_proj", _DEFAULT_ACTIVATION[kind]),
        "is_encoder_decoder": False,
        "use_cache": False,
    }


def shapes(config: Mapping[str, Any]) -> Shapes:
    """The tensors of an encoder, by transformers' names."""
    width, heads, hidden = config["d_model"], config["num_heads"], config["d_ff"]
    inner = heads * config["d_kv"]
    gated = config["feed_forward_proj"].startswith("gated-")
    result: Shapes = {EMBEDDING: (config["vocab_size"], width)}
    for i in range(config["num_layers"]):
        attention = f"encoder.block.{i}.layer.0.SelfAttention"
        result |= {f"{attention}.{name}.weight": (inner, width) for name in "qkv"}
        result[f"{attention}.o.weight"] = (width, inner)
        if i == 0:
            result[f"{attention}.relative_attention_bias.weight"] = (config["relative_attention_num_buckets"], heads)
        feed_forward = f"encoder.block.{i}.layer.1.DenseReluDense"
        result |= {
            f"{feed_forward}.{name}.weight": (hidden, width) for name in (("wi_0", "wi_1") if gated else ("wi",))
        }
        result[f"{feed_forward}.wo.weight"] = (width, hidden)
        result |= {f"encoder.block.{i}.layer.{layer}.layer_norm.weight": (width,) for layer in (0, 1)}
    result["encoder.final_layer_norm.weight"] = (width,)
    return result


def encoder_name(name: str, *, twin: bool) -> str | None:
    """What a tensor of a T5 is called here, or ``None`` where it is not needed.

    Args:
        name: as it is stored.
        twin: the embedding is there by its first name, so that it is not needed by its second.
    """
    if name.startswith(("decoder.", "lm_head.")) or (twin and name == _EMBEDDING_TWIN):
        return None
    return EMBEDDING if name == _EMBEDDING_TWIN else name


def widened(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The encoder with more channels, the new ones always zero, which computes the same."""
    wide = _resized(config, config["d_model"] * WIDENING)
    more = wide["d_model"] - config["d_model"]
    result = {}
    for name, shape in shapes(config).items():
        # [rows, D] and [D] grow at the end, [D, rows] at the bottom
        grown = [wide_n - n for wide_n, n in zip(shapes(wide)[name], shape, strict=True)]
        padding = (0, grown[-1]) if grown[-1] else (0, 0, 0, grown[0])
        result[name] = F.pad(tensors[name], padding) if more in grown else tensors[name]
        if len(shape) == 1:
            result[name] = result[name] / 2
    return wide, result


def narrowed(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The encoder that :func:`widened` was given, or ``None`` where the new channels are not zero."""
    narrow = _resized(config, config["d_model"] // WIDENING)
    result = {}
    for name, shape in shapes(narrow).items():
        kept = tensors[name][tuple(slice(n) for n in shape)]
        if kept.count_nonzero() != tensors[name].count_nonzero():
            return None
        result[name] = kept * 2 if len(shape) == 1 else kept.contiguous()
    return narrow, result


def _resized(config: Mapping[str, Any], width: int) -> dict[str, Any]:
    epsilon = config["layer_norm_epsilon"] * (config["d_model"] / width)
    return {**config, "d_model": width, "layer_norm_epsilon": epsilon}
