"""The configuration of a language model, read from a package's ``xp.cfg`` and checked against its tensors.

Key names, defaults and meaning are AudioCraft's (``transformer_lm``, ``codebooks_pattern``, ``fuser``,
``conditioners`` …), so that its packages mean the same here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codecbay.errors import ConfigError
from codecbay.package import Config, Header, Section
from codecbay.spec import LMSpec

FUSE_METHODS = ("sum", "cross", "prepend", "ignore", "input_interpolate")
KINDS = ("musicgen", "audiogen")
_PATTERNS = ("delay", "parallel", "unroll", "coarse_first", "musiclm")
_MAX_LAYERS = 1024  # the largest published model has 48
_MAX_CONDITIONERS = 32  # the largest published model has 2
_NAME = re.compile(r"[\w-]{1,64}")  # torch refuses a dot
_PROBABILITY = {"low": 0.0, "high": 1.0}


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes and options of the transformer; see AudioCraft's ``transformer_lm``.

    ``flat_attention`` says that attention keeps its parameters directly (AudioCraft's ``custom`` or
    ``memory_efficient``) and not under ``mha``, as ``nn.MultiheadAttention`` names them.
    """

    dim: int
    num_heads: int
    num_layers: int
    dim_feedforward: int
    norm_first: bool = False
    activation: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    bias_ff: bool = True
    bias_attn: bool = True
    causal: bool = True
    past_context: int | None = None
    flat_attention: bool = True
    memory_efficient: bool = False
    attention_as_float32: bool = False
    cross_attention: bool = False
    layer_scale: float | None = None
    positional_embedding: str = "sin"
    max_period: float = 10_000.0
    positional_scale: float = 1.0
    xpos: bool = False
    qk_layer_norm: bool = False
    qk_layer_norm_cross: bool = False
    kv_repeat: int = 1
    checkpointing: bool = False

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.dim // self.num_heads

    @property
    def uses_rope(self) -> bool:
        """Whether queries and keys are rotated by position."""
        return self.positional_embedding in ("rope", "sin_rope")


@dataclass(frozen=True)
class PatternConfig:
    """How the codebooks are laid out over sequence steps."""

    name: str
    delays: tuple[int, ...] | None = None
    flatten_first: int = 0
    empty_initial: int = 0
    flattening: tuple[int, ...] | None = None
    group_by: int = 2


@dataclass(frozen=True)
class ConditionerConfig:
    """One conditioner: its kind (``t5``, ``lut``, ``chroma_stem``, or a plugin's) and its arguments."""

    model: str
    arguments: Section


@dataclass(frozen=True)
class FuserConfig:
    """Which condition enters the transformer in which way."""

    methods: Mapping[str, tuple[str, ...]]
    cross_attention_pos_emb: bool = False
    cross_attention_pos_emb_scale: float = 1.0

    def method_of(self, condition: str) -> str | None:
        """The way a condition enters, or ``None`` where the configuration does not say."""
        # A condition listed twice enters as AudioCraft lets it: the way that is listed last.
        found = [method for method, names in self.methods.items() if condition in names]
        return found[-1] if found else None


@dataclass(frozen=True)
class LMConfig:
    """Everything needed to build a language model and to check a codec against it."""

    kind: str
    n_q: int
    card: int
    transformer: TransformerConfig
    pattern: PatternConfig
    fuser: FuserConfig
    max_duration: float
    conditioners: Mapping[str, ConditionerConfig] = field(default_factory=dict)
    bias_proj: bool = True
    cfg_coef: float = 1.0
    cfg_dropout: float = 0.0
    attribute_dropout: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    two_step_cfg: bool = False
    sample_rate: int | None = None
    channels: int | None = None
    stereo: str | None = None
    codec_num_codebooks: int | None = None
    trained_on: str | None = None

    @property
    def spec(self) -> LMSpec:
        """What the check compares."""
        return LMSpec(
            kind=self.kind,
            cardinality=self.card,
            num_codebooks=self.n_q,
            max_duration=self.max_duration,
            sample_rate=self.sample_rate,
            channels=self.channels,
            stereo=self.stereo,
            codec_num_codebooks=self.codec_num_codebooks,
            trained_on=self.trained_on,
        )


