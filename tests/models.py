"""Codecs, models and signals for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import codecbay
from codecbay.codec import Codec

FIXTURES = Path(__file__).parent / "fixtures"
TEXT_ENCODER = FIXTURES / "tiny-t5"
SHARED_CODEC = FIXTURES / "options" / "shared-codec"
TRANSFORMERS = [  # packages whose transformers differ; step by step, all compute what they compute in one go
    "scales",  # sin
    "qknorm-rope",
    "qknorm-cross",
    "kvrepeat-custom",
    "past8-rope",
    "past8-sinrope-kvrepeat",
    "postnorm-layerscale",
    "mha-biases-float32",
    "mha-postnorm",
    "odd-sizes-relu",
    "lut-sum",
    "unconditional",
    "fuse-twice",  # prepended
]


def package(name: str) -> Path:
    """The directory of a package of fixtures."""
    return next(path for path in (FIXTURES / "audiocraft" / name, FIXTURES / "options" / name) if path.is_dir())


def load_codec(name: str, **options: Any) -> Codec:
    """A codec of the fixtures, on the CPU."""
    return codecbay.load_codec(package(name), device="cpu", **options)


def load_model(name: str, **options: Any) -> Any:
    """A model of the fixtures, on the CPU by default, over the shared codec where it has none of its own."""
    directory = package(name)
    options.setdefault("device", "cpu")
    if not (directory / "compression_state_dict.bin").exists():
        options.setdefault("codec", SHARED_CODEC)
    return codecbay.load(directory, text_encoder=TEXT_ENCODER, **options)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """A noisy waveform, the same for the same seed."""
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
