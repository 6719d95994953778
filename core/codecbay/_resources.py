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
    return _shipped("registry.toml")


def plugin_page(name: str) -> str:
    """Where a page for authors of plugins lies: inside the package in a wheel, in ``docs`` of a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    return str(_shipped(f"docs/plugins/{name}"))


def _shipped(name: str) -> Traversable:
    packaged = files("codecbay") / name
    if packaged.is_file():
        return packaged
    here = Path(__file__).resolve()  # <root>/core/codecbay/_resources.py
    checkout = here.parents[2] / name
    if here.parents[1].name == "core" and checkout.is_file():
        return checkout
    raise FileNotFoundError(f"{name} is neither at {packaged} (wheel) nor at {checkout} (checkout).")
