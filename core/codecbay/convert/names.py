"""Which tensor of AudioCraft's is which of transformers', and how the one becomes the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Pair:
    """A tensor of AudioCraft's, and the tensors of transformers' that hold its rows, an equal part each.

    Attributes:
        audiocraft: its name.
        transformers: their names, in the order of the rows; mostly one.
        shape: of AudioCraft's tensor.
    """

    audiocraft: str
    transformers: tuple[str, ...]
    shape: tuple[int, ...]


def pair(audiocraft: str, transformers: str, *shape: int) -> Pair:
    """A tensor that both have as it is."""
    return Pair(audiocraft, (transformers,), shape)


def audiocraft_shapes(pairs: Iterable[Pair]) -> Shapes:
    """The shapes of AudioCraft's tensors, by name."""
    return {p.audiocraft: p.shape for p in pairs}


def transformers_shapes(pairs: Iterable[Pair]) -> Shapes:
    """The shapes of transformers' tensors, by name."""
    return {name: (p.shape[0] // len(p.transformers), *p.shape[1:]) for p in pairs for name in p.transformers}


def to_transformers(pairs: Iterable[Pair], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AudioCraft's tensors as transformers has them; they share memory."""
    return {
        name: part
        for p in pairs
        for name, part in zip(p.transformers, tensors[p.audiocraft].chunk(len(p.transformers)), strict=True)
    }


def to_audiocraft(pairs: Iterable[Pair], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors as AudioCraft has them."""
    return {
        p.audiocraft: torch.cat([tensors[name] for name in p.transformers])
        if len(p.transformers) > 1
        else tensors[p.transformers[0]]
        for p in pairs
    }
