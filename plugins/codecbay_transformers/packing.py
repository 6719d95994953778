"""The library's models with packed layers, which compute the same faster (:mod:`codecbay.packed`).

Letters: ``B`` batch, ``C`` channels, ``S`` samples.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from codecbay.packed import pack_layers, pad
from codecbay.streaming import join


def pack_model(model: nn.Module) -> None:
    """Give those parts of a model packed layers whose other layers leave channels side by side in memory.

    A group norm does not: convolutions beside it would convert the layout to and fro.
    """
    for part in model.children():
        modules: list[Any] = list(part.modules())
        if any(isinstance(module, nn.GroupNorm) for module in modules):
            continue
        pack_layers(part)
        for module in modules:
            if hasattr(module, "_pad1d"):
                module._pad1d = pad1d


def pad1d(x: Tensor, paddings: tuple[int, int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """What the library's function of this name does to ``[B, C, S]``, but for the layout, which it keeps."""
    (left, right), length = paddings, x.shape[-1]
    if mode == "replicate":
        return join([x[..., :1].expand(-1, -1, left), x, x[..., -1:].expand(-1, -1, right)])
    if mode != "reflect":
        return pad(x, left, right, mode)
    short = max(left, right) - length + 1
    if short > 0:
        return pad1d(pad(x, 0, short), paddings, mode)[..., : left + length + right]
    before, after = x[..., 1 : left + 1].flip(-1), x[..., length - 1 - right : length - 1].flip(-1)
    return join([before, x, after])
