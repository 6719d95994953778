"""One-dimensional convolutions over signals whose channels lie side by side in memory.

Torch lays a signal ``[B, C, S]`` out channel by channel, and converts it, and the weights, at every convolution. Here
the samples of all channels at one time are neighbours (a ``[B, S, C]`` tensor seen as ``[B, C, S]``, which torch calls
channels last), which oneDNN convolves as it is, with weights laid out beforehand: at the speed of a matrix product.

Letters: ``B`` batch, ``C`` channels, ``S`` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.packed.onednn import Product, arithmetic
from codecbay.packed.pack import Pack, Packing

_LONG = 2048  # values of a window


class _Computation(Protocol):
    def __call__(self, x: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor: ...


class _Packed(Packing):
    """A convolution with a pack of its weight, freed when that is moved, converted or trained."""

    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    _pack: Pack[_Computation]

    @property
    def span(self) -> int:
        """Samples from the first to the last that the kernel covers."""
        return (self.kernel_size[0] - 1) * self.dilation[0] + 1

    @property
    def packs(self) -> Sequence[Pack[_Computation]]:
        """See :attr:`Packing.packs`."""
        return (self._pack,)


class Conv1d(_Packed, nn.Conv1d):
    """``nn.Conv1d``, without gradients on the CPU computed from packed weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()

    def prepare(self) -> None:
        """Get ready to be packed; done by the constructor."""
        self._pack = Pack(_lay_out)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``[B, C, S]``, padded as ``nn.Conv1d`` pads it."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(x)
        return self._convolve(x, self.padding[0])

    def valid(self, x: Tensor) -> Tensor:
        """Convolve ``[B, C, S]`` without any padding."""
        return self._convolve(x, 0)

    @property
    def extent(self) -> int:
        """Samples of a window, which an output depends on."""
        return self.span

    def _convolve(self, x: Tensor, padding: int) -> Tensor:
        stride, dilation, groups = self.stride[0], self.dilation[0], self.groups
        dtype = arithmetic(x, self.weight)
        if dtype is None:
            return F.conv1d(x, self.weight, self.bias, stride, padding, dilation, groups)
        bias = None if self.bias is None else self.bias.to(dtype)
        return self._pack(self.weight, dtype, stride, dilation, groups)(x.to(dtype), bias, padding).to(x.dtype)


