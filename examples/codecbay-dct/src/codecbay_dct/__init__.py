"""A codec without a neural network: a cosine transform of each frame, and residual codebooks fitted by k-means.

At the bit rate of a neural codec it shows what the network is worth, and how a language model sounds over plain numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from codecbay import Backend, hookimpl

from codecbay_dct.backend import DctBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``dct``."""
    return [DctBackend()]


@hookimpl
def codecbay_registry() -> Iterable[Path]:
    """The codec that comes with this plugin, ``dct-32khz``."""
    return [Path(__file__).with_name("registry.toml")]
