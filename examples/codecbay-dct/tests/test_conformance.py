"""The codec keeps the promises of every codec: the one that comes with the plugin, and one of another shape."""

from __future__ import annotations

from pathlib import Path

import torch
from codecbay.testing import conformance_tests

from codecbay_dct.backend import DctConfig
from codecbay_dct.fit import write_package

STEREO = DctConfig(
    sample_rate=24_000, channels=2, frame_size=480, num_coefficients=24, codebook_sizes=(32, 16, 5), licence="CC0-1.0"
)


def random_package(directory: Path) -> Path:
    """Write a package with random codebooks."""
    generator = torch.Generator().manual_seed(0)
    codebooks = [torch.randn(size, STEREO.width, generator=generator) for size in STEREO.codebook_sizes]
    write_package(directory, STEREO, codebooks)
    return directory


test_published = conformance_tests("dct-32khz")
test_stereo = conformance_tests(random_package(Path(__file__).parent / "package"))
