"""Codecs of the transformers library: EnCodec, DAC, Mimi, X-Codec, X-Codec2, NeuCodec and Higgs Audio v2."""

from __future__ import annotations

from collections.abc import Iterable

from codecbay.hookspecs import Backend, hookimpl
from codecbay_transformers.backend import TransformersBackend

CODECBAY_API = 1


@hookimpl
def codecbay_backends() -> Iterable[Backend]:
    """The back-end ``transformers``."""
    return [TransformersBackend()]
