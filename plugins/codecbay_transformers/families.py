"""What each family's ``config.json`` says: the spec, and the arguments of the library's own configuration class.

Only values that are taken here, with their types and bounds, reach the library; what else a configuration holds
(names of code to import, quantization, attention kernels …) does not. Defaults are the library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from codecbay.errors import WeightsError
from codecbay.package import Header, Section
from codecbay.spec import CodecSpec

_MAX_RATE = 768_000  # Hz
_MAX_RATIOS = 16
_MAX_KERNEL = 1 << 10
_MAX_BLOCKS = 64
_MAX_LAYERS = 256
_MAX_SCALAR = 1 << 16
_MAX_DEPTH = 8
_MAX_VALUES = 1 << 10
_MAX_NUMBER = 1 << 24
_CAUSAL_PADS = ("constant", "replicate")
_PAD_MODES = ("constant", "reflect", "replicate", "circular")


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
    """

    model_type: str
    spec: CodecSpec
    arguments: Mapping[str, Any]
    bandwidths: Mapping[int, float] = field(default_factory=dict)
    chunk: int | None = None
    stride: int | None = None


def describe(header: Header) -> Description:
    """The codec in a package.

    Raises:
        ConfigError: the configuration is wrong.
        WeightsError: the codebooks are not those that it describes.
    """
    return FAMILIES[header.config["model_type"]](header.config.top(), header)


def _encodec(top: Section, header: Header) -> Description:
    rate = top.take_int("sampling_rate", 24_000, high=_MAX_RATE)
    channels = top.take_int("audio_channels", 1, high=2)
    hidden = top.take_int("hidden_size", 128)
    ratios = _ratios(top, "upsampling_ratios", (8, 5, 4, 2))
    size = _power_of_two(top, "codebook_size", 1024)
    dim = top.take_optional_int("codebook_dim")
    if dim not in (None, hidden):
        raise top.error("codebook_dim", f"is {dim}, but the latent has the width {hidden}.")
    filters = top.take_int("num_filters", 32)
    normalize = top.take_bool("normalize", False)
    length, overlap = top.take_optional_float("chunk_length_s", high=3600), top.take_optional_float("overlap")
    causal = top.take_bool("use_causal_conv", True)
    norm = top.take_str("norm_type", "weight_norm", choices=("weight_norm", "time_group_norm"))
    trim = top.take_float("trim_right_ratio", 1.0, low=0, high=1)
    if not causal and trim != 1:
        raise top.error("trim_right_ratio", "other than 1 needs causal convolutions.")
    arguments: dict[str, Any] = {
        "target_bandwidths": _bandwidths(top, (1.5, 3.0, 6.0, 12.0, 24.0)),
        "sampling_rate": rate,
        "audio_channels": channels,
        "normalize": normalize,
        "chunk_length_s": length,
        "overlap": overlap,
        "hidden_size": hidden,
        "num_filters": filters,
        "num_residual_layers": top.take_int("num_residual_layers", 1, low=0, high=_MAX_BLOCKS),
        "upsampling_ratios": list(ratios),
        "norm_type": norm,
        "kernel_size": top.take_int("kernel_size", 7, high=_MAX_KERNEL),
        "last_kernel_size": top.take_int("last_kernel_size", 7, high=_MAX_KERNEL),
        "residual_kernel_size": top.take_int("residual_kernel_size", 3, high=_MAX_KERNEL),
        "dilation_growth_rate": top.take_int("dilation_growth_rate", 2, high=_MAX_KERNEL),
        "use_causal_conv": causal,
        "pad_mode": top.take_str("pad_mode", "reflect", choices=_PAD_MODES),
        "compress": top.take_int("compress", 2, high=filters),
        "num_lstm_layers": top.take_int("num_lstm_layers", 2, high=_MAX_BLOCKS),
        "trim_right_ratio": trim,
        "codebook_size": size,
        "codebook_dim": hidden,
        "use_conv_shortcut": top.take_bool("use_conv_shortcut", True),
    }
    _check_growth(top, arguments["dilation_growth_rate"], arguments["num_residual_layers"])
    hop = math.prod(ratios)
    total, bandwidths = _codebooks_by_bandwidth(top, arguments["target_bandwidths"], rate, hop, size)
    _check_codebooks(header, [f"quantizer.layers.{k}.codebook.embed" for k in range(total)], (size, hidden))
    chunk = stride = None
    if length is not None:
        chunk = int(length * rate)
        if overlap is None or not 0 <= overlap < 1:
            raise top.error("overlap", f"is {overlap}, expected 0 or more and less than 1, as there are chunks.")
        stride = max(1, int((1.0 - overlap) * chunk))
        if chunk < hop or chunk % hop or chunk != length * rate:
            raise top.error("chunk_length_s", f"is {length}, which is no whole number of frames of {hop} samples.")
    spec = _spec(rate, (size,) * total, hop, bandwidths, channels=channels, has_scale=normalize)
    # A chunk, a scale, a norm over time, or what is reflected at the start lets a frame depend on what comes after it.
    whole = chunk is not None or normalize or norm == "time_group_norm"
    sees_no_future = causal and not whole and arguments["pad_mode"] in _CAUSAL_PADS and trim == 1
    spec = replace(spec, lookahead=0 if sees_no_future else None)
    return Description("encodec", spec, arguments, bandwidths, chunk, stride)


