"""Linear layers that read their weights as fast as the memory gives them.

With the few rows of a decoding step, time is what it takes to read the weights, and torch's ordinary product of a
matrix with a few rows reads them at a fifth of the memory's speed. FBGEMM's products read a copy of the weights in half
precision or 8 bits, laid out for the processor, at nearly all of it, and compute in float32:

- float32 results need no more than half precision where that holds the weights exactly, as it does for weights that
  were published in it; any other float32 is the sum of two half-precision numbers, but for a unit in its last place;
- 8 bits are for whom a quarter of the bytes is worth a little quality. Inputs are then quantized too, on the fly.

With more rows, arithmetic counts as well, and oneDNN multiplies float32 by float32 faster than by two numbers in half
precision, and bfloat16 by bfloat16 faster yet.

Letters: ``N`` features in, ``M`` features out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from threading import Lock
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.packed.onednn import Product, computes_in
from codecbay.packed.pack import Pack, Packing
from codecbay.packed.scratch import scratch

Activation = Literal["none", "relu", "gelu"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
_FEW = 2  # rows, whose time is that of reading the weights: guidance for one sample
_MOST = 64  # rows; of more, the ordinary product is no slower
_lock = Lock()
_STEP = 2048  # between the two terms of a float32: half precision has 11 bits
_CONVERTED = 1 << 18  # numbers at a time
_AT_ONCE = 64  # rows of a weight, whose terms stay in the caches


class _Product(Protocol):
    packed: Any

    def __call__(self, x: Tensor, activation: Activation) -> Tensor: ...


class Projection(Packing):
    """Computes what ``F.linear`` computes, with weights that belong to other modules.

    Few rows, without gradients, on the CPU, are multiplied with a copy of the weights that is laid out when it is first
    needed.

    Attributes:
        precision: of the inputs; ``int8`` is that of the weights too, and ``bfloat16`` is used where it is faster.
        rows: expected most often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.precision = torch.float32
        self.rows = 1
        self._pack = Pack(_product)

    def forward(
        self,
        x: Tensor,
        weight: Tensor | Sequence[Tensor],
        bias: Tensor | Sequence[Tensor] | None = None,
        activation: Activation = "none",
    ) -> Tensor:
        """``activation(x @ weight.T + bias)``.

        Args:
            x: ``[..., N]``; computed in its dtype.
            weight: ``[M, N]``, or several, which are computed as one.
            bias: ``[M]``, or one for each weight.
            activation: applied to the result.
        """
        packed = x.dtype == torch.float32 and x.is_cpu and not torch.is_grad_enabled()
        product: _Product | None = None
        if packed and (self.precision == torch.int8 or x.numel() <= _MOST * x.shape[-1]):
            product = self.pack(weight, bias)
        if product is not None:
            return product(x, activation)
        return _ACTIVATIONS[activation](_ordinary(x, _listed(weight), _listed(bias)))

    def pack(self, weight: Tensor | Sequence[Tensor], bias: Tensor | Sequence[Tensor] | None = None) -> _Product | None:
        """Lay a copy of the weights out, if there is none yet; see :meth:`forward`."""
        weights, biases = _listed(weight), _listed(bias)
        return self._pack(self.precision, self.rows > _FEW, len(weights), *weights, *biases)

    @property
    def product(self) -> _Product | None:
        """What multiplies with the copy that is laid out now, its weights in ``packed``."""
        return self._pack.value

    @property
    def packs(self) -> Sequence[Pack[_Product | None]]:
        """See :attr:`Packing.packs`."""
        return (self._pack,)


