"""The arguments of descript's model, as they lie in a file's ``metadata.kwargs``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from codecbay.package import Header, Section
from codecbay.spec import CodecSpec

MAX_WIDTH = 1 << 16  # no layer of a codec has more channels


@dataclass(frozen=True)
class DacConfig:
    """The arguments of ``dac.DAC`` that shape the model, by its names."""

    encoder_dim: int
    encoder_rates: tuple[int, ...]
    latent_dim: int
    decoder_dim: int
    decoder_rates: tuple[int, ...]
    n_codebooks: int
    codebook_size: int
    codebook_dims: tuple[int, ...]
    sample_rate: int

    @property
    def hop_length(self) -> int:
        """Samples to a frame."""
        return math.prod(self.encoder_rates)

    @property
    def spec(self) -> CodecSpec:
        """What the check compares."""
        return CodecSpec(
            sample_rate=self.sample_rate,
            channels=1,
            cardinalities=(self.codebook_size,) * self.n_codebooks,
            frame_size=self.hop_length,
            frame_rate=Fraction(self.sample_rate, self.hop_length),
            num_codebooks=self.n_codebooks,
            allowed_num_codebooks=tuple(range(1, self.n_codebooks + 1)),
            chunked_tolerance=0.0,
        )


def read_config(header: Header) -> DacConfig:
    """The arguments in a file's metadata.

    What is absent has the default of ``dac.DAC``; what it does not know is ignored, as descript's loader does.

    Raises:
        ConfigError: a value is of the wrong kind or out of range, contradicts another, or contradicts the shape of
            a tensor.
    """
    section = header.config.top()
    encoder_dim = section.take_int("encoder_dim", 64, high=MAX_WIDTH)
    encoder_rates = section.take_rates("encoder_rates", (2, 4, 8, 8))
    width = encoder_dim << len(encoder_rates)
    n_codebooks = section.take_int("n_codebooks", 9, high=1024)
    config = DacConfig(
        encoder_dim=encoder_dim,
        encoder_rates=encoder_rates,
        latent_dim=section.take_optional_int("latent_dim", high=MAX_WIDTH) or width,
        decoder_dim=section.take_int("decoder_dim", 1536, high=MAX_WIDTH),
        decoder_rates=section.take_rates("decoder_rates", (8, 8, 4, 2)),
        n_codebooks=n_codebooks,
        codebook_size=section.take_int("codebook_size", 1024),
        codebook_dims=_codebook_dims(section, n_codebooks),
        sample_rate=section.take_int("sample_rate", 44_100, high=768_000),
    )
    if width > MAX_WIDTH:
        raise section.error("encoder_dim", f"is {encoder_dim}, too much for {len(encoder_rates)} rates.")
    if config.decoder_dim >> len(config.decoder_rates) < 1:
        raise section.error(
            "decoder_dim", f"is {config.decoder_dim}, too little for {len(config.decoder_rates)} rates."
        )
    if math.prod(config.decoder_rates) != config.hop_length:
        raise section.error(
            "decoder_rates",
            f"makes {math.prod(config.decoder_rates)} samples of a frame, but encoder_rates {config.hop_length}.",
        )
    if config.hop_length > config.sample_rate:
        raise section.error("encoder_rates", f"makes frames of {config.hop_length} samples, longer than a second.")
    _compare_with_tensors(header, section, config)
    return config


def _codebook_dims(section: Section, n_codebooks: int) -> tuple[int, ...]:
    """The width of each codebook: one number for all, or one for each."""
    if not isinstance(section.take("codebook_dim", 8), (list, tuple)):
        return (section.take_int("codebook_dim", 8, high=MAX_WIDTH),) * n_codebooks
    dims = section.take_ints("codebook_dim", high=MAX_WIDTH)
    if len(dims) != n_codebooks:
        raise section.error("codebook_dim", f"has {len(dims)} widths, but there are {n_codebooks} codebooks.")
    return dims


def _compare_with_tensors(header: Header, section: Section, config: DacConfig) -> None:
    stored = sum(_codebook(i) in header.tensors for i in range(len(header.tensors)))
    if stored != config.n_codebooks:
        raise section.error("n_codebooks", f"is {config.n_codebooks}, but the package holds {stored} codebooks.")

    compare = partial(header.check_shape, section)
    for i, dim in enumerate(config.codebook_dims):
        compare(_codebook(i), (config.codebook_size, dim), "codebook_size", "codebook_dim")
    compare("encoder.block.0.weight_v", (config.encoder_dim, 1, 7), "encoder_dim")
    for i, rate in enumerate(config.encoder_rates):
        width = config.encoder_dim << i
        compare(f"encoder.block.{i + 1}.block.4.weight_v", (2 * width, width, 2 * rate), *["encoder_rates"] * 3)
    last = len(config.encoder_rates) + 2
    compare(f"encoder.block.{last}.weight_v", (config.latent_dim, 2 * width, 3), "latent_dim", "encoder_rates")
    compare("decoder.model.0.weight_v", (config.decoder_dim, config.latent_dim, 7), "decoder_dim", "latent_dim")
    for i, rate in enumerate(config.decoder_rates):
        widths = (config.decoder_dim >> i, config.decoder_dim >> (i + 1))
        compare(f"decoder.model.{i + 1}.block.1.weight_v", (*widths, 2 * rate), *["decoder_rates"] * 3)


def _codebook(i: int) -> str:
    return f"quantizer.quantizers.{i}.codebook.weight"
