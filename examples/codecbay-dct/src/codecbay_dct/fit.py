"""Fits the codebooks of a codec to recordings, and writes its package.

python -m codecbay_dct.fit DIR recordings/*.wav
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from codecbay.audio import convert_audio, read_audio
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from codecbay_dct.backend import DctConfig, tensor_name
from codecbay_dct.codec import coefficients, cosine_basis, nearest

_ROUNDS = 20  # of k-means
_TINY = 1e-12  # so that there is something to draw from where all rows are the same


def fit(recordings: Iterable[Tensor], config: DctConfig) -> list[Tensor]:
    """Codebooks ``[N, D]``, each fitted to what those before it leave over.

    Args:
        recordings: float ``[C, S]`` at the codec's sample rate, with its channels.
        config: of the codec.

    Raises:
        ValueError: there are fewer frames than entries in a codebook.
    """
    basis = cosine_basis(config.num_coefficients, config.frame_size)
    rows = torch.cat([coefficients(wav[None], basis)[0] for wav in recordings])
    if len(rows) < max(config.codebook_sizes):
        raise ValueError(f"{len(rows)} frames are too few for {max(config.codebook_sizes)} entries.")
    generator = torch.Generator().manual_seed(0)
    codebooks = []
    for size in config.codebook_sizes:
        codebooks.append(_k_means(rows, size, generator))
        rows = rows - F.embedding(nearest(rows, codebooks[-1]), codebooks[-1])
    return codebooks


def _k_means(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Entries ``[size, D]`` that rows ``[n, D]`` are near to.

    Arthur and Vassilvitskii 2007, "k-means++", tells how to start: from rows that are far from each other.
    """
    chosen: list[Tensor] = []
    distances = torch.ones(len(rows))
    for _ in range(size):
        chosen.append(rows[torch.multinomial(distances + _TINY, 1, generator=generator)])
        distances = distances.minimum((rows - chosen[-1]).square().sum(-1))
    entries = torch.cat(chosen)
    for _ in range(_ROUNDS):
        owners = nearest(rows, entries)
        counts = owners.bincount(minlength=size)[:, None]
        sums = torch.zeros_like(entries).index_add_(0, owners, rows)
        entries = torch.where(counts > 0, sums / counts.clamp(min=1), entries)
    return entries


def write_package(directory: Path, config: DctConfig, codebooks: Iterable[Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors``; half precision is more than enough for them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n")
    tensors = {tensor_name(k): codebook.half().contiguous() for k, codebook in enumerate(codebooks)}
    save_file(tensors, directory / "model.safetensors")


def notes(seconds: int, sample_rate: int) -> Tensor:
    """Plucked notes over noise, ``[1, S]``: something to fit to where there are no recordings."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(sample_rate // 4) / sample_rate
    parts = []
    for _ in range(4 * seconds):
        pitch, loudness, noisiness = torch.rand(3, generator=generator).tolist()
        harmonics = torch.arange(1, 13)[:, None]
        tones = (2 * torch.pi * 55 * 2 ** (4 * pitch) * harmonics * t).sin() / harmonics
        noise = 0.2 * noisiness * torch.randn(len(t), generator=generator)
        parts.append(loudness * (0.3 * tones.sum(0) * (-6 * t).exp() + noise))
    return torch.cat(parts)[None]


def main() -> None:
    """Read recordings, fit, write."""
    parser = argparse.ArgumentParser(description="Fit a codec to recordings, or to notes where none are given.")
    parser.add_argument("directory", type=Path, help="where the package is written")
    parser.add_argument("recordings", nargs="*", type=Path, help="sound files")
    parser.add_argument("--sample-rate", type=int, default=32_000, help="in Hz")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--frame-size", type=int, default=640, help="samples to a frame")
    parser.add_argument("--num-coefficients", type=int, default=160, help="lowest frequencies that are kept")
    parser.add_argument("--codebook-sizes", type=int, nargs="+", default=[64] * 4, help="entries of each codebook")
    parser.add_argument("--licence", default="unknown", help="of the codebooks")
    options = vars(parser.parse_args())
    directory, paths = options.pop("directory"), options.pop("recordings")
    config = DctConfig(**options | {"codebook_sizes": tuple(options["codebook_sizes"])})
    if paths:
        read = (read_audio(path) for path in paths)
        recordings = [convert_audio(wav, rate, config.sample_rate, config.channels) for wav, rate in read]
    else:
        recordings = [notes(60, config.sample_rate).expand(config.channels, -1)]
    write_package(directory, config, fit(recordings, config))


if __name__ == "__main__":
    main()