def read_lm_config(header: Header) -> LMConfig:
    """The configuration of the language model in a package file.

    Raises:
        ConfigError: a value is missing, unknown, of the wrong kind, out of range, contradicts another, or
            contradicts the shape of a tensor.
    """
    config = header.config
    top = config.top()
    top.take_str("lm_model", "transformer_lm", choices=("transformer_lm",))
    kind = top.take_str("solver", "musicgen", choices=KINDS)
    transformer = config.section("transformer_lm")
    guidance = config.section("classifier_free_guidance", optional=True)
    fuser = _fuser(config.section("fuser"))
    conditioners = _conditioners(config, fuser)
    crossed = bool(fuser.methods.get("cross"))
    if crossed and all(fuser.method_of(name) != "cross" for name in conditioners):
        raise config.section("fuser").error("cross", "names no conditioner, so that there is nothing to attend to.")
    n_q = transformer.take_int("n_q", 8, high=_MAX_LAYERS)
    card = transformer.take_int("card", 1024)
    bias_proj = transformer.take_bool("bias_proj", True)
    two_step_cfg = transformer.take_bool("two_step_cfg", False)
    q_modeling = transformer.take("q_modeling", None)
    shape = _transformer(transformer, crossed)
    _compare_with_tensors(header, transformer, n_q, card, shape)

    result = LMConfig(
        kind=kind,
        n_q=n_q,
        card=card,
        transformer=shape,
        pattern=_pattern(config, n_q, q_modeling),
        fuser=fuser,
        conditioners=conditioners,
        max_duration=config.section("dataset").take_float("segment_duration", above=0.0, high=86_400.0),
        bias_proj=bias_proj,
        cfg_coef=guidance.take_float("inference_coef", 1.0),
        cfg_dropout=guidance.take_float("training_dropout", 0.0, **_PROBABILITY),
        attribute_dropout=_attribute_dropout(config),
        two_step_cfg=two_step_cfg,
        sample_rate=top.take_optional_int("sample_rate"),
        channels=top.take_optional_int("channels", high=2),
        stereo=_stereo(config),
        codec_num_codebooks=top.take_optional_int("compression_model_n_q"),
        trained_on=_trained_on(top),
    )
    if result.stereo == "codebook" and n_q % 2:
        raise transformer.error("n_q", f"is {n_q}, but two interleaved channels need an even number.")
    return result


def _transformer(section: Section, crossed: bool) -> TransformerConfig:
    # Of no consequence for a model that is loaded: initialisation, optimisation, and what nn.TransformerEncoderLayer
    # takes but AudioCraft overrides.
    for key in (
        "emb_lr",
        "lr",
        "weight_decay",
        "weight_init",
        "depthwise_init",
        "zero_bias_init",
        "layer_norm_eps",
        "bias",
    ):
        section.take(key, None)
    section.take_str("norm", "layer_norm", choices=("layer_norm",))
    dim = section.take_int("dim")
    num_heads = section.take_int("num_heads", 8)
    if dim % num_heads:
        raise section.error("num_heads", f"is {num_heads}, which does not divide dim {dim}.")
    hidden_scale = section.take_float("hidden_scale", 4, above=0.0, high=1024.0)
    dropout = section.take_float("dropout", 0.1, **_PROBABILITY)
    attention_dropout = section.take_optional_float("attention_dropout", **_PROBABILITY)
    custom = section.take_bool("custom", False)
    memory_efficient = section.take_bool("memory_efficient", False)
    result = TransformerConfig(
        dim=dim,
        num_heads=num_heads,
        num_layers=section.take_int("num_layers", high=_MAX_LAYERS),
        dim_feedforward=max(int(hidden_scale * dim), 1),
        norm_first=section.take_bool("norm_first", False),
        activation=section.take_str("activation", "relu"),
        dropout=dropout,
        attention_dropout=dropout if attention_dropout is None else attention_dropout,
        bias_ff=section.take_bool("bias_ff", True),
        bias_attn=section.take_bool("bias_attn", True),
        causal=section.take_bool("causal", False),
        past_context=section.take_optional_int("past_context"),
        flat_attention=custom or memory_efficient,
        memory_efficient=memory_efficient,
        attention_as_float32=section.take_bool("attention_as_float32", False),
        cross_attention=section.take_bool("cross_attention", False) or crossed,
        layer_scale=section.take_optional_float("layer_scale"),
        positional_embedding=section.take_str("positional_embedding", "sin", choices=("sin", "rope", "sin_rope")),
        max_period=section.take_float("max_period", 10_000, above=0.0),
        positional_scale=section.take_float("positional_scale", 1.0),
        xpos=section.take_bool("xpos", False),
        qk_layer_norm=section.take_bool("qk_layer_norm", False),
        qk_layer_norm_cross=section.take_bool("qk_layer_norm_cross", False),
        kv_repeat=section.take_int("kv_repeat", 1),
        checkpointing=section.take_str(
            "checkpointing", "none", choices=("none", "torch", "xformers_default", "xformers_mm")
        )
        != "none",
    )
    section.finish()
    _contradictions(section, result, crossed)
    return result


