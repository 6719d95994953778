"""Files that ship with codecbay."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def builtin_registry() -> Traversable:
    """``registry.toml``: inside the package in a wheel, at the root of a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    packaged = files("codecbay") / "registry.toml"
    if packaged.is_file():
        return packaged
    here = Path(__file__).resolve()  # <root>/core/codecbay/_resources.py
    checkout = here.parents[2] / "registry.toml"
    if here.parents[1].name == "core" and checkout.is_file():
        return checkout
    raise FileNotFoundError(f"registry.toml is neither at {packaged} (wheel) nor at {checkout} (checkout).")