class ConvTranspose1d(_Packed, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d``, without gradients on the CPU computed from packed weights.

    Every input makes a block of ``stride`` outputs complete, which depends on it and on the ones before it, as many as
    the kernel reaches. So it is an ordinary convolution from inputs to blocks.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()

    def prepare(self) -> None:
        """Get ready to be packed; done by the constructor."""
        self._pack = Pack(_lay_out_transposed)

    @property
    def extent(self) -> int:
        """Inputs that a block of outputs depends on."""
        return -(-self.span // self.stride[0])

    @property
    def trim(self) -> tuple[int, int]:
        """Outputs to drop from either end, where as many inputs are added to either end as complete every block."""
        padding, more = cast(tuple[int], self.padding)[0], cast(tuple[int], self.output_padding)[0]
        return padding, padding - more + self.extent * self.stride[0] - self.span

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve ``[B, C, S]``."""
        if output_size is not None or self._arithmetic(x) is None:
            return super().forward(x, output_size)
        around = self.extent - 1
        left, right = self.trim
        y = self.valid(pad(x, around, around))
        return y[..., left : y.shape[-1] - right]

    def valid(self, x: Tensor) -> Tensor:
        """The ``S - extent + 1`` blocks of outputs that depend on nothing beside ``[B, C, S]``."""
        stride = self.stride[0]
        dtype = self._arithmetic(x)
        if dtype is None:
            y = F.conv_transpose1d(x, self.weight, self.bias, stride, dilation=self.dilation, groups=self.groups)
            return y[..., (self.extent - 1) * stride : x.shape[-1] * stride]
        bias = None if self.bias is None else self.bias.to(dtype).repeat(stride)
        blocks = self._pack(self.weight, dtype, stride)(x.to(dtype), bias).to(x.dtype)
        return blocks.transpose(1, 2).reshape(len(x), -1, self.out_channels).transpose(1, 2)

    def _arithmetic(self, x: Tensor) -> torch.dtype | None:
        usual = self.groups == self.dilation[0] == 1 and self.trim[1] >= 0
        return arithmetic(x, self.weight) if usual else None


def pad(x: Tensor, left: int, right: int, mode: str = "constant") -> Tensor:
    """``F.pad`` along the samples of ``[B, C, S]``, which keeps the channels side by side."""
    if mode == "constant" and (left or right):
        return F.pad(x.transpose(1, 2), (0, 0, left, right)).transpose(1, 2)
    return F.pad(x, (left, right), mode) if left or right else x


def _lay_out(weight: Tensor, dtype: torch.dtype, stride: int = 1, dilation: int = 1, groups: int = 1) -> _Computation:
    """A convolution by a weight ``[C', C, kernel]``, computed in a dtype."""
    weight = weight.to(dtype)
    outputs, channels, kernel = weight.shape
    if kernel == stride == groups == 1:
        return _Product(weight)
    if outputs == stride == groups == 1:
        return _Taps(weight, dilation)
    if dilation == groups == 1 and kernel <= 2 * stride and channels * kernel >= _LONG:
        return _WindowProduct(weight, stride)
    return _Convolution(weight, stride, dilation, groups)


def _lay_out_transposed(weight: Tensor, dtype: torch.dtype, stride: int) -> _Computation:
    """The convolution to blocks by a weight ``[C, C', kernel]`` of a transposed convolution."""
    channels, _, kernel = weight.shape
    weight = F.pad(weight, (0, -kernel % stride)).view(channels, weight.shape[1], -1, stride)
    return _lay_out(weight.flip(2).permute(3, 1, 0, 2).flatten(0, 1), dtype)


class _Product:
    """A convolution of single samples, which is a matrix product."""

    def __init__(self, weight: Tensor) -> None:
        self._product = Product(weight[..., 0])

    def __call__(self, x: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
        return self._product(pad(x, padding, padding).transpose(1, 2), bias).transpose(1, 2)


class _WindowProduct:
    """A convolution by long windows that overlap little: a matrix product too, and oneDNN's fastest, with copies of
    the windows."""

    def __init__(self, weight: Tensor, stride: int) -> None:
        self._kernel, self._stride = weight.shape[2], stride
        self._product = Product(weight.transpose(1, 2).flatten(1))

    def __call__(self, x: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
        windows = pad(x, padding, padding).unfold(2, self._kernel, self._stride)
        return self._product(windows.permute(0, 2, 3, 1).flatten(2), bias).transpose(1, 2)


class _Taps:
    """A convolution to one channel: the products of every sample with every tap, added up.

    It reads the signal once, at a multiple of the speed of oneDNN's convolution to so little.
    """

    def __init__(self, weight: Tensor, dilation: int) -> None:
        self._dilation = dilation
        self._product = Product(weight[0].t())

    def __call__(self, x: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
        products = self._product(pad(x, padding, padding).transpose(1, 2), None)
        batch, samples, taps = products.shape
        count = samples - (taps - 1) * self._dilation
        strides = (samples * taps, taps, self._dilation * taps + 1)
        y = products.as_strided((batch, count, taps), strides).sum(2).unsqueeze(1)
        return y if bias is None else y.add_(bias[:, None])


class _Convolution:
    """Any other, as one of images of height 1: oneDNN has a layout of neighbouring channels for images alone.

    The layout of the weight that it multiplies by depends on the size of the signal, and one for another size takes it
    longer to change than the plain one: the weight is laid out anew for each size, of which recordings have few.
    """

    def __init__(self, weight: Tensor, stride: int, dilation: int, groups: int) -> None:
        self._plain = weight.unsqueeze(2)
        self._geometry = [1, stride], [1, dilation], groups
        self._pack = Pack(_lay_out_for)

    def __call__(self, x: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
        image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        weight = self._pack(self._plain, len(x), x.shape[-1] + 2 * padding, *self._geometry)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, weight, bias, [0, padding], *self._geometry, "none", [], ""
        )
        return y.squeeze(2)


def _lay_out_for(
    weight: Tensor, batch: int, samples: int, stride: list[int], dilation: list[int], groups: int
) -> Tensor:
    """A weight ``[C', C / groups, 1, kernel]`` for a batch of signals of a length, padding included."""
    size = [batch, weight.shape[1] * groups, 1, samples]
    weight = weight.contiguous(memory_format=torch.channels_last)
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, [0, 0], stride, dilation, groups, size)
    return packed
