"""``Pack``: what is computed once from weights, and used for as long as they do not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Pack(Generic[T]):
    """A value made of tensors and plain values, and made anew when one of them is another.

    Torch counts the changes of a tensor. Those made behind its back, to ``tensor.data``, are seen only where they also
    move it: whoever edits weights so calls :meth:`clear`.

    Args:
        make: from the arguments to the value; a function that can be pickled.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._key: object = None
        self._value: T | None = None

    def __call__(self, *arguments: object) -> T:
        """The value for these arguments."""
        key = [(a.data_ptr(), a.dtype, _changes(a)) if isinstance(a, Tensor) else a for a in arguments]
        if key != self._key:
            self._value = None  # the old one is not held in memory beside the new
            with torch.no_grad():
                self._value = self._make(*arguments)
            self._key = key
        return self._value  # type: ignore[return-value]

    @property
    def value(self) -> T | None:
        """The one that was made last."""
        return self._value

    def clear(self) -> None:
        """Forget the value, and free its memory."""
        self._key = self._value = None

    def __getstate__(self) -> dict[str, object]:
        # Neither copied nor saved with its module: what is laid out for one processor means nothing elsewhere.
        return {"_make": self._make, "_key": None, "_value": None}


class Packing(nn.Module):
    """A module with packs of weights, which are freed when these are moved, converted or trained."""

    @property
    def packs(self) -> Sequence[Pack[Any]]:
        """All of them."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or back. Weights in training change at every step: no copy of them is kept."""
        if mode:
            self._clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._clear()  # what is moved or converted is laid out anew
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _clear(self) -> None:
        for pack in self.packs:
            pack.clear()


def _changes(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
