"""SNAC's configuration, and the uniform streams that its levels make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from codecbay.package import Header, Section
from codecbay.spec import CodecSpec

MAX_WIDTH = 1 << 16  # no layer of a codec has more channels
MAX_STREAMS = 1024
MAX_WINDOW = 5  # seconds that attention may take at once
HEAD_WIDTH = 64  # of the library's attention, whatever the width of the layer


@dataclass(frozen=True)
class SnacConfig:
    """The arguments of ``snac.SNAC``, by its names."""

    sampling_rate: int
    encoder_dim: int
    encoder_rates: tuple[int, ...]
    decoder_dim: int
    decoder_rates: tuple[int, ...]
    attn_window_size: int | None
    codebook_size: int
    codebook_dim: int
    vq_strides: tuple[int, ...]
    noise: bool
    depthwise: bool

    @property
    def latent_dim(self) -> int:
        """Width of the latent."""
        return self.encoder_dim << len(self.encoder_rates)

    @property
    def frame_size(self) -> int:
        """Samples to a frame: to a code of the coarsest level."""
        return math.prod(self.encoder_rates) * max(self.vq_strides)

    @property
    def streams(self) -> tuple[int, ...]:
        """Streams of each level: codes that it has in a frame."""
        return tuple(max(self.vq_strides) // stride for stride in self.vq_strides)

    @property
    def whole_frames(self) -> int:
        """Frames that fill whole windows of attention: encoder and decoder take no others."""
        coarsest = max(self.vq_strides)
        return math.lcm(coarsest, self.attn_window_size or 1) // coarsest

    @property
    def reach(self) -> int:
        """Frames to either side that a frame depends on, at most: 48 steps of convolutions, a window of attention."""
        return -(-(48 + (self.attn_window_size or 0)) // max(self.vq_strides)) + 1

    @property
    def spec(self) -> CodecSpec:
        """What the check compares."""
        counts = tuple(accumulate(self.streams))
        return CodecSpec(
            sample_rate=self.sampling_rate,
            channels=1,
            cardinalities=(self.codebook_size,) * counts[-1],
            frame_size=self.frame_size,
            frame_rate=Fraction(self.sampling_rate, self.frame_size),
            num_codebooks=counts[-1],
            allowed_num_codebooks=counts,
            chunked_tolerance=0.0,
        )


def read_config(header: Header) -> SnacConfig:
    """The configuration of a directory; what is absent has the default of ``snac.SNAC``.

    Raises:
        ConfigError: a value is unknown, of the wrong kind or out of range, contradicts another, or contradicts the
            shape of a tensor.
    """
    section = header.config.top()
    section.take("model_type", None)
    encoder_dim = section.take_int("encoder_dim", 64, high=MAX_WIDTH)
    latent_dim = section.take_optional_int("latent_dim")
    window = section.take("attn_window_size", 32)
    config = SnacConfig(
        sampling_rate=section.take_int("sampling_rate", 44_100, high=768_000),
        encoder_dim=encoder_dim,
        encoder_rates=section.take_rates("encoder_rates", (3, 3, 7, 7)),
        decoder_dim=section.take_int("decoder_dim", 1536, high=MAX_WIDTH),
        decoder_rates=section.take_rates("decoder_rates", (7, 7, 3, 3)),
        attn_window_size=None if window is None else section.take_int("attn_window_size", 32, high=1 << 12),
        codebook_size=section.take_int("codebook_size", 4096),
        codebook_dim=section.take_int("codebook_dim", 8, high=MAX_WIDTH),
        vq_strides=_strides(section),
        noise=section.take_bool("noise", True),
        depthwise=section.take_bool("depthwise", True),
    )
    section.finish()
    if config.latent_dim > MAX_WIDTH:
        raise section.error("encoder_dim", f"is {encoder_dim}, too much for {len(config.encoder_rates)} rates.")
    if latent_dim not in (None, config.latent_dim):
        raise section.error("latent_dim", f"is {latent_dim}, but the encoder ends with {config.latent_dim}.")
    if config.decoder_dim >> len(config.decoder_rates) < 1:
        raise section.error(
            "decoder_dim", f"is {config.decoder_dim}, too little for {len(config.decoder_rates)} rates."
        )
    if config.attn_window_size is not None:
        for key, width in (("encoder_dim", config.latent_dim), ("decoder_dim", config.decoder_dim)):
            if width % HEAD_WIDTH:
                raise section.error(key, f"makes attention {width} wide, which is no multiple of {HEAD_WIDTH}.")
    decoded, encoded = math.prod(config.decoder_rates), math.prod(config.encoder_rates)
    if decoded != encoded:
        raise section.error("decoder_rates", f"makes {decoded} samples of a step, but encoder_rates {encoded}.")
    if config.frame_size > config.sampling_rate:
        raise section.error("encoder_rates", f"makes frames of {config.frame_size} samples, longer than a second.")
    if config.frame_size * config.whole_frames > MAX_WINDOW * config.sampling_rate:
        raise section.error(
            "attn_window_size",
            f"is {config.attn_window_size}, so that only every {config.whole_frames} frames fill whole windows: "
            f"longer than {MAX_WINDOW} s.",
        )
    _compare_with_tensors(header, section, config)
    return config


def _strides(section: Section) -> tuple[int, ...]:
    strides = section.take_ints("vq_strides", (8, 4, 2, 1), high=MAX_STREAMS)
    if not strides or any(max(strides) % stride for stride in strides):
        raise section.error("vq_strides", f"is {list(strides)[:20]}; every stride has to divide the largest.")
    if sum(max(strides) // stride for stride in strides) > MAX_STREAMS:
        raise section.error("vq_strides", f"makes more than {MAX_STREAMS} codes of a frame.")
    return strides


def _compare_with_tensors(header: Header, section: Section, config: SnacConfig) -> None:
    stored = sum(_codebook(i) in header.tensors for i in range(len(header.tensors)))
    if stored != len(config.vq_strides):
        raise section.error("vq_strides", f"has {len(config.vq_strides)} levels, but the package {stored} codebooks.")
    for i in range(stored):
        shape = (config.codebook_size, config.codebook_dim)
        header.check_shape(section, _codebook(i), shape, "codebook_size", "codebook_dim")

    def compare(name: str, shape: tuple[int, ...], *keys: str) -> None:
        stored_as = next((name + end for end in DIRECTIONS if name + end in header.tensors), name + DIRECTIONS[0])
        header.check_shape(section, stored_as, shape, *keys)

    compare("encoder.block.0", (config.encoder_dim, 1, 7), "encoder_dim")
    for i, rate in enumerate(config.encoder_rates):
        width = config.encoder_dim << i
        compare(f"encoder.block.{i + 1}.block.4", (2 * width, width, 2 * rate), *["encoder_rates"] * 3)
    first = config.depthwise
    compare(
        f"decoder.model.{int(first)}", (config.decoder_dim, config.latent_dim, 1 if first else 7), *["decoder_dim"] * 3
    )
    start = 1 + first + (config.attn_window_size is not None)
    for i, rate in enumerate(config.decoder_rates):
        widths = (config.decoder_dim >> i, config.decoder_dim >> (i + 1))
        compare(f"decoder.model.{start + i}.block.1", (*widths, 2 * rate), *["decoder_rates"] * 3)


# A convolution's weight is stored as direction and length, by torch's names of today or of before 2.0.
DIRECTIONS = (".parametrizations.weight.original1", ".weight_v")
LENGTHS = (".parametrizations.weight.original0", ".weight_g")


def _codebook(i: int) -> str:
    return f"quantizer.quantizers.{i}.codebook.weight"
