"""Conditions: from descriptions and melodies to the tensors that the transformer sees.

Letters: ``B`` batch, ``T`` steps of a condition, ``D`` width of the model, ``C`` channels, ``S`` samples.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.errors import ConfigError, GenerationError, PluginError, UnresolvedReferenceError, nearest
from codecbay.lm.chroma import ChromaExtractor, StemSeparator
from codecbay.lm.config import ConditionerConfig, FuserConfig
from codecbay.lm.text import NoopTokenizer, Words, WordTokenizer, load_t5, spacy_words
from codecbay.lm.transformer import sinusoidal_embedding
from codecbay.package import Section

Condition = tuple[Tensor, Tensor]  # embedding [B, T, D], mask [B, T]
ConditionTensors = dict[str, Condition]


@dataclass
class WavCondition:
    """A melody: ``wav`` ``[1, C, S]`` at ``sample_rate`` Hz, of which ``length`` samples count."""

    wav: Tensor
    length: int
    sample_rate: int

    @classmethod
    def none(cls, sample_rate: int) -> WavCondition:
        """The absence of a melody."""
        return cls(torch.zeros(1, 1, 1), 0, sample_rate)


@dataclass
class ConditioningAttributes:
    """What one item of a batch is conditioned on, by the name of the conditioner."""

    text: dict[str, str | None] = field(default_factory=dict)
    wav: dict[str, WavCondition] = field(default_factory=dict)

    def without(self, kind: str, name: str) -> ConditioningAttributes:
        """The same with one condition dropped."""
        if kind == "text":
            return ConditioningAttributes({**self.text, name: None}, self.wav)
        none = WavCondition.none(self.wav[name].sample_rate)
        return ConditioningAttributes(self.text, {**self.wav, name: none})

    def null(self) -> ConditioningAttributes:
        """The same with every condition dropped, for classifier-free guidance."""
        result = self
        for name in self.text:
            result = result.without("text", name)
        for name in self.wav:
            result = result.without("wav", name)
        return result


@dataclass(frozen=True)
class ConditionerContext:
    """What a conditioner may need to know beside its own arguments.

    Attributes:
        name: of the conditioner in its model.
        output_dim: width of the model.
        max_duration: of a segment, in seconds.
        tensor_shapes: of the conditioner's own tensors in the package, by their names within it.
        text_encoder: path or name of the text encoder that the configuration calls ``name``, for T5.
    """

    name: str
    output_dim: int
    max_duration: float
    tensor_shapes: Mapping[str, tuple[int, ...]]
    text_encoder: Any


class ConditionerFactory(Protocol):
    """Builds conditioners of one kind; plugins may bring more through ``codecbay_conditioners``."""

    name: str

    def build(self, arguments: Section, context: ConditionerContext) -> Conditioner:
        """A conditioner from its section of the configuration."""
        ...


class Conditioner(nn.Module):
    """Base class: from a batch of inputs to an embedding ``[B, T, D]`` and its mask ``[B, T]``.

    Args:
        dim: width of the inner embedding.
        output_dim: width of the model.
    """

    kind: str

    def __init__(self, dim: int, output_dim: int) -> None:
        super().__init__()
        self.output_proj = nn.Linear(dim, output_dim)

    @property
    def device(self) -> torch.device:
        """Where the embedding is computed."""
        return self.output_proj.weight.device


class TextConditioner(Conditioner):
    """A conditioner on text."""

    kind = "text"

    def forward(self, texts: Sequence[str | None]) -> Condition:
        """Embed texts; ``None`` is the absence of one."""
        raise NotImplementedError


class LUTConditioner(TextConditioner):
    """Looks words, or whole texts, up in a table."""

    def __init__(self, num_bins: int, dim: int, output_dim: int, tokenizer: NoopTokenizer | WordTokenizer) -> None:
        super().__init__(dim, output_dim)
        self.embed = nn.Embedding(num_bins, dim)
        self.tokenizer = tokenizer

    def forward(self, texts: Sequence[str | None]) -> Condition:
        """Embed texts."""
        tokens, mask = (x.to(self.device) for x in self.tokenizer(texts))
        return self.output_proj(self.embed(tokens)) * mask.unsqueeze(-1), mask


class T5Conditioner(TextConditioner):
    """Encodes descriptions with T5.

    The encoder belongs to the model's state only where it was fine-tuned with it.
    """

    def __init__(
        self,
        tokenizer: Any,
        encoder: Any,
        output_dim: int,
        *,
        finetune: bool = False,
        word_dropout: float = 0.0,
        words: Words | None = None,
    ) -> None:
        super().__init__(encoder.config.d_model, output_dim)
        self.t5_tokenizer = tokenizer
        self.finetune = finetune
        self.word_dropout = word_dropout
        self.words = words
        if finetune:
            self.t5 = encoder
        else:
            self.__dict__["t5"] = encoder  # out of sight of state_dict() and parameters()

    def forward(self, texts: Sequence[str | None]) -> Condition:
        """Encode texts."""
        entries = [text or "" for text in texts]
        if self.words is not None:
            entries = [" ".join(self.words(entry)) for entry in entries]
        if self.training and self.word_dropout:
            kept = ([w for w in entry.split(" ") if random.random() >= self.word_dropout] for entry in entries)
            entries = [" ".join(words) for words in kept]
        inputs = self.t5_tokenizer(entries, return_tensors="pt", padding=True)
        mask = inputs["attention_mask"]
        mask[[i for i, entry in enumerate(entries) if not entry]] = 0
        if self.t5.device != self.device:
            self.t5.to(self.device)
        mask = mask.to(self.device)
        # Also in generation, as in AudioCraft: with gradients torch takes another attention kernel, and its
        # rounding can tip a sampled token.
        with torch.set_grad_enabled(self.finetune):
            encoded = self.t5(input_ids=inputs["input_ids"].to(self.device), attention_mask=mask).last_hidden_state
        return self.output_proj(encoded.to(self.output_proj.weight)) * mask.unsqueeze(-1), mask


class ChromaConditioner(Conditioner):
    """Conditions on the chromagram of a melody, repeated or cut to the length seen in training."""

    kind = "wav"

    def __init__(self, chroma: ChromaExtractor, output_dim: int, duration: float) -> None:
        super().__init__(chroma.n_chroma, output_dim)
        self.chroma = chroma
        self.num_frames = chroma.num_frames(int(chroma.sample_rate * duration))
        self.separate = StemSeparator()

    def forward(self, wavs: Tensor, sample_rate: int) -> Condition:
        """Embed melodies ``[B, 1, S]``; a single sample is the absence of one."""
        with torch.no_grad():
            wavs = wavs.to(self.device, torch.float32)
            if wavs.shape[-1] > 1:
                wavs = self.separate(wavs, sample_rate, self.chroma.sample_rate)
            chroma = self.chroma(wavs)
            repeats = -(-self.num_frames // chroma.shape[1])
            chroma = chroma.repeat(1, repeats, 1)[:, : self.num_frames]
        embedding = self.output_proj(chroma.to(self.output_proj.weight))
        return embedding, torch.ones_like(embedding[..., 0])


class ConditioningProvider(nn.Module):
    """All conditioners of a model, by name."""

    def __init__(self, conditioners: Mapping[str, Conditioner]) -> None:
        super().__init__()
        try:
            self.conditioners = nn.ModuleDict(dict(conditioners))
        except KeyError as error:  # a name that modules have a use for, such as 'training'
            raise ConfigError(f"A conditioner cannot have this name: {error}") from None

    def names(self, kind: str) -> list[str]:
        """The conditioners on ``text`` or ``wav``."""
        return [name for name, module in self.conditioners.items() if module.kind == kind]

    def forward(self, attributes: Sequence[ConditioningAttributes]) -> ConditionTensors:
        """The conditions of a batch. What an item does not mention counts as absent.

        Raises:
            UnresolvedReferenceError: an item is conditioned on something the model does not know.
        """
        texts, wavs = self.names("text"), self.names("wav")
        result: ConditionTensors = {}
        for name in texts:
            result[name] = self.conditioners[name]([item.text.get(name) for item in attributes])
        for name in wavs:
            result[name] = self.conditioners[name](*self._collate([item.wav.get(name) for item in attributes]))
        return result

    def _collate(self, items: Sequence[WavCondition | None]) -> tuple[Tensor, int]:
        rates = {item.sample_rate for item in items if item is not None and item.length} or {1}
        if len(rates) > 1:
            raise GenerationError(f"The melodies of a batch need one sample rate, found {sorted(rates)}.")
        waves = [(item or WavCondition.none(0)).wav.mean(1).flatten() for item in items]
        longest = max(len(wave) for wave in waves)
        device = next(self.parameters()).device
        batch = torch.stack([F.pad(wave.to(device), (0, longest - len(wave))) for wave in waves])
        return batch[:, None], rates.pop()


class Fuser:
    """Brings conditions into the transformer: added, interpolated, put in front, or attended to."""

    def __init__(self, config: FuserConfig) -> None:
        self.config = config

    def prefix_length(self, conditions: ConditionTensors) -> int:
        """Steps that conditions take in front of a sequence."""
        return sum(x.shape[1] for name, (x, _) in conditions.items() if self.config.method_of(name) == "prepend")

    def __call__(self, x: Tensor, conditions: ConditionTensors, *, first: bool) -> tuple[Tensor, Tensor | None]:
        """Fuse conditions into a chunk of a sequence.

        Args:
            x: embedded steps ``[B, T, D]``.
            conditions: of the whole sequence.
            first: the chunk starts the sequence: conditions are put in front of it, and those to attend to are
                returned (later chunks remember them).

        Returns:
            The steps, and the conditions to attend to ``[B, T, D]`` or ``None``.
        """
        crossed: list[Tensor] = []
        for name, (condition, _) in conditions.items():
            match self.config.method_of(name):
                case "sum":
                    x = x + condition
                case "input_interpolate":
                    x = x + F.interpolate(condition.transpose(1, 2), size=x.shape[1]).transpose(1, 2)
                case "prepend" if first:
                    x = torch.cat([condition, x], dim=1)
                case "cross" if first:
                    crossed.append(condition)
        if not crossed:
            return x, None
        cross = torch.cat(crossed, dim=1)
        if self.config.cross_attention_pos_emb:
            positions = torch.arange(cross.shape[1], device=cross.device)
            embedding = sinusoidal_embedding(positions, cross.shape[2])
            cross = cross + self.config.cross_attention_pos_emb_scale * embedding.to(cross.dtype)
        return x, cross


# ---------------------------------------------------------------------------------------------- built-in kinds


class _T5Factory:
    name = "t5"

    def build(self, arguments: Section, context: ConditionerContext) -> Conditioner:
        arguments.take("autocast_dtype", None)
        arguments.take_str("name")
        finetune = arguments.take_bool("finetune", False)
        word_dropout = arguments.take_float("word_dropout", 0.0, low=0.0, high=1.0)
        normalize = arguments.take_bool("normalize_text", False)
        arguments.finish()
        words = spacy_words(what=f"The conditioner '{context.name}' normalizes text: it") if normalize else None
        tokenizer, encoder = load_t5(context.text_encoder, weights=not finetune)
        expected = context.tensor_shapes.get("output_proj.weight", (0, 0))[-1]
        if expected and encoder.config.d_model != expected:
            raise UnresolvedReferenceError(
                f"The text encoder '{context.text_encoder}' is {encoder.config.d_model} wide, but the language model "
                f"was trained with one of width {expected}. Name another with text_encoder=."
            )
        with torch.device("meta"):
            return T5Conditioner(
                tokenizer,
                encoder,
                context.output_dim,
                finetune=finetune,
                word_dropout=word_dropout,
                words=words,
            )


class _LUTFactory:
    name = "lut"

    def build(self, arguments: Section, context: ConditionerContext) -> Conditioner:
        num_bins = arguments.take_int("n_bins")
        dim = arguments.take_int("dim")
        kind = arguments.take_str("tokenizer", choices=("whitespace", "noop"))
        pad = arguments.take_int("pad_idx", 0, low=0, high=num_bins - 1)
        arguments.finish()
        tokenizer: NoopTokenizer | WordTokenizer
        if kind == "noop":
            tokenizer = NoopTokenizer(num_bins, pad)
        else:
            tokenizer = WordTokenizer(num_bins, pad, spacy_words(what=f"The conditioner '{context.name}'"))
        with torch.device("meta"):
            return LUTConditioner(num_bins, dim, context.output_dim, tokenizer)


class _ChromaFactory:
    name = "chroma_stem"

    def build(self, arguments: Section, context: ConditionerContext) -> Conditioner:
        for key in ("cache_path", "eval_wavs", "n_eval_wavs"):  # of use in training alone
            arguments.take(key, None)
        arguments.take_bool("match_len_on_eval", True)  # generation always matches the length
        window = {key: arguments.take_optional_int(key, low=4, high=1 << 20) for key in ("nfft", "winlen", "winhop")}
        with torch.device("meta"):
            chroma = ChromaExtractor(
                sample_rate=arguments.take_int("sample_rate", high=768_000),
                n_chroma=arguments.take_int("n_chroma", high=1024),
                radix2_exp=arguments.take_int("radix2_exp", low=2, high=20),
                argmax=arguments.take_bool("argmax", False),
                norm=_norm(arguments),
                stored_window="chroma.spec.window" in context.tensor_shapes,
                **window,
            )
            result = ChromaConditioner(chroma, context.output_dim, context.max_duration)
        arguments.finish()
        if chroma.winlen > chroma.nfft:
            raise arguments.error("winlen", f"is {chroma.winlen}, more than the {chroma.nfft} points of nfft.")
        if result.num_frames > 1 << 20:
            raise arguments.error("winhop", f"is {chroma.winhop}: {result.num_frames} frames of chroma a segment.")
        return result


def _norm(arguments: Section) -> float:
    value = arguments.take("norm", float("inf"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise arguments.error("norm", "should be a number above 0.")
    return float(value)


def build_conditioner(
    config: ConditionerConfig, context: ConditionerContext, others: Sequence[ConditionerFactory] = ()
) -> Conditioner:
    """Build a conditioner of a built-in kind, or of a kind that a plugin brings.

    Raises:
        ConfigError: the kind is not known, or its arguments are wrong.
        PluginError: a plugin's kind builds something else.
    """
    factories: dict[str, ConditionerFactory] = {f.name: f for f in others}
    factories |= {f.name: f for f in (_T5Factory(), _LUTFactory(), _ChromaFactory())}
    factory = factories.get(config.model)
    if factory is None:
        raise ConfigError(
            f"The conditioner '{context.name}' is of the kind {config.model!r}, which is not supported; "
            f"known are {', '.join(sorted(factories))}.{nearest(config.model, factories)}"
        )
    built = factory.build(config.arguments, context)
    if not isinstance(built, Conditioner):
        raise PluginError(
            f"The conditioner kind '{factory.name}' built {type(built).__name__}, which is no Conditioner."
        )
    return built
