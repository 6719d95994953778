"""The configuration of an EnCodec package: AudioCraft's sections ``encodec``, ``seanet`` and ``rvq``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from codecbay.errors import ConfigError
from codecbay.package import Config, Header, Section
from codecbay.spec import CodecSpec

NORMS = ("none", "weight_norm", "spectral_norm", "time_group_norm")
PAD_MODES = ("constant", "reflect", "replicate", "circular")
# The classes of torch.nn that map a tensor to one of the same shape, and the numbers that they take.
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "CELU": ("alpha",), "ELU": ("alpha",), "GELU": (), "Hardshrink": ("lambd",), "Hardsigmoid": (), "Hardswish": (),
    "Hardtanh": ("min_val", "max_val"), "Identity": (), "LeakyReLU": ("negative_slope",), "LogSigmoid": (), "Mish": (),
    "PReLU": ("num_parameters", "init"), "RReLU": ("lower", "upper"), "ReLU": (), "ReLU6": (), "SELU": (), "SiLU": (),
    "Sigmoid": (), "Softplus": ("beta", "threshold"), "Softshrink": ("lambd",), "Softsign": (), "Tanh": (),
    "Tanhshrink": (), "Threshold": ("threshold", "value"),
}  # fmt: skip
MAX_WIDTH = 1 << 16  # no layer of a codec has more channels


@dataclass(frozen=True)
class Activation:
    """A class of ``torch.nn`` and its arguments."""

    name: str = "ELU"
    params: Mapping[str, Any] = field(default_factory=lambda: {"alpha": 1.0})


@dataclass(frozen=True)
class SEANetConfig:
    """Encoder or decoder. Names and defaults are AudioCraft's; ``ratios`` are in the decoder's order."""

    channels: int = 1
    dimension: int = 128
    n_filters: int = 32
    n_residual_layers: int = 3
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    activation: Activation = field(default_factory=Activation)
    norm: str = "none"
    norm_params: Mapping[str, Any] = field(default_factory=dict)
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    causal: bool = False
    pad_mode: str = "reflect"
    true_skip: bool = True
    compress: int = 2
    lstm: int = 0
    disable_norm_outer_blocks: int = 0
    final_activation: Activation | None = None
    trim_right_ratio: float = 1.0

    @property
    def hop_length(self) -> int:
        """Samples to a frame."""
        return math.prod(self.ratios)


@dataclass(frozen=True)
class EncodecConfig:
    """A whole codec."""

    sample_rate: int
    channels: int
    renormalize: bool
    encoder: SEANetConfig
    decoder: SEANetConfig
    n_q: int
    bins: int

    @property
    def frame_rate(self) -> int:
        """Frames a second as AudioCraft counts them: rounded down."""
        return self.sample_rate // self.encoder.hop_length

    @property
    def streams(self) -> bool:
        """Whether a recording of any length is worked on piece by piece, with the result of one pass."""
        parts = (self.encoder, self.decoder)
        waits = any(part.norm == "time_group_norm" or part.pad_mode == "circular" for part in parts)
        return not (self.renormalize or waits)

    @property
    def spec(self) -> CodecSpec:
        """What the check compares."""
        # The decoder may have strides of its own; its waveform then has a rate of its own.
        decoded_rate = self.sample_rate * self.decoder.hop_length // self.encoder.hop_length
        return CodecSpec(
            sample_rate=self.sample_rate,
            channels=self.channels,
            cardinalities=(self.bins,) * self.n_q,
            frame_size=self.encoder.hop_length,
            frame_rate=Fraction(self.sample_rate, self.encoder.hop_length),
            num_codebooks=self.n_q,
            allowed_num_codebooks=tuple(range(1, self.n_q + 1)),
            has_scale=self.renormalize,
            decoded_sample_rate=None if decoded_rate == self.sample_rate else decoded_rate,
            lookahead=0 if all(_sees_no_future(part) for part in (self.encoder, self.decoder)) else None,
            # Of what is worked on by windows; the norm of a window is not that of the whole.
            chunked_tolerance=0.0 if self.streams else 0.2 if self.renormalize else 0.1,
        )


def _sees_no_future(part: SEANetConfig) -> bool:
    # Reflected padding and trimming on the left bring later samples in, whatever the configuration says.
    return part.causal and part.pad_mode in ("constant", "replicate") and part.trim_right_ratio == 1.0


def read_config(header: Header) -> EncodecConfig:
    """The configuration of a codec package.

    Raises:
        ConfigError: a value is missing, unknown, of the wrong kind or out of range, contradicts another, or
            contradicts the shape of a tensor.
    """
    config = header.config
    section = config.section("encodec")
    section.take_str("autoencoder", "seanet", choices=("seanet",))
    quantizer = section.take_str("quantizer", "rvq")
    if quantizer != "rvq":
        raise section.error("quantizer", f"is {quantizer[:40]!r}: such a codec has no discrete codes. Only rvq has.")
    sample_rate = section.take_int("sample_rate", high=768_000)
    channels = section.take_int("channels", high=2)
    causal = section.take_bool("causal", False)
    renormalize = section.take_bool("renormalize", False)
    section.take("renorm", None)  # of old versions, without effect
    section.finish()
    if causal and renormalize:
        raise section.error("renormalize", "is on, which a causal codec cannot do.")

    encoder, decoder = (_seanet(config, part, len(header.tensors)) for part in ("encoder", "decoder"))
    rvq = config.section("rvq")
    n_q, bins = _rvq(rvq)
    result = EncodecConfig(sample_rate, channels, renormalize, encoder, decoder, n_q, bins)
    _contradictions(config, result)
    _compare_with_tensors(header, rvq, result)
    return result


def _rvq(section: Section) -> tuple[int, int]:
    n_q, bins = section.take_int("n_q", 8, high=1024), section.take_int("bins", 1024)
    for key in (  # of use in training alone
        "q_dropout", "decay", "kmeans_init", "kmeans_iters", "threshold_ema_dead_code", "orthogonal_reg_weight",
        "orthogonal_reg_active_codes_only", "orthogonal_reg_max_codes",
    ):  # fmt: skip
        section.take(key, None)
    section.finish()
    return n_q, bins


def _seanet(config: Config, part: str, num_tensors: int) -> SEANetConfig:
    shared = config.section("seanet")
    own = {name: shared.take_mapping(name, {}) for name in ("encoder", "decoder")}[part]
    values = {key: shared.take(key) for key in shared.rest()}
    section = Section({**values, **own}, "seanet", config.where)
    default = SEANetConfig()

    def count(key: str, value: int, high: int = MAX_WIDTH, low: int = 1) -> int:
        return section.take_int(key, value, low=low, high=high)

    ratios = section.take_ints("ratios", default.ratios, high=1 << 16)
    layers, lstm = count("n_residual_layers", 3, low=0, high=64), count("lstm", 0, low=0, high=64)
    if not ratios:
        raise section.error("ratios", "is empty.")
    for key, number in (("ratios", len(ratios)), ("n_residual_layers", layers * len(ratios)), ("lstm", lstm)):
        if 4 * number > num_tensors:  # which is the least that they need
            raise section.error(key, f"asks for {number} layers, but the package holds only {num_tensors} tensors.")
    if math.prod(ratios) > 1 << 24:
        raise section.error("ratios", f"makes frames of {str(math.prod(ratios))[:20]} samples.")
    result = SEANetConfig(
        channels=count("channels", default.channels, high=2),
        dimension=count("dimension", default.dimension),
        n_filters=count("n_filters", default.n_filters),
        n_residual_layers=layers,
        ratios=ratios,
        activation=_activation(section, "activation", Activation()),
        norm=section.take_str("norm", default.norm, choices=NORMS),
        norm_params=_norm_params(section),
        kernel_size=count("kernel_size", default.kernel_size),
        last_kernel_size=count("last_kernel_size", default.last_kernel_size),
        residual_kernel_size=count("residual_kernel_size", default.residual_kernel_size),
        dilation_base=count("dilation_base", default.dilation_base),
        causal=section.take_bool("causal", default.causal),
        pad_mode=section.take_str("pad_mode", default.pad_mode, choices=PAD_MODES),
        true_skip=section.take_bool("true_skip", default.true_skip),
        compress=count("compress", default.compress),
        lstm=lstm,
        disable_norm_outer_blocks=count("disable_norm_outer_blocks", 0, low=0, high=len(ratios) + 2),
        final_activation=_final_activation(section) if part == "decoder" else None,
        trim_right_ratio=(section.take_float("trim_right_ratio", 1.0, low=0.0, high=1.0) if part == "decoder" else 1.0),
    )
    section.finish()
    if result.n_filters << len(ratios) > MAX_WIDTH:
        raise section.error("n_filters", f"is {result.n_filters}, too much for {len(ratios)} ratios.")
    if layers and result.compress > result.n_filters:
        raise section.error("compress", f"is {result.compress}, which leaves nothing of {result.n_filters} filters.")
    if layers and result.dilation_base ** (layers - 1) > 1 << 24:
        raise section.error("dilation_base", f"is {result.dilation_base}, too much for {layers} layers.")
    if result.causal and result.norm == "time_group_norm":
        raise section.error("norm", "is time_group_norm, which a causal codec cannot have.")
    if not result.causal and result.trim_right_ratio != 1.0:
        raise section.error("trim_right_ratio", "other than 1 needs a causal codec.")
    return result


def _activation(section: Section, key: str, default: Activation) -> Activation:
    name = section.take_str(key, default.name, choices=tuple(ACTIVATIONS))
    given = section.take_section(f"{key}_params", default.params)
    params: dict[str, Any] = {}
    for param in filter(given.has, ACTIVATIONS[name]):
        whole = param == "num_parameters"
        params[param] = given.take_int(param, high=MAX_WIDTH) if whole else given.take_float(param)
    if given.has("inplace"):
        params["inplace"] = given.take_bool("inplace")
    if name == "GELU" and given.has("approximate"):
        params["approximate"] = given.take_str("approximate", choices=("none", "tanh"))
    given.finish()
    return Activation(name, params)


def _final_activation(section: Section) -> Activation | None:
    if section.has("final_activation"):
        return _activation(section, "final_activation", Activation("Identity", {}))
    for key in ("final_activation", "final_activation_params"):
        section.take(key, None)
    return None


def _norm_params(section: Section) -> dict[str, Any]:
    params = section.take_section("norm_params", {})
    result: dict[str, Any] = {}
    if section.take("norm", "none") == "time_group_norm":
        result = {
            "eps": params.take_float("eps", 1e-5, low=0.0, high=1.0),
            "affine": params.take_bool("affine", True),
        }
        params.finish()
    return result


def _contradictions(config: Config, codec: EncodecConfig) -> None:
    section = config.section("seanet")
    if codec.encoder.dimension != codec.decoder.dimension:
        raise section.error("dimension", "differs between encoder and decoder.")
    if not codec.encoder.channels == codec.decoder.channels == codec.channels:
        raise section.error("channels", f"differ between encoder, decoder and codec ({codec.channels}).")
    if codec.sample_rate < codec.encoder.hop_length:
        raise ConfigError(
            f"{config.where}: a frame of {codec.encoder.hop_length} samples (seanet.ratios) is longer than a "
            f"second at {codec.sample_rate} Hz."
        )


def _compare_with_tensors(header: Header, section: Section, codec: EncodecConfig) -> None:
    name = "quantizer.vq.layers.{}._codebook.embed"
    stored = sum(name.format(i) in header.tensors for i in range(len(header.tensors)))
    if codec.n_q != stored or name.format(0) not in header.tensors:
        raise section.error("n_q", f"is {codec.n_q}, but the package holds {stored} codebooks.")
    shape = header.tensors[name.format(0)].shape
    if shape != (codec.bins, codec.encoder.dimension):
        raise section.error(
            "bins",
            f"is {codec.bins} (with seanet.dimension {codec.encoder.dimension}), "
            f"but the tensor '{name.format(0)}' is {list(shape)}.",
        )


def debug_config(sample_rate: int) -> EncodecConfig:
    """The small codec at 25 Hz, with 4 codebooks of 400 entries, that AudioCraft's test suites use."""
    ratios = {32_000: (10, 8, 16), 16_000: (10, 8, 8)}[sample_rate]
    part = SEANetConfig(dimension=32, n_filters=4, n_residual_layers=1, ratios=ratios)
    return EncodecConfig(sample_rate, 1, False, part, part, n_q=4, bins=400)
