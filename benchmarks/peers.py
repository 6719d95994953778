"""The peers' environment: AudioCraft's and descript's own code, beside the torch that codecbay is measured on.

    python -m benchmarks.peers ENV_DIR

AudioCraft 1.3.0 pins torch 2.1 and what was built for it. Its models are plain Python and run on today's torch, so it
is installed without what it pins; :func:`stand_in` then puts empty modules in place of what it imports but the models
that are measured do not need.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import types
import venv
from importlib.machinery import ModuleSpec
from pathlib import Path

AUDIOCRAFT = "audiocraft==1.3.0"
# Reading of compressed audio, text normalization, and attention kernels for GPUs that are not asked for here.
_ABSENT = ("av", "spacy", "xformers")


class _Nothing(types.ModuleType):
    """A module whose every name is another one; nothing in it computes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.__path__: list[str] = []
        sys.modules[name] = self

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(f"{self.__name__}.{name}")


def stand_in() -> None:
    """Put empty modules in place of those that are missing, and of a torchaudio that was built for another torch."""
    import torch

    for name in _ABSENT:
        if importlib.util.find_spec(name) is None:
            _Nothing(name)
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        for loaded in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[loaded]
        _Nothing("torchaudio")
        _Nothing("torchaudio.transforms")
    if isinstance(sys.modules.get("xformers"), _Nothing):
        # AudioCraft calls it with torch's attention too; xformers' own is torch.unbind with a gradient of its own.
        operations = _Nothing("xformers.ops")
        vars(operations)["unbind"] = torch.unbind
        vars(sys.modules["xformers"])["ops"] = operations


def install(directory: Path) -> None:
    """Make a virtual environment with the peers."""
    venv.create(directory, with_pip=True)
    pip = [str(python(directory)), "-m", "pip", "install"]
    subprocess.run([*pip, "-r", str(Path(__file__).with_name("peers.txt"))], check=True)
    subprocess.run([*pip, "--no-deps", AUDIOCRAFT], check=True)


def python(directory: Path) -> Path:
    """The interpreter of an environment."""
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a virtual environment with the peers.")
    parser.add_argument("directory", type=Path, metavar="ENV_DIR")
    install(parser.parse_args().directory)
