"""AudioCraft's own EnCodec: SEANet encoder and decoder around a residual vector quantizer.

Défossez et al. 2022, "High Fidelity Neural Audio Compression", https://arxiv.org/abs/2210.13438.
"""

from __future__ import annotations

from collections.abc import Iterable

from codecbay.hookspecs import Backend, hookimpl
from codecbay_encodec.backend import EncodecBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``encodec``."""
    return [EncodecBackend()]
