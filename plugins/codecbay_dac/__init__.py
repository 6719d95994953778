"""Descript Audio Codec: the ``.pth`` files that descript publishes, and those that its trainer saves.

Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN", https://arxiv.org/abs/2306.06546.
"""

from __future__ import annotations

from collections.abc import Iterable

from codecbay.hookspecs import Backend, hookimpl
from codecbay_dac.backend import DacBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``dac``."""
    return [DacBackend()]
