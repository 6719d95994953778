"""SNAC, a residual quantizer whose levels have rates of their own.

Siuzdak et al. 2024, "SNAC: Multi-Scale Neural Audio Codec", https://arxiv.org/abs/2410.14411.
"""

from __future__ import annotations

from collections.abc import Iterable

from codecbay.hookspecs import Backend, hookimpl
from codecbay_snac.backend import SnacBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``snac``."""
    return [SnacBackend()]
