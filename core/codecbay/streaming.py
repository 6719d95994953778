"""Layers that are given a signal piece by piece, and together compute what they compute of all of it at once.

A :class:`Stream` is a layer at work on one signal. Pieces of the signal go in one after the other, and what they make
complete comes out; a stream keeps, from piece to piece, what its later outputs depend on: a convolution the end of its
input, a recurrent layer its state. So memory does not grow with the signal, a piece stays in the processor's caches on
its way through the layers, and nothing is computed twice.

A module tells how it is streamed by a method ``stream() -> Stream``. :func:`stream` knows the layers of torch, and has
a layer that it does not know wait for the whole signal, which is always right.

Letters: ``B`` batch, ``C`` channels, ``S`` samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from codecbay.packed import Conv1d, ConvTranspose1d, Snake, pad

Layer = Callable[[Tensor], Tensor]
# Layers to which one sample is as good as many.
_POINTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU,
    nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink,
    nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold, Snake,
)  # fmt: skip


class Stream(Protocol):
    """A layer at work on one signal, from its first piece to its last."""

    def push(self, x: Tensor, last: bool) -> Tensor:
        """Take the next piece of the signal.

        Args:
            x: ``[B, C, S]``; ``S`` may be 0.
            last: whether the signal ends with it.

        Returns:
            The outputs ``[B, C', S']`` that follow the ones before; where ``S'`` is 0, ``C'`` means nothing.
        """
        ...


class Each(Stream):
    """A layer that turns every sample, or block of samples, into its output without looking at others."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        return self._layer(x) if x.shape[-1] else x