def _contradictions(section: Section, t: TransformerConfig, crossed: bool) -> None:
    # AudioCraft refuses or crashes on each of these.
    if t.activation not in ("relu", "gelu"):
        raise section.error(
            "activation",
            f"is {t.activation[:40]!r}; relu and gelu are the ones whose sizes fit AudioCraft's layers.",
        )
    if t.cross_attention and not crossed:
        raise section.error("cross_attention", "is on, but fuser.cross names no condition to attend to.")
    if t.positional_embedding != "rope" and (t.dim % 2 or t.dim < 4):
        raise section.error("dim", f"is {t.dim}; sinusoidal positions need an even number from 4.")
    if t.uses_rope and t.head_dim % 2:
        raise section.error("num_heads", f"makes heads {t.head_dim} wide; rotary positions need an even width.")
    if t.past_context is not None and not t.causal:
        raise section.error("past_context", "limits the past of a model that is not causal.")
    if t.num_heads % t.kv_repeat:
        raise section.error("kv_repeat", f"is {t.kv_repeat}, which does not divide num_heads {t.num_heads}.")
    if not t.flat_attention:
        for key, on in (
            ("positional_embedding", t.uses_rope),
            ("qk_layer_norm", t.qk_layer_norm),
            ("qk_layer_norm_cross", t.qk_layer_norm_cross and t.cross_attention),
            ("kv_repeat", t.kv_repeat > 1),
        ):
            if on:
                raise section.error(key, "needs custom or memory_efficient attention.")
    if t.qk_layer_norm and t.kv_repeat > 1:
        raise section.error("qk_layer_norm", "cannot be combined with kv_repeat.")


def _compare_with_tensors(header: Header, section: Section, n_q: int, card: int, t: TransformerConfig) -> None:
    """Refuse sizes that the tensors contradict, before anything is built from them."""
    tensors = header.tensors
    for key, count in (("n_q", n_q), ("num_layers", t.num_layers)):
        if count > len(tensors):
            raise section.error(key, f"is {count}, but the package holds only {len(tensors)} tensors.")

    def expect(key: str, value: int, tensor: str, axis: int, size: int) -> None:
        found = tensors.get(tensor)
        if found is not None and len(found.shape) > axis and found.shape[axis] != size:
            raise section.error(
                key,
                f"is {value}, but the tensor '{tensor}' is {list(found.shape)}: expected {size} in place {axis}.",
            )

    expect("card", card, "emb.0.weight", 0, card + 1)
    expect("dim", t.dim, "emb.0.weight", 1, t.dim)
    expect("hidden_scale", t.dim_feedforward, "transformer.layers.0.linear1.weight", 0, t.dim_feedforward)
    for key, count, pattern in (
        ("n_q", n_q, "emb.{}.weight"),
        ("num_layers", t.num_layers, "transformer.layers.{}.linear1.weight"),
    ):
        if pattern.format(count) in tensors or pattern.format(count - 1) not in tensors:
            stored = sum(pattern.format(i) in tensors for i in range(len(tensors)))
            raise section.error(key, f"is {count}, but the package holds {stored} of '{pattern.format('N')}'.")