class Linear(nn.Linear):
    """``nn.Linear``, computed by a :class:`Projection`."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.projection = Projection()

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """See :meth:`Projection.forward`."""
        return self.projection.forward(x, self.weight, self.bias, activation)

    def pack(self) -> None:
        """See :meth:`Projection.pack`."""
        self.projection.pack(self.weight, self.bias)


def _listed(tensors: Tensor | Sequence[Tensor] | None) -> Sequence[Tensor]:
    return (tensors,) if isinstance(tensors, Tensor) else tensors or ()


def _ordinary(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    pairs = zip_longest(weights, biases)  # there are no biases, or as many
    products = [mixed_linear(x, weight, bias) for weight, bias in pairs]
    return products[0] if len(products) == 1 else torch.cat(products, dim=-1)


def mixed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` in the dtype of ``x``, ``[..., N]``.

    Args:
        x: inputs.
        weight: ``[M, N]``; of another dtype, it is converted part by part, so that the system need not hand out memory
            for all of it at once, which takes longer than the product.
        bias: ``[M]``.
    """
    bias = None if bias is None else bias.to(x.dtype)
    if weight.dtype == x.dtype:
        return F.linear(x, weight, bias)
    parts = weight.split(max(1, _CONVERTED // weight.shape[1]))
    y = torch.cat([F.linear(x, part.to(x.dtype)) for part in parts], dim=-1)
    return y if bias is None else y + bias


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """One below the other, in float32."""
    rows, columns = sum(len(tensor) for tensor in tensors), tensors[0].shape[1]
    return torch.cat(tuple(tensors), out=scratch("joined", rows, columns))


def _product(precision: torch.dtype, many: bool, count: int, *tensors: Tensor) -> _Product | None:
    """The fastest product with few rows, or with somewhat more; ``None`` is the ordinary one."""
    dtype = tensors[0].dtype
    weight = _joined(tensors[:count])
    bias = torch.cat(tensors[count:]).float() if tensors[count:] else None  # which packs keep as it is
    if precision == torch.int8:
        return _Int8(weight, bias)
    if many and precision == dtype == torch.bfloat16 and computes_in(torch.bfloat16):
        return _Reordered(weight.bfloat16(), None if bias is None else bias.bfloat16())
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    tolerance = 2**-23 if dtype == torch.float32 else 2**-12
    if dtype == torch.float16 or _has_one_term(weight, tolerance):
        return _Half(weight, bias)
    reordered = computes_in(torch.float32)
    terms = None if many and reordered else _two_terms(weight, tolerance)
    if terms is not None:
        return _Half(terms, bias, two=True)
    return _Reordered(weight, bias) if reordered else None


def _has_one_term(weight: Tensor, tolerance: float) -> bool:
    """Whether numbers in half precision are near enough to float32 weights: relative to the largest of a row."""
    return all(_is_little(rows - rows.half(), rows, tolerance) for rows in weight.split(_AT_ONCE))


def _two_terms(weight: Tensor, tolerance: float) -> Tensor | None:
    """Two numbers in half precision for each of ``[M, N]``; it is the first plus a ``_STEP``-th of the second.

    Returns:
        In float32, the first, and below them the second; ``None`` where they are not near enough.
    """
    terms = scratch("terms", 2 * len(weight), weight.shape[1])
    first, second = terms.chunk(2)
    parts = (tensor.split(_AT_ONCE) for tensor in (weight, first, second))
    for rows, high, low in zip(*parts, strict=True):
        high.copy_(rows.half())
        rest = rows - high
        low.copy_((rest * _STEP).half())
        if not _is_little(rest - low / _STEP, rows, tolerance):
            return None
    return terms


def _is_little(error: Tensor, rows: Tensor, tolerance: float) -> bool:
    return bool((error.abs() <= tolerance * rows.abs().amax(1, keepdim=True)).all())


class _Half:
    """Float32 inputs, weights in half precision, or of two terms in it; see :func:`_two_terms`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, two: bool = False) -> None:
        self._two = two
        if two and bias is not None:
            bias = torch.cat([bias, torch.zeros_like(bias)])
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
        self._compute = torch.ops.quantized.linear_dynamic_fp16.default

    def __call__(self, x: Tensor, activation: Activation) -> Tensor:
        y: Tensor = self._compute(x, self.packed)
        if self._two:
            first, second = y.chunk(2, dim=-1)
            y = torch.add(first, second, alpha=1 / _STEP)
        return _ACTIVATIONS[activation](y)


class _Reordered:
    """Inputs and weights of one dtype, laid out for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._dtype, self._bias = weight.dtype, bias
        self._product = Product(weight)
        self.packed = self._product.packed

    def __call__(self, x: Tensor, activation: Activation) -> Tensor:
        return self._product(x.to(self._dtype), self._bias, activation).to(x.dtype)


class _Int8:
    """Weights in 8 bits with a scale for each feature out; inputs in 8 bits with one scale for all of them.

    Args:
        weight: in float32, overwritten.
        bias: in float32, if there is one.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scale = torch.maximum(weight.amax(1), -weight.amin(1)) / 127
        scale.clamp_(min=torch.finfo(torch.float32).tiny)
        # In place, and with torch.quantize_per_channel's results at four times its speed.
        numbers = weight.mul_(scale.reciprocal()[:, None]).round_().to(torch.int8)
        with _lock:
            _hear_warning_out()
        quantized = torch._make_per_channel_quantized_tensor(
            numbers, scale, torch.zeros(len(scale), dtype=torch.int64), 0
        )
        with _int8_engine():
            self.packed = torch.ops.quantized.linear_prepack(quantized, bias)
        self._compute = torch.ops.quantized.linear_dynamic.default
        # Where processors lack instructions for 8-bit products, sums of full 8-bit inputs overflow.
        self._reduced = not torch.cpu._is_vnni_supported()

    def __call__(self, x: Tensor, activation: Activation) -> Tensor:
        return _ACTIVATIONS[activation](self._compute(x, self.packed, self._reduced))


@cache
def _hear_warning_out() -> None:
    """Torch warns, once in a process, that it means to move its quantization to another library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.quantize_per_channel(torch.zeros(1, 1), torch.ones(1), torch.zeros(1, dtype=torch.int64), 0, torch.qint8)


@contextmanager
def _int8_engine() -> Iterator[None]:
    """The setting, global to torch, of whose layout weights are packed in."""
    known = torch.backends.quantized.supported_engines
    with _lock:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = next(n for n in ("x86", "onednn", "fbgemm", "qnnpack") if n in known)
        try:
            yield
        finally:
            torch.backends.quantized.engine = before
