"""codecbay: swap the neural audio codec under an audio language model.

Importing this package loads neither torch nor any plugin; names are brought in when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from codecbay.assembly import assemble as assemble
    from codecbay.audio import check_waveform as check_waveform
    from codecbay.codec import Codec as Codec
    from codecbay.codec import EncodedAudio as EncodedAudio
    from codecbay.compat import Report as Report
    from codecbay.errors import AudioError as AudioError
    from codecbay.errors import CodecbayError as CodecbayError
    from codecbay.errors import CodeRangeError as CodeRangeError
    from codecbay.errors import ConfigError as ConfigError
    from codecbay.errors import GenerationError as GenerationError
    from codecbay.errors import IncompatibleError as IncompatibleError
    from codecbay.errors import MissingDependencyError as MissingDependencyError
    from codecbay.errors import PackageError as PackageError
    from codecbay.errors import PluginError as PluginError
    from codecbay.errors import WeightsError as WeightsError
    from codecbay.export import export_codec as export_codec
    from codecbay.export import export_lm as export_lm
    from codecbay.export import export_pretrained_codec as export_pretrained_codec
    from codecbay.factory import check as check
    from codecbay.factory import download as download
    from codecbay.factory import load as load
    from codecbay.factory import load_codec as load_codec
    from codecbay.generation import AudioGen as AudioGen
    from codecbay.generation import MusicGen as MusicGen
    from codecbay.hookspecs import API_VERSION as API_VERSION
    from codecbay.hookspecs import Backend as Backend
    from codecbay.hookspecs import hookimpl as hookimpl
    from codecbay.imports import import_library as import_library
    from codecbay.lm.conditioners import Conditioner as Conditioner
    from codecbay.lm.conditioners import ConditionerContext as ConditionerContext
    from codecbay.lm.conditioners import ConditionerFactory as ConditionerFactory
    from codecbay.lm.conditioners import TextConditioner as TextConditioner
    from codecbay.package import Header as Header
    from codecbay.package import PackageFile as PackageFile
    from codecbay.package import Section as Section
    from codecbay.package.weights import assign as assign
    from codecbay.package.weights import check_tensors as check_tensors
    from codecbay.spec import CodecSpec as CodecSpec
    from codecbay.spec import LMSpec as LMSpec

_EXPORTS = {
    "API_VERSION": "hookspecs",
    "AudioError": "errors",
    "AudioGen": "generation",
    "Backend": "hookspecs",
    "CodeRangeError": "errors",
    "Codec": "codec",
    "CodecSpec": "spec",
    "CodecbayError": "errors",
    "Conditioner": "lm.conditioners",
    "ConditionerContext": "lm.conditioners",
    "ConditionerFactory": "lm.conditioners",
    "ConfigError": "errors",
    "EncodedAudio": "codec",
    "GenerationError": "errors",
    "Header": "package",
    "IncompatibleError": "errors",
    "LMSpec": "spec",
    "MissingDependencyError": "errors",
    "MusicGen": "generation",
    "PackageError": "errors",
    "PackageFile": "package",
    "PluginError": "errors",
    "Report": "compat",
    "Section": "package",
    "TextConditioner": "lm.conditioners",
    "WeightsError": "errors",
    "assemble": "assembly",
    "assign": "package.weights",
    "check": "factory",
    "check_tensors": "package.weights",
    "check_waveform": "audio",
    "download": "factory",
    "export_codec": "export",
    "export_lm": "export",
    "export_pretrained_codec": "export",
    "hookimpl": "hookspecs",
    "import_library": "imports",
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