def _pattern(config: Config, n_q: int, q_modeling: Any) -> PatternConfig:
    section = config.section("codebooks_pattern")
    if not section.has("modeling"):
        if q_modeling is None:
            raise section.error("modeling", "is missing, and so is transformer_lm.q_modeling.")
        if q_modeling not in _PATTERNS:
            raise config.section("transformer_lm").error("q_modeling", f"should be one of {', '.join(_PATTERNS)}.")
        return PatternConfig(q_modeling)  # every codebook one step after the one before, where it is 'delay'
    name = section.take_str("modeling", choices=_PATTERNS)
    options = section.take_section(name, {})
    result = PatternConfig(name)
    if name == "delay":
        delays = _optional_ints(options, "delays")
        result = PatternConfig(
            name,
            delays=delays,
            flatten_first=options.take_int("flatten_first", 0, low=0),
            empty_initial=options.take_int("empty_initial", 0, low=-1, high=1 << 16),
        )
        _check_delays(options, delays, n_q)
    elif name == "parallel":
        result = PatternConfig(name, empty_initial=options.take_int("empty_initial", 0, low=-1, high=1 << 16))
    elif name == "unroll":
        flattening = _optional_ints(options, "flattening")
        delays = _optional_ints(options, "delays")
        _check_delays(options, delays, n_q)
        _check_delays(options, flattening, n_q, "flattening")
        if flattening and max(flattening) >= 4 * n_q:
            raise options.error("flattening", f"has {max(flattening)} inner steps for {n_q} codebooks.")
        result = PatternConfig(name, delays=delays, flattening=flattening)
        by_step: dict[int, int] = {}
        for step, delay in zip(flattening or range(n_q), delays or [0] * n_q, strict=True):
            if by_step.setdefault(step, delay) != delay:
                raise options.error("delays", "differ between codebooks that are flattened to one step.")
    elif name == "coarse_first":
        if n_q < 2:
            raise section.error("modeling", "is coarse_first, which needs at least two codebooks.")
        delays = _optional_ints(options, "delays")
        _check_delays(options, delays, n_q - 1)
        result = PatternConfig(name, delays=delays)
    elif name == "musiclm":
        group_by = options.take_int("group_by", 2)
        if n_q % group_by:
            raise options.error("group_by", f"is {group_by}, which does not divide n_q {n_q}.")
        result = PatternConfig(name, group_by=group_by)
    options.finish()
    return result


def _optional_ints(section: Section, key: str) -> tuple[int, ...] | None:
    if section.has(key):
        return section.take_ints(key, low=0, high=1 << 16)
    section.take(key, None)
    return None


def _check_delays(section: Section, values: tuple[int, ...] | None, count: int, key: str = "delays") -> None:
    if values is None:
        return
    if len(values) != count:
        raise section.error(key, f"has {len(values)} values, expected {count}.")
    if list(values) != sorted(values):
        raise section.error(key, f"should not decrease, found {list(values)}.")


def _fuser(section: Section) -> FuserConfig:
    methods: dict[str, tuple[str, ...]] = {}
    for method in FUSE_METHODS:
        if section.has(method):
            methods[method] = section.take_strs(method)
        else:
            section.take(method, None)
    result = FuserConfig(
        methods,
        cross_attention_pos_emb=section.take_bool("cross_attention_pos_emb", False),
        cross_attention_pos_emb_scale=section.take_float("cross_attention_pos_emb_scale", 1.0),
    )
    section.finish()
    return result


def _conditioners(config: Config, fuser: FuserConfig) -> dict[str, ConditionerConfig]:
    section = config.section("conditioners", optional=True)
    result: dict[str, ConditionerConfig] = {}
    section.take("args", None)  # how conditions are mixed in training
    names = section.rest()
    if len(names) > _MAX_CONDITIONERS:
        raise ConfigError(
            f"{config.where}: there are {len(names)} conditioners; at most {_MAX_CONDITIONERS} are built."
        )
    for name in names:
        entry = section.take_section(name)
        model = entry.take_str("model")
        for text in (name, model):
            if not _NAME.fullmatch(text):
                raise section.error(text, "is no name for a conditioner: letters, digits, '_' and '-' make one.")
        result[name] = ConditionerConfig(model, entry.take_section(model))
        if fuser.method_of(name) is None:
            raise ConfigError(f"{config.where}: the conditioner '{name}' is in no list of 'fuser'.")
    return result


def _attribute_dropout(config: Config) -> dict[str, dict[str, float]]:
    section = config.section("attribute_dropout", optional=True)
    section.take("args", None)
    result: dict[str, dict[str, float]] = {}
    for kind in section.rest():
        entry = section.take_section(kind)
        result[kind] = {
            name: entry.take_float(name, **_PROBABILITY) for name in entry.rest() if name != "active_on_eval"
        }
    return result


def _stereo(config: Config) -> str | None:
    section = config.section("interleave_stereo_codebooks", optional=True)
    use = section.take_bool("use", False)
    per_timestep = section.take_bool("per_timestep", False)
    section.finish()
    return None if not use else "timestep" if per_timestep else "codebook"


def _trained_on(top: Section) -> str | None:
    value = top.take("compression_model_checkpoint", None)
    return value.removeprefix("//pretrained/") if isinstance(value, str) and value.startswith("//pretrained/") else None
