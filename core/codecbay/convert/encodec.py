"""EnCodec as AudioCraft and as transformers have it: configuration, and names of tensors.

What both can express is an :class:`Encodec`; it is read from the configuration of either side, and written to either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from codecbay.convert.names import Pair, pair
from codecbay.package import Config, Section

_NORMS = ("weight_norm", "time_group_norm")
_PAD_MODES = ("constant", "reflect", "replicate", "circular")
_MAX_RATE = 768_000  # Hz
_MAX_LAYERS = 64
_MAX_CODEBOOKS = 1024


@dataclass(frozen=True)
class Encodec:
    """A codec that both libraries can build. ``ratios`` are in the decoder's order."""

    sample_rate: int
    channels: int
    normalize: bool
    dimension: int
    num_filters: int
    num_residual_layers: int
    ratios: tuple[int, ...]
    norm: str
    kernel_size: int
    last_kernel_size: int
    residual_kernel_size: int
    dilation_base: int
    causal: bool
    pad_mode: str
    compress: int
    lstm: int
    conv_shortcut: bool
    trim_right_ratio: float
    bins: int
    num_codebooks: int

    @property
    def frame_rate(self) -> int:
        """Frames a second as transformers counts them: rounded up."""
        return -(-self.sample_rate // math.prod(self.ratios))


@dataclass(frozen=True)
class _Key:
    """A value that both sides keep under a key of their own: AudioCraft in its section ``seanet``."""

    field: str
    audiocraft: str
    transformers: str
    audiocraft_default: Any
    transformers_default: Any

    def take(self, section: Section, key: str, default: Any) -> Any:
        """The value, of the type that the default has."""
        if isinstance(default, bool):
            return section.take_bool(key, default)
        if isinstance(default, int):
            count = self.field in ("num_residual_layers", "lstm")
            return section.take_int(key, default, low=0, high=_MAX_LAYERS) if count else section.take_int(key, default)
        if isinstance(default, float):
            return section.take_float(key, default, low=0.0, high=1.0)
        if isinstance(default, str):
            return section.take_str(key, default)
        ratios = section.take_rates(key, default, low=1)
        if math.prod(ratios) > _MAX_RATE:
            raise section.error(key, f"makes frames of {str(math.prod(ratios))[:20]} samples.")
        return ratios


_KEYS = (
    _Key("dimension", "dimension", "hidden_size", 128, 128),
    _Key("num_filters", "n_filters", "num_filters", 32, 32),
    _Key("num_residual_layers", "n_residual_layers", "num_residual_layers", 3, 1),
    _Key("ratios", "ratios", "upsampling_ratios", (8, 5, 4, 2), (8, 5, 4, 2)),
    _Key("norm", "norm", "norm_type", "none", "weight_norm"),
    _Key("kernel_size", "kernel_size", "kernel_size", 7, 7),
    _Key("last_kernel_size", "last_kernel_size", "last_kernel_size", 7, 7),
    _Key("residual_kernel_size", "residual_kernel_size", "residual_kernel_size", 3, 3),
    _Key("dilation_base", "dilation_base", "dilation_growth_rate", 2, 2),
    _Key("causal", "causal", "use_causal_conv", False, True),
    _Key("pad_mode", "pad_mode", "pad_mode", "reflect", "reflect"),
    _Key("compress", "compress", "compress", 2, 2),
    _Key("lstm", "lstm", "num_lstm_layers", 0, 2),
)


# ---------------------------------------------------------------------------------------------------- AudioCraft


def read_audiocraft(config: Config) -> tuple[Encodec, list[str]]:
    """The codec of an export package, and what of it transformers cannot express.

    Args:
        config: of a package whose back-end found its spec good.

    Raises:
        ConfigError: a value is of the wrong kind or out of range.
    """
    top, rvq, shared = config.section("encodec"), config.section("rvq"), config.section("seanet")
    own = [shared.take_mapping(part, {}) for part in ("encoder", "decoder")]
    common = {key: shared.take(key) for key in shared.rest()}
    parts = [Section({**common, **values}, "seanet", config.where) for values in own]
    (values, found), (decoder, others) = (_read_seanet(part) for part in parts)
    codec = Encodec(
        sample_rate=top.take_int("sample_rate", high=_MAX_RATE),
        channels=top.take_int("channels", high=2),
        normalize=top.take_bool("renormalize", False),
        trim_right_ratio=parts[1].take_float("trim_right_ratio", 1.0, low=0.0, high=1.0),
        bins=rvq.take_int("bins", 1024),
        num_codebooks=rvq.take_int("n_q", 8, high=_MAX_CODEBOOKS),
        **values,
    )
    obstacles = list(dict.fromkeys([*found, *others]))
    keys = {"conv_shortcut": "true_skip", **{key.field: key.audiocraft for key in _KEYS}}
    obstacles += [
        f"seanet.encoder.{keys[field]} and seanet.decoder.{keys[field]} differ: transformers has one for both"
        for field in values
        if values[field] != decoder[field]
    ]
    if parts[1].has("final_activation"):
        obstacles.append(
            f"seanet.decoder.final_activation is {parts[1].take('final_activation')}: transformers has none"
        )
    if codec.bins & (codec.bins - 1):
        obstacles.append(f"rvq.bins is {codec.bins}: transformers has powers of two only")
    return codec, obstacles


def _read_seanet(part: Section) -> tuple[dict[str, Any], list[str]]:
    values = {key.field: key.take(part, key.audiocraft, key.audiocraft_default) for key in _KEYS}
    values["conv_shortcut"] = not part.take_bool("true_skip", True)
    activation, params = part.take("activation", "ELU"), part.take_mapping("activation_params", {})
    bare, norm_params = part.take("disable_norm_outer_blocks", 0), part.take_mapping("norm_params", {})
    obstacles = []
    if values["norm"] not in _NORMS:
        obstacles.append(f"seanet.norm is {values['norm']}: transformers has {' and '.join(_NORMS)} only")
    elif values["norm"] == "time_group_norm" and not norm_params.items() <= {"eps": 1e-5, "affine": True}.items():
        obstacles.append(f"seanet.norm_params are {norm_params}: transformers has eps 1e-05 and affine true only")
    if activation != "ELU" or params.get("alpha", 1.0) != 1.0:
        obstacles.append(f"seanet.activation is {activation} {params}: transformers has ELU of alpha 1 only")
    if not values["lstm"]:
        obstacles.append("seanet.lstm is 0: transformers has codecs with recurrent layers only")
    if bare:
        obstacles.append(f"seanet.disable_norm_outer_blocks is {bare}: transformers has the norm in all blocks")
    return values, obstacles


def audiocraft_config(codec: Encodec) -> dict[str, Any]:
    """The configuration of an export package."""
    return {
        "solver": "compression",
        "compression_model": "encodec",
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "device": "cpu",
        "dtype": "float32",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": codec.sample_rate,
            "channels": codec.channels,
            "causal": codec.causal,
            "renormalize": codec.normalize,
        },
        "seanet": {
            "channels": codec.channels,
            **{key.audiocraft: _plain(getattr(codec, key.field)) for key in _KEYS},
            "true_skip": not codec.conv_shortcut,
            "norm_params": {},
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "disable_norm_outer_blocks": 0,
            "encoder": {},
            "decoder": {
                "trim_right_ratio": codec.trim_right_ratio,
                "final_activation": None,
                "final_activation_params": None,
            },
        },
        "rvq": {"n_q": codec.num_codebooks, "bins": codec.bins},
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# -------------------------------------------------------------------------------------------------- transformers


def read_transformers(section: Section) -> tuple[Encodec, list[str]]:
    """The codec of transformers' configuration, and what of it a MusicGen of AudioCraft's cannot express.

    Raises:
        ConfigError: a value is of the wrong kind or out of range.
    """
    kind = section.take_str("model_type", "encodec")
    if kind != "encodec":
        raise section.error("model_type", f"is {kind[:40]!r}: only encodec is converted.")
    values = {key.field: key.take(section, key.transformers, key.transformers_default) for key in _KEYS}
    if values["norm"] not in _NORMS:
        raise section.error("norm_type", f"is {values['norm'][:40]!r}, expected {' or '.join(_NORMS)}.")
    if values["pad_mode"] not in _PAD_MODES:
        raise section.error("pad_mode", f"is {values['pad_mode'][:40]!r}, expected one of {', '.join(_PAD_MODES)}.")
    codec = Encodec(
        sample_rate=section.take_int("sampling_rate", 24_000, high=_MAX_RATE),
        channels=section.take_int("audio_channels", 1, high=2),
        normalize=section.take_bool("normalize", False),
        conv_shortcut=section.take_bool("use_conv_shortcut", True),
        trim_right_ratio=section.take_float("trim_right_ratio", 1.0, low=0.0, high=1.0),
        bins=section.take_int("codebook_size", 1024, low=2),
        num_codebooks=1,
        **values,
    )
    codec = replace(codec, num_codebooks=_num_codebooks(section, codec))
    obstacles = []
    if section.has("chunk_length_s"):
        obstacles.append(f"{section.name('chunk_length_s')} is set: AudioCraft's EnCodec has no chunks")
    if section.take("codebook_dim", None) not in (None, codec.dimension):
        obstacles.append(f"{section.name('codebook_dim')} is not {section.name('hidden_size')}: in AudioCraft it is")
    if codec.normalize and codec.causal:
        obstacles.append(f"{section.name('normalize')} is true: in AudioCraft a causal codec cannot be normalized")
    if codec.trim_right_ratio != 1 and not codec.causal:
        obstacles.append(f"{section.name('trim_right_ratio')} is not 1: that needs causal convolutions")
    return codec, obstacles


def _num_codebooks(section: Section, codec: Encodec) -> int:
    bandwidths = section.take("target_bandwidths", [1.5, 3.0, 6.0, 12.0, 24.0])
    last: Any = bandwidths[-1] if isinstance(bandwidths, list) and bandwidths else None
    if type(last) not in (int, float) or not 0 < last <= 1e6:
        raise section.error("target_bandwidths", "should end with a number above 0 and at most 1e6, in kbit/s.")
    count = _count(last, codec)
    if not 1 <= count <= _MAX_CODEBOOKS:
        raise section.error("target_bandwidths", f"ends with {last}, which makes {count} codebooks.")
    return count


def _count(bandwidth: float, codec: Encodec) -> int:
    """How many codebooks transformers makes of the last bandwidth."""
    return int(1000 * bandwidth // (codec.frame_rate * math.ceil(math.log2(codec.bins))))


def _bandwidth(count: int, codec: Encodec) -> float:
    """The bandwidth, in kbit/s, of which transformers makes ``count`` codebooks."""
    bits = codec.frame_rate * int(math.log2(codec.bins))
    value = count * bits / 1000
    while _count(value, codec) < count or math.floor(value * 1000 / bits) < count:  # rounding may go down
        value = math.nextafter(value, math.inf)
    return value


def transformers_config(codec: Encodec, used: int) -> dict[str, Any]:
    """transformers' configuration.

    Args:
        codec: what it describes.
        used: codebooks that the language model uses; transformers encodes prompts with the first bandwidth.
    """
    return {
        "model_type": "encodec",
        "sampling_rate": codec.sample_rate,
        "audio_channels": codec.channels,
        "normalize": codec.normalize,
        "chunk_length_s": None,
        "overlap": None,
        **{key.transformers: _plain(getattr(codec, key.field)) for key in _KEYS},
        "use_conv_shortcut": codec.conv_shortcut,
        "trim_right_ratio": codec.trim_right_ratio,
        "codebook_size": codec.bins,
        "codebook_dim": codec.dimension,
        "target_bandwidths": [_bandwidth(count, codec) for count in sorted({used, codec.num_codebooks})],
    }


# ------------------------------------------------------------------------------------------------------- tensors


def pairs(codec: Encodec) -> list[Pair]:
    """Every tensor of the codec, by both names; transformers' without the prefix of a model around it."""
    result = [*_encoder(codec), *_decoder(codec)]
    sizes = {"inited": (1,), "cluster_size": (codec.bins,)}
    for k in range(codec.num_codebooks):
        for name in ("inited", "cluster_size", "embed", "embed_avg"):
            result.append(
                pair(
                    f"quantizer.vq.layers.{k}._codebook.{name}",
                    f"quantizer.layers.{k}.codebook.{name}",
                    *sizes.get(name, (codec.bins, codec.dimension)),
                )
            )
    return result


class _Layers:
    """Counts the layers of a sequence, and names their tensors."""

    def __init__(self, part: str, codec: Encodec) -> None:
        self.part, self.codec, self.index = part, codec, 0

    def skip(self) -> None:
        """An activation."""
        self.index += 1

    def conv(self, first: int, second: int, kernel: int, block: str = "") -> Iterator[Pair]:
        """A convolution of so many channels to so many."""
        yield from self._conv("conv", second, (second, first, kernel), block)

    def convtr(self, first: int, second: int, kernel: int) -> Iterator[Pair]:
        """A transposed convolution of so many channels to so many."""
        yield from self._conv("convtr", second, (first, second, kernel), "")

    def _conv(self, name: str, channels: int, weight: tuple[int, ...], block: str) -> Iterator[Pair]:
        ours = f"{self.part}.model.{self.index}{block}.{name}"
        theirs = f"{self.part}.layers.{self.index}{block}"
        yield pair(f"{ours}.{name}.bias", f"{theirs}.conv.bias", channels)
        if self.codec.norm == "weight_norm":
            stored = f"{theirs}.conv.parametrizations.weight"
            yield pair(f"{ours}.{name}.weight_g", f"{stored}.original0", weight[0], 1, 1)
            yield pair(f"{ours}.{name}.weight_v", f"{stored}.original1", *weight)
        else:
            yield pair(f"{ours}.{name}.weight", f"{theirs}.conv.weight", *weight)
            yield pair(f"{ours}.norm.weight", f"{theirs}.norm.weight", channels)
            yield pair(f"{ours}.norm.bias", f"{theirs}.norm.bias", channels)
        if not block:
            self.index += 1

    def residual(self, width: int) -> Iterator[Pair]:
        """The residual blocks at one resolution."""
        hidden = width // self.codec.compress
        for _ in range(self.codec.num_residual_layers):
            yield from self.conv(width, hidden, self.codec.residual_kernel_size, ".block.1")
            yield from self.conv(hidden, width, 1, ".block.3")
            if self.codec.conv_shortcut:
                yield from self.conv(width, width, 1, ".shortcut")
            self.index += 1

    def lstm(self, width: int) -> Iterator[Pair]:
        """The recurrent layers."""
        for layer in range(self.codec.lstm):
            for name, shape in (("weight", (4 * width, width)), ("bias", (4 * width,))):
                for side in ("ih", "hh"):
                    leaf = f"{self.index}.lstm.{name}_{side}_l{layer}"
                    yield pair(f"{self.part}.model.{leaf}", f"{self.part}.layers.{leaf}", *shape)
        self.index += 1


def _encoder(codec: Encodec) -> Iterator[Pair]:
    layers, width = _Layers("encoder", codec), codec.num_filters
    yield from layers.conv(codec.channels, width, codec.kernel_size)
    for ratio in reversed(codec.ratios):
        yield from layers.residual(width)
        layers.skip()
        yield from layers.conv(width, 2 * width, 2 * ratio)
        width *= 2
    yield from layers.lstm(width)
    layers.skip()
    yield from layers.conv(width, codec.dimension, codec.last_kernel_size)


def _decoder(codec: Encodec) -> Iterator[Pair]:
    layers, width = _Layers("decoder", codec), codec.num_filters << len(codec.ratios)
    yield from layers.conv(codec.dimension, width, codec.kernel_size)
    yield from layers.lstm(width)
    for ratio in codec.ratios:
        layers.skip()
        yield from layers.convtr(width, width // 2, 2 * ratio)
        width //= 2
        yield from layers.residual(width)
    layers.skip()
    yield from layers.conv(width, codec.channels, codec.last_kernel_size)


def canonical(name: str) -> str:
    """The name of a tensor as transformers has it today; older files name the parts of a weight otherwise."""
    for old, new in ((".weight_g", "0"), (".weight_v", "1")):
        if name.endswith(f".conv{old}"):
            return f"{name.removesuffix(old)}.parametrizations.weight.original{new}"
    return name
