"""The part of a trainer's configuration that shapes the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from codecbay.package import Header, Section
from codecbay.spec import CodecSpec

# The library's own, and the classes of torch.nn that take what it gives them, an alpha.
ACTIVATIONS = ("ELU", "CELU", "Snake")
MAX_WIDTH = 1 << 16  # no layer of a codec has more channels
MAX_REACH = 1 << 16  # steps that a layer may look to either side


@dataclass(frozen=True)
class SpeechTokenizerConfig:
    """What ``speechtokenizer.SpeechTokenizer`` reads of its configuration, by its names."""

    sample_rate: int
    n_filters: int
    strides: tuple[int, ...]
    dimension: int
    semantic_dimension: int
    n_residual_layers: int
    residual_kernel_size: int
    dilation_base: int
    lstm_layers: int
    bidirectional: bool
    activation: str
    n_q: int
    codebook_size: int

    @property
    def frame_size(self) -> int:
        """Samples to a frame."""
        return math.prod(self.strides)

    @property
    def spec(self) -> CodecSpec:
        """What the check compares."""
        return CodecSpec(
            sample_rate=self.sample_rate,
            channels=1,
            cardinalities=(self.codebook_size,) * self.n_q,
            frame_size=self.frame_size,
            frame_rate=Fraction(self.sample_rate, self.frame_size),
            num_codebooks=self.n_q,
            allowed_num_codebooks=tuple(range(1, self.n_q + 1)),
        )


def read_config(header: Header) -> SpeechTokenizerConfig:
    """The configuration of a directory.

    The trainer keeps its own settings in the same file; like the library, this ignores what does not shape the model.

    Raises:
        ConfigError: a value is missing, of the wrong kind or out of range, contradicts another, or contradicts the
            shape of a tensor.
    """
    section = header.config.top()
    config = SpeechTokenizerConfig(
        sample_rate=section.take_int("sample_rate", high=768_000),
        n_filters=section.take_int("n_filters", low=2, high=MAX_WIDTH),
        strides=section.take_rates("strides", low=1),
        dimension=section.take_int("dimension", high=MAX_WIDTH),
        semantic_dimension=section.take_int("semantic_dimension", high=MAX_WIDTH),
        n_residual_layers=section.take_int("n_residual_layers", low=0),
        residual_kernel_size=section.take_int("residual_kernel_size", high=MAX_REACH),
        dilation_base=section.take_int("dilation_base", high=MAX_REACH),
        lstm_layers=section.take_int("lstm_layers", 0, low=0),
        bidirectional=section.take_bool("bidirectional", False),
        activation=section.take_str("activation", choices=ACTIVATIONS),
        n_q=section.take_int("n_q", high=1024),
        codebook_size=section.take_int("codebook_size"),
    )
    if config.n_filters << len(config.strides) > MAX_WIDTH:
        raise section.error("n_filters", f"is {config.n_filters}, too much for {len(config.strides)} strides.")
    if config.bidirectional and not config.lstm_layers:
        raise section.error("bidirectional", "is true, but there is no LSTM to run both ways: lstm_layers is 0.")
    if config.frame_size > config.sample_rate:
        raise section.error("strides", f"makes frames of {config.frame_size} samples, longer than a second.")
    _compare_with_tensors(header, section, config)
    layers = config.n_residual_layers  # of which there are no more than there are tensors
    if layers and (config.residual_kernel_size - 1) * config.dilation_base ** (layers - 1) > MAX_REACH:
        raise section.error("dilation_base", f"is {config.dilation_base}, too much for {layers} residual layers.")
    return config


def _compare_with_tensors(header: Header, section: Section, config: SpeechTokenizerConfig) -> None:
    """Compare sizes with the encoder and the quantizer, whose sizes those of the decoder follow from."""
    stored = sum(_codebook(i) in header.tensors for i in range(len(header.tensors)))
    if stored != config.n_q:
        raise section.error("n_q", f"is {config.n_q}, but the package holds {stored} codebooks.")
    compare = partial(header.check_shape, section)
    for i in range(stored):
        compare(_codebook(i), (config.codebook_size, config.dimension), "codebook_size", "dimension")
    if config.semantic_dimension != config.dimension:
        compare("transform.weight", (config.semantic_dimension, config.dimension), "semantic_dimension")

    def convolution(place: int, part: str = "") -> str:
        return f"encoder.model.{place}.{part}conv.conv.weight_v"

    width, place = config.n_filters, 1
    compare(convolution(0), (width, 1, 7), "n_filters")
    for stride in reversed(config.strides):
        for _ in range(config.n_residual_layers):
            kernel = (width // 2, width, config.residual_kernel_size)
            compare(convolution(place, "block.1."), kernel, *["n_residual_layers"] * 2, "residual_kernel_size")
            place += 1
        compare(convolution(place + 1), (2 * width, width, 2 * stride), *["strides"] * 3)
        width, place = 2 * width, place + 2
    directions = 1 + config.bidirectional
    for layer in range(config.lstm_layers):
        shape = (4 * width, width if layer == 0 else directions * width)
        compare(f"encoder.model.{place}.lstm.weight_ih_l{layer}", shape, "lstm_layers", "bidirectional")
    place += config.lstm_layers > 0
    compare(convolution(place + 1), (config.dimension, directions * width, 7), "dimension", "bidirectional")


def _codebook(i: int) -> str:
    return f"quantizer.vq.layers.{i}._codebook.embed"
