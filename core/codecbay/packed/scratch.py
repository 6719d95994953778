"""Memory for copies of weights that are needed only while these are laid out."""

from __future__ import annotations

from threading import local

import torch
from torch import Tensor

_MAPPED = 9 << 20  # numbers, for which malloc always asks the system


class _Kept(local):
    memory: dict[str, Tensor] | None = None


_kept = _Kept()


def keep_scratch() -> None:
    """Let this thread use its memory again, until it ends.

    To hand out memory for the copies of all weights takes the system longer than to lay these out takes.
    """
    _kept.memory = {}


def scratch(use: str, rows: int, columns: int) -> Tensor:
    """Memory for float32 ``[rows, columns]``, whose content lasts until the thread asks for the same use again.

    It goes back to the system afterwards: among what stays, it would be lost.
    """
    count = rows * columns
    known = {} if _kept.memory is None else _kept.memory
    if use not in known or len(known[use]) < count:
        known.pop(use, None)  # not held beside the new one
        known[use] = torch.empty(max(count, _MAPPED), dtype=torch.float32, device="cpu")
    return known[use][:count].view(rows, columns)
