"""Importing optional libraries: the command that installs what is missing, and torchaudio where it cannot be loaded.

Several codec libraries import torchaudio at the top of a file for one helper that encoding and decoding never reach.
Where torchaudio is absent, or was built for another torch (its library then fails to load), they would die with it.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from codecbay.errors import MissingDependencyError

_TORCHAUDIO = "torchaudio"
_LOCK = threading.RLock()


def import_library(name: str, *, needed_by: str, install: str) -> ModuleType:
    """Import an optional library, whatever the state of torchaudio.

    Args:
        name: of the module.
        needed_by: what asks for it, for the message.
        install: the command that installs it.

    Raises:
        MissingDependencyError: it is not installed, or fails to import; the cause is kept.
    """
    with harmless_torchaudio():
        try:
            return importlib.import_module(name)
        except Exception as error:  # libraries fail to import in more ways than ImportError
            raise MissingDependencyError(
                f"{needed_by} needs '{name}', which cannot be imported ({type(error).__name__}: {error}). "
                f"Install it: {install}"
            ) from error


@contextmanager
def harmless_torchaudio() -> Iterator[None]:
    """While this lasts, ``import torchaudio`` succeeds.

    It gives the real one where that loads. Where not, it gives a stand-in whose modules and names can be imported,
    subclassed and used in annotations; calling anything of it raises the error that the real one failed with.
    Nothing of the stand-in stays in ``sys.modules``. A library that asks whether torchaudio is installed, before it
    imports it, hears the truth. Other threads that come here wait.
    """
    with _LOCK:
        if _TORCHAUDIO in sys.modules:
            yield
            return
        try:
            importlib.import_module(_TORCHAUDIO)
        except Exception as error:  # OSError, RuntimeError, ImportError … depending on what does not match
            cause = error
        else:
            yield
            return
        _forget()
        finder = _StandInFinder(cause)
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == _TORCHAUDIO]:
        del sys.modules[name]


class _StandInFinder(MetaPathFinder, Loader):
    """Finds torchaudio and every module below it."""

    def __init__(self, cause: Exception) -> None:
        self._cause = cause

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] != _TORCHAUDIO:
            return None
        # Libraries, such as transformers, ask find_spec what is installed, and remember it when this is long gone.
        if sys._getframe(2).f_globals.get("__name__") == "importlib.util":
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self._cause)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _StandIn(ModuleType):
    """A module of which any name can be had."""

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._cause = cause

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        cause, full_name = self._cause, f"{self.__name__}.{name}"

        def refuse(*_: Any, **__: Any) -> Any:
            raise MissingDependencyError(
                f"{full_name} was used, but torchaudio cannot be loaded here ({type(cause).__name__}: {cause}). "
                "Install a torchaudio that was built for this torch."
            ) from cause

        # A class, so that it can be subclassed and annotated with; making an instance is what fails.
        value = type(name, (), {"__new__": refuse, "__module__": self.__name__})
        setattr(self, name, value)
        return value