def _dac(top: Section, header: Header) -> Description:
    rate = top.take_int("sampling_rate", 16_000, high=_MAX_RATE)
    ratios = _ratios(top, "downsampling_ratios", (2, 4, 8, 8), low=2)
    size = _power_of_two(top, "codebook_size", 1024)
    total = top.take_int("n_codebooks", 9, high=len(header.tensors) + 1)
    width = top.take_int("encoder_hidden_size", 64)
    up = _upsampling(top, ratios, ratios[::-1])
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
    _check_codebooks(header, names, (size, arguments["codebook_dim"]))
    return Description("dac", _spec(rate, (size,) * total, math.prod(ratios), range(1, total + 1)), arguments)


def _mimi(top: Section, header: Header) -> Description:
    for half in ("encoder_config", "decoder_config"):
        if top.take(half, {}) is None:
            raise top.error(half, "is null: a Mimi without it is not supported.")
    rate = top.take_int("sampling_rate", 24_000, high=_MAX_RATE)
    channels = top.take_int("audio_channels", 1, high=2)
    ratios = _ratios(top, "upsampling_ratios", (8, 6, 5, 4))
    size = _power_of_two(top, "codebook_size", 2048)
    total = top.take_int("num_quantizers", 32, low=2, high=len(header.tensors) + 1)
    semantic = top.take_int("num_semantic_quantizers", 1, high=total - 1)
    hidden = top.take_int("hidden_size", 512)
    dim = top.take_int("codebook_dim", 256)
    vector = top.take_int("vector_quantization_hidden_dimension", 256)
    if dim != vector:
        raise top.error("codebook_dim", f"is {dim}, but what is quantized has the width {vector}.")
    filters = top.take_int("num_filters", 64)
    heads = top.take_int("num_attention_heads", 8, high=_MAX_SCALAR)
    hop = math.prod(ratios)
    # The library writes it with the underscore, and reads both.
    key = "_frame_rate" if top.has("_frame_rate") else "frame_rate"
    frame_rate = top.take_optional_float(key, low=1e-3, high=_MAX_RATE)
    # As the library: frames of the convolutions to a frame of the codes, with both rates as it rounds them.
    stride = int(-(-rate // hop) / (rate / (2 * hop) if frame_rate is None else frame_rate))
    if not 2 <= stride <= _MAX_KERNEL:
        raise top.error(key, f"makes {stride} steps of the encoder a frame, expected 2 to {_MAX_KERNEL}.")
    if not top.take_bool("use_causal_conv", True):
        raise top.error("use_causal_conv", "is false: only a causal Mimi is supported.")
    arguments: dict[str, Any] = {
        "sampling_rate": rate,
        "audio_channels": channels,
        "hidden_size": hidden,
        "num_filters": filters,
        "num_residual_layers": top.take_int("num_residual_layers", 1, low=0, high=_MAX_BLOCKS),
        "upsampling_ratios": list(ratios),
        "kernel_size": top.take_int("kernel_size", 7, high=_MAX_KERNEL),
        "last_kernel_size": top.take_int("last_kernel_size", 3, high=_MAX_KERNEL),
        "residual_kernel_size": top.take_int("residual_kernel_size", 3, high=_MAX_KERNEL),
        "dilation_growth_rate": top.take_int("dilation_growth_rate", 2, high=_MAX_KERNEL),
        "pad_mode": top.take_str("pad_mode", "constant", choices=_PAD_MODES),
        "compress": top.take_int("compress", 2, high=filters),
        "trim_right_ratio": top.take_float("trim_right_ratio", 1.0, low=0, high=1),
        "codebook_size": size,
        "codebook_dim": dim,
        "num_quantizers": total,
        "use_conv_shortcut": top.take_bool("use_conv_shortcut", False),
        "vector_quantization_hidden_dimension": vector,
        "num_semantic_quantizers": semantic,
        "upsample_groups": top.take_int("upsample_groups", 512),
        "num_hidden_layers": top.take_int("num_hidden_layers", 8, high=_MAX_LAYERS),
        "intermediate_size": top.take_int("intermediate_size", 2048),
        "num_attention_heads": heads,
        "num_key_value_heads": top.take_int("num_key_value_heads", 8, high=heads),
        "head_dim": top.take_optional_int("head_dim", high=_MAX_SCALAR),
        "hidden_act": top.take_str("hidden_act", "gelu", choices=("gelu", "relu", "silu", "gelu_new")),
        "max_position_embeddings": top.take_int("max_position_embeddings", 8000),
        "norm_eps": top.take_float("norm_eps", 1e-5, low=0, high=1),
        "rope_parameters": _rope(top),
        "sliding_window": top.take_int("sliding_window", 250),
        "attention_bias": top.take_bool("attention_bias", False),
    }
    if frame_rate is not None:
        arguments["frame_rate"] = frame_rate
    _check_growth(top, arguments["dilation_growth_rate"], arguments["num_residual_layers"])
    names = [
        f"quantizer.{kind}_residual_vector_quantizer.layers.{k}.codebook.embed_sum"
        for kind, layers in (("semantic", semantic), ("acoustic", total - semantic))
        for k in range(layers)
    ]
    _check_codebooks(header, names, (size, dim))
    spec = _spec(rate, (size,) * total, hop * stride, range(semantic, total + 1), channels=channels)
    causal = arguments["pad_mode"] in _CAUSAL_PADS and arguments["trim_right_ratio"] == 1
    return Description("mimi", replace(spec, lookahead=0 if causal else None), arguments)


_SEMANTIC_MODELS = ("hubert", "wavlm")


def _xcodec(top: Section, header: Header) -> Description:
    rate = top.take_int("sample_rate", 16_000, high=_MAX_RATE)
    size = top.take_int("codebook_size", 1024, low=2)
    inner = top.take_section("acoustic_model_config", {})
    inner.take_str("model_type", "dac", choices=("dac",))
    ratios = _ratios(inner, "downsampling_ratios", (8, 5, 4, 2), low=2)
    up = _upsampling(inner, ratios, (8, 5, 4, 2))
    acoustic_size = inner.take_int("hidden_size", 256)
    acoustic = {
        "model_type": "dac",
        "hidden_size": acoustic_size,
        "encoder_hidden_size": inner.take_int("encoder_hidden_size", 64),
        "decoder_hidden_size": inner.take_int("decoder_hidden_size", 1024, low=2 ** len(up)),
        "downsampling_ratios": list(ratios),
        "upsampling_ratios": list(up),
    }
    other = top.take_section("semantic_model_config", {})
    kind = other.take_str("model_type", "hubert", choices=_SEMANTIC_MODELS)
    other.take_int("num_hidden_layers", 12, high=_MAX_LAYERS)
    other.take_int("num_attention_heads", 12, high=_MAX_SCALAR)
    semantic_size = other.take_int("hidden_size", 768)
    semantic = _plain(top, "semantic_model_config")
    dim = top.take_optional_int("codebook_dim")
    if dim not in (None, acoustic_size + semantic_size):
        raise top.error("codebook_dim", f"is {dim}, but the latent has the width {acoustic_size + semantic_size}.")
    blocks = top.take_ints("strides", (1, 1), high=_MAX_KERNEL)
    widths = top.take_ints("channel_ratios", (1, 1), high=_MAX_KERNEL)
    dilations = top.take_ints("block_dilations", (1, 1), high=_MAX_KERNEL)
    if not 1 <= len(blocks) == len(widths) <= _MAX_RATIOS or len(dilations) > _MAX_BLOCKS:
        raise top.error("strides", "and 'channel_ratios' should have one value for each block.")
    arguments: dict[str, Any] = {
        "target_bandwidths": _bandwidths(top, (0.5, 1, 1.5, 2, 4)),
        "sample_rate": rate,
        "kernel_size": top.take_int("kernel_size", 3, high=_MAX_KERNEL),
        "channel_ratios": list(widths),
        "strides": list(blocks),
        "block_dilations": list(dilations),
        "unit_kernel_size": top.take_int("unit_kernel_size", 3, high=_MAX_KERNEL),
        "codebook_size": size,
        "codebook_dim": acoustic_size + semantic_size,
        "acoustic_model_config": acoustic,
        "semantic_model_config": {**semantic, "model_type": kind},
    }
    hop = math.prod(ratios)
    total, bandwidths = _codebooks_by_bandwidth(top, arguments["target_bandwidths"], rate, hop, size, in_kbits=True)
    names = [f"quantizer.quantizers.{k}.codebook.embed" for k in range(total)]
    _check_codebooks(header, names, (size, acoustic_size + semantic_size))
    return Description("xcodec", _spec(rate, (size,) * total, hop, bandwidths), arguments, bandwidths)


FAMILIES: dict[str, Callable[[Section, Header], Description]] = {
    "encodec": _encodec,
    "dac": _dac,
    "mimi": _mimi,
    "xcodec": _xcodec,
}


def _spec(
    rate: int,
    cardinalities: tuple[int, ...],
    frame_size: int,
    allowed: Iterable[int],
    *,
    channels: int = 1,
    has_scale: bool = False,
) -> CodecSpec:
    """All codebooks in use."""
    return CodecSpec(
        sample_rate=rate,
        channels=channels,
        cardinalities=cardinalities,
        frame_size=frame_size,
        frame_rate=Fraction(rate, frame_size),
        num_codebooks=len(cardinalities),
        allowed_num_codebooks=tuple(sorted(allowed)),
        has_scale=has_scale,
    )


def _ratios(top: Section, key: str, default: tuple[int, ...], *, low: int = 1) -> tuple[int, ...]:
    ratios = default if not top.has(key) else top.take_ints(key, low=low, high=_MAX_KERNEL)
    if not 1 <= len(ratios) <= _MAX_RATIOS or math.prod(ratios) > _MAX_RATE:
        raise top.error(key, f"should be 1 to {_MAX_RATIOS} numbers with a product of {_MAX_RATE} at most.")
    return ratios


def _upsampling(top: Section, down: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    up = _ratios(top, "upsampling_ratios", default, low=2)
    if math.prod(up) != math.prod(down):
        raise top.error("upsampling_ratios", f"{list(up)} do not undo 'downsampling_ratios' {list(down)}.")
    return up


def _power_of_two(top: Section, key: str, default: int) -> int:
    size = top.take_int(key, default, low=2)
    if size & (size - 1):
        raise top.error(key, f"is {size}, expected a power of two.")
    return size


def _bandwidths(top: Section, default: tuple[float, ...]) -> list[float]:
    values = top.take("target_bandwidths", default)
    if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= _MAX_BLOCKS:
        raise top.error("target_bandwidths", f"should be a list of 1 to {_MAX_BLOCKS} numbers.")
    if not all(type(value) in (int, float) and 0 < value <= 1e6 for value in values):
        raise top.error("target_bandwidths", "should hold numbers above 0 and at most 1e6, in kbit/s.")
    return list(values)


def _codebooks_by_bandwidth(
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


def _check_growth(top: Section, growth: int, layers: int) -> None:
    if growth ** max(layers - 1, 0) > _MAX_SCALAR:
        raise top.error("dilation_growth_rate", f"is {growth}, which is too much for {layers} residual layers.")


def _rope(top: Section) -> dict[str, Any]:
    """The rotary parameters, in the present and in the older form."""
    rope = top.take_section("rope_parameters", None)
    theta = rope.take_float("rope_theta", top.take_float("rope_theta", 10_000.0, low=1), low=1)
    rope.take_str("rope_type", "default", choices=("default",))
    return {"rope_type": "default", "rope_theta": theta}


_PRIVATE = frozenset(
    {"auto_map", "architectures", "dtype", "torch_dtype", "quantization_config", "attn_implementation"}
)


def _plain(top: Section, key: str) -> dict[str, Any]:
    """The configuration of a model within the model: numbers and texts within bounds."""
    values = top.take_mapping(key, {})
    kept = {name: value for name, value in values.items() if name not in _PRIVATE and not name.startswith("_")}
    _check_plain(top, key, kept, _MAX_DEPTH)
    return kept


def _check_plain(top: Section, key: str, value: Any, depth: int) -> None:
    if depth == 0:
        raise top.error(key, "nests too deeply.")
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, (list, tuple)):
        if len(value) > _MAX_VALUES:
            raise top.error(key, f"has {len(value)} values, expected {_MAX_VALUES} at most.")
        children = enumerate(value)
    elif isinstance(value, (int, float)):
        high = _MAX_LAYERS if key.endswith("layers") else _MAX_NUMBER
        if not abs(value) <= high:
            raise top.error(key, f"is {str(value)[:40]}, expected {high} at most.")
    for name, child in children:
        _check_plain(top, f"{key}.{name}", child, depth - 1)


def _check_codebooks(header: Header, names: list[str], shape: tuple[int, int]) -> None:
    """The codebooks that the configuration promises are there, with their sizes.

    Raises:
        WeightsError: one is missing or misshapen.
    """
    for name in names:
        info = header.tensors.get(name)
        if info is None:
            raise WeightsError(
                f"{header.path}: the configuration asks for {len(names)} codebooks, but '{name}' is missing."
            )
        if info.shape != shape:
            raise WeightsError(
                f"{header.path}: the codebook '{name}' has the shape {list(info.shape)}, where the configuration "
                f"asks for {list(shape)}."
            )
