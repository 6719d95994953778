"""codecbay: swap the neural audio codec under an audio language model.

Importing this package loads neither torch nor any plugin; names are brought in when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from codecbay.assembly import assemble as assemble
    from codecbay.codec import Codec as Codec
    from codecbay.codec import EncodedAudio as EncodedAudio
    from codecbay.compat import Report as Report
    from codecbay.errors import CodecbayError as CodecbayError
    from codecbay.errors import IncompatibleError as IncompatibleError
    from codecbay.factory import check as check
    from codecbay.factory import load as load
    from codecbay.factory import load_codec as load_codec
    from codecbay.generation import AudioGen as AudioGen
    from codecbay.generation import MusicGen as MusicGen
    from codecbay.hookspecs import Backend as Backend
    from codecbay.hookspecs import hookimpl as hookimpl
    from codecbay.spec import CodecSpec as CodecSpec
    from codecbay.spec import LMSpec as LMSpec

_EXPORTS = {
    "AudioGen": "generation",
    "Backend": "hookspecs",
    "Codec": "codec",
    "CodecSpec": "spec",
    "CodecbayError": "errors",
    "EncodedAudio": "codec",
    "IncompatibleError": "errors",
    "LMSpec": "spec",
    "MusicGen": "generation",
    "Report": "compat",
    "assemble": "assembly",
    "check": "factory",
    "hookimpl": "hookspecs",
    "load": "factory",
    "load_codec": "factory",
}

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
