"""Every error that codecbay raises on purpose.

Messages say what was asked, what was found and what to do next; the command line prints them as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codecbay.compat import Report


class CodecbayError(Exception):
    """Base class of all errors of codecbay."""


class PackageError(CodecbayError):
    """An export package cannot be used as it is."""


class SourceError(PackageError):
    """A source string leads to no package."""


class UnsafePickleError(PackageError):
    """A file's pickle asks for something that no export package needs; nothing of it was run."""


class ConfigError(PackageError):
    """The configuration inside a package (``xp.cfg``) is broken or describes nothing that can be built."""


class WeightsError(PackageError):
    """The tensors of a package are not those its configuration describes."""


class UnresolvedReferenceError(PackageError):
    """A package names a codec or text encoder that cannot be found."""


class IncompatibleError(CodecbayError):
    """Codec and language model do not fit; ``report`` holds every finding."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


class CodeRangeError(CodecbayError, ValueError):
    """Codes have the wrong shape, or a value outside their codebook."""


class AudioError(CodecbayError, ValueError):
    """A waveform or an audio file cannot be used."""


class OutputError(CodecbayError):
    """A file or directory cannot be written; what was there before is as it was."""


class GenerationError(CodecbayError, ValueError, AssertionError):
    """The request cannot be generated: prompts, durations or sampling parameters do not make sense.

    AudioCraft asserts these; scripts written for it catch ``AssertionError``.
    """


class AssemblyError(CodecbayError):
    """An assembly configuration is wrong; the message lists everything that is."""


class PluginError(CodecbayError):
    """A plugin is broken, missing, or clashes with another."""


class RegistryError(CodecbayError):
    """A registry file is wrong, or does not know a name."""


class MissingDependencyError(CodecbayError):
    """An optional library is needed; the message names the command that installs it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to a message: ``" Did you mean 'x'?"``, or nothing when no name is near."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