class Whole(Stream):
    """A layer that has to see all of the signal: it waits for the last piece."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._pieces: list[Tensor] = []

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        self._pieces.append(x)
        return self._layer(join(self._pieces)) if last else x[..., :0]


class Windows(Stream):
    """A layer each of whose outputs depends on a window of the signal, such as a convolution.

    Args:
        layer: the layer, without padding.
        extent: samples of a window.
        stride: samples from one window to the next.
        padding: samples added before and after the signal.
        pad: ``pad(x, left, right)`` adds them. It sees the ends of the signal, and more of them than it adds.
        whole: whether the signal is padded further, so that no sample of its end goes without a window.
    """

    def __init__(
        self,
        layer: Layer,
        extent: int,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        pad: Callable[[Tensor, int, int], Tensor] = pad,
        whole: bool = False,
    ) -> None:
        self._layer, self._extent, self._stride, self._pad, self._whole = layer, extent, stride, pad, whole
        self._left, self._right = padding
        end = self._right + (stride - 1 if whole else 0)
        self._most = max(self._left, end)  # samples that are added to an end
        self._kept = end + 1 if end else 0  # of the signal until its end comes, which is padded from them
        self._length = 0
        self._pieces: list[Tensor] = []

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        self._length += x.shape[-1]
        self._pieces.append(x)
        if self._length <= self._most and not last:
            return x[..., :0]
        x = join(self._pieces)
        right = self._right + (-self._length % self._stride if self._whole else 0) if last else 0
        x = self._pad(x, self._left, right)
        self._left = 0
        count = (x.shape[-1] - self._extent) // self._stride + 1
        if not last:
            count = min(count, (x.shape[-1] - self._kept) // self._stride)
        count = max(count, 0)
        self._pieces = [] if last else [join([x[..., count * self._stride :]], copy=True)]
        if not count:
            return x[..., :0]
        return self._layer(x[..., : (count - 1) * self._stride + self._extent])


class Trimmed(Stream):
    """Drops so many samples from the beginning and the end; those of the end come with the last piece."""

    def __init__(self, left: int, right: int) -> None:
        self._left, self._right = left, right

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        first = min(self._left, x.shape[-1])
        self._left -= first
        return x[..., first : x.shape[-1] - (self._right if last else 0)]


class Recurrent(Stream):
    """An ``nn.LSTM`` or ``nn.GRU`` in one direction, time first, which carries its state."""

    def __init__(self, layer: Callable[..., tuple[Tensor, Any]]) -> None:
        self._layer = layer
        self._state: Any = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        if not x.shape[-1]:
            return x
        y, self._state = self._layer(x.permute(2, 0, 1), self._state)
        return y.permute(1, 2, 0)


class Residual(Stream):
    """A branch, and what goes past it: the signal itself, or a shortcut's output, which is never later.

    The sum is written to the branch's output.
    """

    def __init__(self, branch: Stream, shortcut: Stream | None = None) -> None:
        self._branch, self._shortcut = branch, shortcut
        self._past: list[Tensor] = []

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        y = self._branch.push(x, last)
        self._past.append(x if self._shortcut is None else self._shortcut.push(x, last))
        done = 0
        while done < y.shape[-1]:
            past = self._past.pop(0)
            count = min(past.shape[-1], y.shape[-1] - done)
            y[..., done : done + count] += past[..., :count]
            done += count
            if count < past.shape[-1]:
                self._past.insert(0, join([past[..., count:]], copy=True))
        return y


class Chain(Stream):
    """Layers one after the other."""

    def __init__(self, streams: Iterable[Stream]) -> None:
        self._streams = list(streams)

    def push(self, x: Tensor, last: bool) -> Tensor:
        """See :meth:`Stream.push`."""
        for each in self._streams:
            if not last and not x.shape[-1]:
                break
            x = each.push(x, last)
        return x


def stream(module: nn.Module) -> Stream:
    """A stream of a module: of its own making, of a layer of torch, or one that waits for the whole signal."""
    make: Callable[[], Stream] | None = getattr(module, "stream", None)
    if make is not None:
        return make()
    if isinstance(module, nn.Sequential):
        return Chain(stream(layer) for layer in module)
    if isinstance(module, _POINTWISE):
        return Each(module)
    if isinstance(module, Conv1d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        (padding,) = module.padding
        return Windows(module.valid, module.extent, module.stride[0], (padding, padding))
    if isinstance(module, ConvTranspose1d) and module.trim[1] >= 0:
        around = module.extent - 1
        return Chain([Windows(module.valid, module.extent, 1, (around, around)), Trimmed(*module.trim)])
    return Whole(module)


_progress: ContextVar[bool] = ContextVar("progress", default=False)


@contextmanager
def progress_shown(shown: bool) -> Iterator[None]:
    """Whether signals that are run through streams meanwhile show a progress bar."""
    token = _progress.set(shown)
    try:
        yield
    finally:
        _progress.reset(token)


def streamed(stream: Stream, x: Tensor, size: int, progress: bool = False) -> Iterator[Tensor]:
    """Run a signal through a stream.

    Args:
        stream: a fresh one.
        x: ``[B, C, S]``.
        size: samples of a piece.
        progress: show a progress bar.

    Yields:
        The outputs, piece by piece.
    """
    starts = range(0, x.shape[-1], size)
    for start in tqdm(starts, unit="piece", disable=None if progress or _progress.get() else True):
        y = stream.push(x[..., start : start + size], last=start == starts[-1])
        if y.shape[-1]:
            yield y


def gathered(pieces: Iterable[Tensor], length: int) -> Tensor:
    """The outputs of a stream as one tensor of a known length, so that memory holds them once; zeros fill it up."""
    whole: Tensor | None = None
    at = 0
    for piece in pieces:
        if whole is None:
            whole = piece.new_empty(*piece.shape[:-1], length)
        whole[..., at : at + piece.shape[-1]] = piece
        at += piece.shape[-1]
    assert whole is not None
    whole[..., at:] = 0
    return whole


def join(pieces: list[Tensor], copy: bool = False) -> Tensor:
    """Pieces of a signal ``[B, C, S]`` one after the other, channels side by side in memory."""
    found = [piece for piece in pieces if piece.shape[-1]] or pieces[:1]
    if len(found) == 1 and not copy:
        return found[0]
    return torch.cat([piece.transpose(1, 2) for piece in found], dim=1).transpose(1, 2)
