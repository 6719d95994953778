"""The language model of MusicGen as AudioCraft and as transformers have it: configuration, and names of tensors.

What both can express is a :class:`LanguageModel`; it is read from the configuration of either side, and written to
either.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from codecbay.convert.encodec import Encodec
from codecbay.convert.names import Pair, pair
from codecbay.lm.config import KINDS, LMConfig
from codecbay.package import Config, Header, Section

DESCRIPTION, MELODY = "description", "self_wav"  # what MusicGen calls its conditions
_CONDITIONERS = "condition_provider.conditioners"
TEXT_PROJECTION = f"{_CONDITIONERS}.{DESCRIPTION}.output_proj"
FINETUNED_T5 = f"{_CONDITIONERS}.{DESCRIPTION}.t5."
WINDOW = f"{_CONDITIONERS}.{MELODY}.chroma.spec.window"
_ACTIVATIONS = ("gelu", "relu")
_MAX_LAYERS = 1024
_MAX_SECONDS = 86_400.0
_DURATION = 30.0  # seconds; of every published MusicGen
_GUIDANCE = 3.0  # of every published MusicGen
MODEL_CLASSES = {
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}
_CODEC_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
EXTRA = "audiocraft"  # a section of transformers' config.json for what has no other place there


@dataclass(frozen=True)
class Chroma:
    """How a melody becomes a condition: ``n_fft`` points and window, of which the strongest pitch class counts."""

    sample_rate: int
    num_chroma: int
    n_fft: int
    hop_length: int
    num_frames: int
    stored_window: bool

    def frames_of(self, seconds: float) -> int:
        """Frames of a waveform of so many seconds."""
        return 1 + max(int(self.sample_rate * seconds), self.n_fft) // self.hop_length


@dataclass(frozen=True)
class LanguageModel:
    """A language model that both libraries can build.

    Attributes:
        stereo: two mono streams, interleaved codebook by codebook.
        text_width: channels of the text encoder's output.
        text_projection: whether they are projected to ``dim``; transformers does so where they differ.
        chroma: for a model of melodies, which puts conditions in front; others attend to the description.
        flat_attention: see :class:`~codecbay.lm.config.TransformerConfig`; matters to AudioCraft alone.
        trained_on: the name of the codec that it was trained on, where it is known.
        codec_fingerprint: of that codec, where it is known.
    """

    kind: str
    dim: int
    num_heads: int
    num_layers: int
    dim_feedforward: int
    activation: str
    dropout: float
    attention_dropout: float
    card: int
    n_q: int
    stereo: bool
    max_duration: float
    guidance: float
    text_width: int
    text_projection: bool
    chroma: Chroma | None
    flat_attention: bool = True
    trained_on: str | None = None
    codec_fingerprint: str | None = None

    @property
    def codec_codebooks(self) -> int:
        """Codebooks that each channel uses."""
        return self.n_q // 2 if self.stereo else self.n_q

    @property
    def delays(self) -> list[int]:
        """The one pattern that transformers has."""
        return [k // 2 if self.stereo else k for k in range(self.n_q)]


# ---------------------------------------------------------------------------------------------------- AudioCraft


def read_audiocraft(config: LMConfig, header: Header) -> tuple[LanguageModel, list[str]]:
    """The model of an export package, and what of it transformers cannot express.

    Raises:
        ConfigError: a value is of the wrong kind or out of range.
    """
    t = config.transformer
    obstacles = [*_transformer_obstacles(config), *_pattern_obstacles(config), *_condition_obstacles(config)]
    chroma, melody = None, config.conditioners.get(MELODY)
    if melody is not None and melody.model == "chroma_stem":
        chroma, found = _read_chroma(melody.arguments, config, WINDOW in header.tensors)
        obstacles += found
    projection = header.tensors.get(f"{TEXT_PROJECTION}.weight")
    model = LanguageModel(
        kind=config.kind,
        dim=t.dim,
        num_heads=t.num_heads,
        num_layers=t.num_layers,
        dim_feedforward=t.dim_feedforward,
        activation=t.activation,
        dropout=t.dropout,
        attention_dropout=t.attention_dropout,
        card=config.card,
        n_q=config.n_q,
        stereo=config.stereo is not None,
        max_duration=config.max_duration,
        guidance=config.cfg_coef,
        text_width=projection.shape[-1] if projection is not None and projection.shape else 1,
        text_projection=True,
        chroma=chroma,
        flat_attention=t.flat_attention,
        trained_on=config.trained_on,
        codec_fingerprint=header.codec_fingerprint,
    )
    return model, obstacles


def _transformer_obstacles(config: LMConfig) -> Iterator[str]:
    t = config.transformer
    values: list[tuple[str, Any, Any]] = [
        ("positional_embedding", t.positional_embedding, "sin"),
        ("max_period", t.max_period, 10_000.0),
        ("positional_scale", t.positional_scale, 1.0),
        ("xpos", t.xpos and t.uses_rope, False),
        ("norm_first", t.norm_first, True),
        ("layer_scale", t.layer_scale, None),
        ("qk_layer_norm", t.qk_layer_norm, False),
        ("qk_layer_norm_cross", t.qk_layer_norm_cross and t.cross_attention, False),
        ("kv_repeat", t.kv_repeat, 1),
        ("causal", t.causal, True),
        ("past_context", t.past_context, None),
        ("bias_ff", t.bias_ff, False),
        ("bias_attn", t.bias_attn, False),
        ("bias_proj", config.bias_proj, False),
    ]
    for key, found, only in values:
        if found != only:
            yield f"transformer_lm.{key} is {json.dumps(found)}: transformers has {json.dumps(only)} only"


def _pattern_obstacles(config: LMConfig) -> Iterator[str]:
    if config.stereo == "timestep":
        yield "interleave_stereo_codebooks.per_timestep is true: transformers interleaves codebook by codebook only"
    pattern = config.pattern
    if pattern.name not in ("delay", "parallel"):
        yield f"codebooks_pattern.modeling is {pattern.name}: transformers has delay only"
        return
    section = f"codebooks_pattern.{pattern.name}"
    delays = list(pattern.delays or (range(config.n_q) if pattern.name == "delay" else [0] * config.n_q))
    only = [k // 2 if config.stereo == "codebook" else k for k in range(config.n_q)]
    if delays != only:
        yield f"{section}.delays is {delays}: transformers has {only} only"
    for key, found in (("flatten_first", pattern.flatten_first), ("empty_initial", pattern.empty_initial)):
        if found:
            yield f"{section}.{key} is {found}: transformers has 0 only"


def _condition_obstacles(config: LMConfig) -> Iterator[str]:
    known = {DESCRIPTION: "t5", MELODY: "chroma_stem"}
    for name, entry in config.conditioners.items():
        if known.get(name) != entry.model:
            yield (
                f"conditioners.{name}.model is {entry.model}: transformers has a {DESCRIPTION} by t5 and a {MELODY} by "
                "chroma_stem only"
            )
    if DESCRIPTION not in config.conditioners:
        yield f"conditioners.{DESCRIPTION} is missing: transformers' models are conditioned on texts"
    elif config.conditioners[DESCRIPTION].arguments.take("normalize_text", False):
        yield f"conditioners.{DESCRIPTION}.t5.normalize_text is true: transformers gives texts to T5 as they are"
    way, where = ("prepend", "with a melody") if MELODY in config.conditioners else ("cross", "without a melody")
    for name in known:
        found = config.fuser.method_of(name) if name in config.conditioners else way
        if found != way:
            yield f"fuser.{found} has '{name}': {where}, transformers has it in {way} only"
    if config.fuser.cross_attention_pos_emb and config.transformer.cross_attention:
        yield "fuser.cross_attention_pos_emb is true: transformers has no positions in what is attended to"


def _read_chroma(arguments: Section, config: LMConfig, stored_window: bool) -> tuple[Chroma, list[str]]:
    window = arguments.take_optional_int("winlen", low=4) or 2 ** arguments.take_int("radix2_exp", low=2, high=20)
    n_fft = arguments.take_optional_int("nfft", low=4) or window
    chroma = Chroma(
        sample_rate=arguments.take_int("sample_rate"),
        num_chroma=arguments.take_int("n_chroma"),
        n_fft=n_fft,
        hop_length=arguments.take_optional_int("winhop", low=4) or window // 4,
        num_frames=0,
        stored_window=stored_window,
    )
    chroma = replace(chroma, num_frames=chroma.frames_of(config.max_duration))
    obstacles = []
    if not arguments.take_bool("argmax", False):
        name = arguments.name("argmax")
        obstacles.append(f"{name} is false: transformers keeps only the strongest pitch class of a frame")
    if window != n_fft:
        obstacles.append(f"{arguments.name('winlen')} is {window}: transformers has {n_fft}, as nfft, only")
    if chroma.num_chroma == config.transformer.dim:
        name = arguments.name("n_chroma")
        obstacles.append(f"{name} is transformer_lm.dim: transformers then leaves out the projection of the chroma")
    return chroma, obstacles


def audiocraft_config(model: LanguageModel, codec: Encodec, text_encoder: str) -> dict[str, Any]:
    """The configuration of an export package.

    Args:
        model: what it describes.
        codec: that is under it.
        text_encoder: its name.
    """
    conditioners: dict[str, Any] = {}
    chroma, texts, both = model.chroma, [DESCRIPTION], [MELODY, DESCRIPTION]
    if chroma is not None:
        conditioners[MELODY] = {
            "model": "chroma_stem",
            "chroma_stem": {
                "sample_rate": chroma.sample_rate,
                "n_chroma": chroma.num_chroma,
                "radix2_exp": max(2, (chroma.n_fft - 1).bit_length()),
                "nfft": chroma.n_fft,
                "winlen": chroma.n_fft,
                "winhop": chroma.hop_length,
                "argmax": True,
            },
        }
    t5 = {"name": text_encoder, "finetune": False, "word_dropout": 0.0, "normalize_text": False}
    conditioners[DESCRIPTION] = {"model": "t5", "t5": t5}
    trained_on = None if model.trained_on is None else f"//pretrained/{model.trained_on}"
    return {
        "solver": model.kind,
        "lm_model": "transformer_lm",
        "sample_rate": codec.sample_rate,
        "channels": 2 if model.stereo else codec.channels,
        "device": "cpu",
        "dtype": "float32",
        "compression_model_checkpoint": trained_on,
        "compression_model_n_q": None if model.codec_codebooks == codec.num_codebooks else model.codec_codebooks,
        "dataset": {"segment_duration": model.max_duration},
        "interleave_stereo_codebooks": {"use": model.stereo, "per_timestep": False},
        "transformer_lm": {
            "dim": model.dim,
            "num_heads": model.num_heads,
            "num_layers": model.num_layers,
            "hidden_scale": _hidden_scale(model),
            "n_q": model.n_q,
            "card": model.card,
            "dropout": model.dropout,
            "attention_dropout": model.attention_dropout,
            "activation": model.activation,
            "norm": "layer_norm",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "positional_embedding": "sin",
        },
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": model.delays, "flatten_first": 0, "empty_initial": 0},
        },
        "conditioners": conditioners,
        "fuser": {
            "sum": [],
            "prepend": [] if chroma is None else both,
            "cross": texts if chroma is None else [],
            "input_interpolate": [],
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
        },
        # How the model was trained is not known; guidance needs a model that was trained without conditions, too.
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": model.guidance},
        "attribute_dropout": {},
    }


def _hidden_scale(model: LanguageModel) -> float:
    """The number that, multiplied by ``dim`` and rounded down, gives the width of the feed-forward blocks."""
    whole, rest = divmod(model.dim_feedforward, model.dim)
    if not rest:
        return whole
    scale = model.dim_feedforward / model.dim
    return scale if int(scale * model.dim) == model.dim_feedforward else math.nextafter(scale, math.inf)


# -------------------------------------------------------------------------------------------------- transformers


def read_transformers(
    config: Config, generation: Config, features: Config, *, text_width: int, frame_rate: int
) -> tuple[LanguageModel, list[str]]:
    """The model of transformers' configuration, and what of it AudioCraft cannot express.

    Args:
        config: of the whole model.
        generation: how it generates.
        features: how it takes in audio.
        text_width: channels of the text encoder's output.
        frame_rate: frames a second.

    Raises:
        ConfigError: a value is missing, of the wrong kind or out of range.
    """
    top, decoder, generating = config.top(), config.section("decoder"), generation.top()
    extra = top.take_section(EXTRA, {})
    kind = top.take_str("model_type", choices=tuple(MODEL_CLASSES))
    dim, heads = decoder.take_int("hidden_size", 1024), decoder.take_int("num_attention_heads", 16)
    if dim % heads:
        raise decoder.error("num_attention_heads", f"is {heads}, which does not divide hidden_size {dim}.")
    chroma = _read_features(top, features.top(), extra) if kind == "musicgen_melody" else None
    model = LanguageModel(
        kind=extra.take_str("solver", "musicgen", choices=KINDS),
        dim=dim,
        num_heads=heads,
        num_layers=decoder.take_int("num_hidden_layers", 24, high=_MAX_LAYERS),
        dim_feedforward=decoder.take_int("ffn_dim", 4096),
        activation=decoder.take_str("activation_function", "gelu"),
        dropout=decoder.take_float("dropout", 0.1, low=0.0, high=1.0),
        attention_dropout=decoder.take_float("attention_dropout", 0.0, low=0.0, high=1.0),
        card=decoder.take_int("vocab_size", 2048),
        n_q=decoder.take_int("num_codebooks", 4, high=_MAX_LAYERS),
        stereo=decoder.take_int("audio_channels", 1, high=2) == 2,
        max_duration=_duration(extra, generating, frame_rate, chroma),
        guidance=generating.take_float("guidance_scale") if generating.has("guidance_scale") else _GUIDANCE,
        text_width=text_width,
        text_projection=text_width != dim,
        chroma=chroma,
        trained_on=_codec_name(extra, config),
        codec_fingerprint=extra.take_str("codec_fingerprint") if extra.has("codec_fingerprint") else None,
    )
    return model, [*_transformers_obstacles(model, decoder), *_token_obstacles(model, decoder, generating)]


def _read_features(top: Section, features: Section, extra: Section) -> Chroma:
    return Chroma(
        sample_rate=features.take_int("sampling_rate", 32_000, high=768_000),
        num_chroma=top.take_int("num_chroma", 12, high=1024),
        n_fft=features.take_int("n_fft", 1 << 14, low=4, high=1 << 20),
        hop_length=features.take_int("hop_length", 1 << 12, low=4, high=1 << 20),
        num_frames=top.take_int("chroma_length", 235, high=1 << 20),
        stored_window=extra.take_bool("stored_window", True),
    )


def _duration(extra: Section, generating: Section, frame_rate: int, chroma: Chroma | None) -> float:
    """Seconds of the segments that the model was trained on; a melody has so many frames in each."""
    known = [_DURATION]
    if generating.has("max_length"):
        known.insert(0, min(generating.take_int("max_length") / frame_rate, _MAX_SECONDS))
    if extra.has("segment_duration"):
        known.insert(0, extra.take_float("segment_duration", above=0.0, high=_MAX_SECONDS))
    if chroma is None:
        return known[0]
    known.append(((chroma.num_frames - 1) * chroma.hop_length + 0.5) / chroma.sample_rate)
    return next((seconds for seconds in known if chroma.frames_of(seconds) == chroma.num_frames), known[0])


def _codec_name(extra: Section, config: Config) -> str | None:
    name = extra.take("trained_on", None) or config.get("audio_encoder._name_or_path")
    return name if isinstance(name, str) and _CODEC_NAME.fullmatch(name) else None


def _transformers_obstacles(model: LanguageModel, decoder: Section) -> Iterator[str]:
    if model.activation not in _ACTIVATIONS:
        yield f"decoder.activation_function is {model.activation}: AudioCraft has {' and '.join(_ACTIVATIONS)} only"
    if decoder.take_bool("scale_embedding", False):
        yield "decoder.scale_embedding is true: AudioCraft does not scale embeddings"
    if decoder.has("cross_attention_hidden_size"):
        yield "decoder.cross_attention_hidden_size is set: AudioCraft always projects the description"
    if model.dim % 2 or model.dim < 4:
        yield f"decoder.hidden_size is {model.dim}: AudioCraft has even numbers from 4 only"
    if model.stereo and model.n_q % 2:
        yield f"decoder.num_codebooks is {model.n_q}: two channels need an even number"
    chroma = model.chroma
    if chroma is None:
        return
    if chroma.num_chroma == model.dim:
        yield "num_chroma is decoder.hidden_size: AudioCraft always projects the chroma"
    if chroma.frames_of(model.max_duration) != chroma.num_frames:
        yield f"chroma_length is {chroma.num_frames}: no duration has so many windows of {chroma.n_fft} samples"


def _token_obstacles(model: LanguageModel, decoder: Section, generating: Section) -> Iterator[str]:
    for section, where in ((decoder, ""), (generating, "generation_config.json: ")):
        for key in ("pad_token_id", "bos_token_id", "decoder_start_token_id"):
            found = section.take(key, None)
            if found not in (None, model.card):
                found = str(found)[:40]
                yield f"{where}{section.name(key)} is {found}: in AudioCraft it is vocab_size, {model.card}"


def transformers_config(model: LanguageModel) -> dict[str, Any]:
    """transformers' configuration, without those of the text encoder and the codec."""
    kind = "musicgen" if model.chroma is None else "musicgen_melody"
    extra: dict[str, Any] = {
        "solver": model.kind,
        "segment_duration": model.max_duration,
        "trained_on": model.trained_on,
        "codec_fingerprint": model.codec_fingerprint,
    }
    melody: dict[str, Any] = {}
    if model.chroma is not None:
        extra["stored_window"] = model.chroma.stored_window
        melody = {"num_chroma": model.chroma.num_chroma, "chroma_length": model.chroma.num_frames}
    return {
        "architectures": [MODEL_CLASSES[kind]],
        "model_type": kind,
        "is_encoder_decoder": True,
        **melody,
        "decoder": {
            "model_type": f"{kind}_decoder",
            "vocab_size": model.card,
            "hidden_size": model.dim,
            "num_hidden_layers": model.num_layers,
            "num_attention_heads": model.num_heads,
            "ffn_dim": model.dim_feedforward,
            "num_codebooks": model.n_q,
            "audio_channels": 2 if model.stereo else 1,
            "activation_function": model.activation,
            "dropout": model.dropout,
            "activation_dropout": model.dropout,
            "attention_dropout": model.attention_dropout,
            "scale_embedding": False,
            "tie_word_embeddings": False,
            "pad_token_id": model.card,
            "bos_token_id": model.card,
        },
        EXTRA: extra,
    }


