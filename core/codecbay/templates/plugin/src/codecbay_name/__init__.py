"""The codec NAME, as a plugin of codecbay."""

from __future__ import annotations

from collections.abc import Iterable

from codecbay import Backend, hookimpl

from codecbay_name.backend import NAMEBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``NAME``."""
    return [NAMEBackend()]