def generation_config(model: LanguageModel, frame_rate: int) -> dict[str, Any]:
    """How transformers generates where nothing else is said: as it does with the published models."""
    return {
        "bos_token_id": model.card,
        "pad_token_id": model.card,
        "decoder_start_token_id": model.card,
        "do_sample": True,
        "guidance_scale": model.guidance,
        "max_length": max(1, int(model.max_duration * frame_rate)),
    }


def preprocessor_config(model: LanguageModel, codec: Encodec) -> dict[str, Any]:
    """How transformers takes in audio: prompts for the codec, or melodies."""
    if model.chroma is None:
        return {
            "processor_class": "MusicgenProcessor",
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 2 if model.stereo else codec.channels,
            "sampling_rate": codec.sample_rate,
            "chunk_length_s": None,
            "overlap": None,
            "padding_side": "left",
            "padding_value": 0.0,
            "return_attention_mask": True,
        }
    seconds = math.ceil(model.max_duration)
    return {
        "processor_class": "MusicgenMelodyProcessor",
        "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
        "feature_size": model.chroma.num_chroma,
        "num_chroma": model.chroma.num_chroma,
        "sampling_rate": model.chroma.sample_rate,
        "n_fft": model.chroma.n_fft,
        "hop_length": model.chroma.hop_length,
        "chunk_length": seconds,
        "n_samples": seconds * model.chroma.sample_rate,
        "stem_indices": [3, 2],
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


# ------------------------------------------------------------------------------------------------------- tensors


def pairs(model: LanguageModel) -> list[Pair]:
    """Every tensor of the model, by both names; the text encoder and the codec have their own."""
    result = []
    for k in range(model.n_q):
        embedding = f"decoder.model.decoder.embed_tokens.{k}.weight"
        result.append(pair(f"emb.{k}.weight", embedding, model.card + 1, model.dim))
        result.append(pair(f"linears.{k}.weight", f"decoder.lm_heads.{k}.weight", model.card, model.dim))
    for i in range(model.num_layers):
        result += _layer(model, f"transformer.layers.{i}", f"decoder.model.decoder.layers.{i}")
    result += _norm(model, "out_norm", "decoder.model.decoder.layer_norm")
    if model.text_projection:
        result += _projection(TEXT_PROJECTION, "enc_to_dec_proj", model.dim, model.text_width)
    if model.chroma is not None:
        ours = f"{_CONDITIONERS}.{MELODY}.output_proj"
        result += _projection(ours, "audio_enc_to_dec_proj", model.dim, model.chroma.num_chroma)
    return result


def _layer(model: LanguageModel, ours: str, theirs: str) -> Iterator[Pair]:
    dim, hidden = model.dim, model.dim_feedforward
    blocks = [("self_attn", "self_attn", "norm1")]
    if model.chroma is None:
        blocks.append(("cross_attention", "encoder_attn", "norm_cross"))
    for attention, theirs_attention, norm in blocks:
        prefix = f"{ours}.{attention}" if model.flat_attention else f"{ours}.{attention}.mha"
        projections = tuple(f"{theirs}.{theirs_attention}.{name}_proj.weight" for name in "qkv")
        yield Pair(f"{prefix}.in_proj_weight", projections, (3 * dim, dim))
        yield pair(f"{prefix}.out_proj.weight", f"{theirs}.{theirs_attention}.out_proj.weight", dim, dim)
        yield from _norm(model, f"{ours}.{norm}", f"{theirs}.{theirs_attention}_layer_norm")
    yield pair(f"{ours}.linear1.weight", f"{theirs}.fc1.weight", hidden, dim)
    yield pair(f"{ours}.linear2.weight", f"{theirs}.fc2.weight", dim, hidden)
    yield from _norm(model, f"{ours}.norm2", f"{theirs}.final_layer_norm")


def _norm(model: LanguageModel, ours: str, theirs: str) -> Iterator[Pair]:
    for leaf in ("weight", "bias"):
        yield pair(f"{ours}.{leaf}", f"{theirs}.{leaf}", model.dim)


def _projection(ours: str, theirs: str, width: int, from_width: int) -> Iterator[Pair]:
    yield pair(f"{ours}.weight", f"{theirs}.weight", width, from_width)
    yield pair(f"{ours}.bias", f"{theirs}.bias", width)
