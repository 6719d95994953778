"""Matrix products by oneDNN, and what it computes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., object])


def computes_in(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in a dtype here: float32, and bfloat16 where the processor does."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes on these: on the CPU, without gradients, in one dtype that it knows."""
    if x.device.type != "cpu" or x.dtype != weight.dtype:
        return False
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return False
    return computes_in(x.dtype)


class Product:
    """The product with a weight ``[M, N]``, laid out for oneDNN, of inputs ``[..., N]`` of the same dtype."""

    def __init__(self, weight: Tensor) -> None:
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._compute = compiled(_pointwise)

    def __call__(self, x: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
        """``activation(x @ weight.T + bias)``, with ``relu``, ``gelu`` or none."""
        y: Tensor = self._compute(x, self.packed, bias, activation)
        return y


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")  # type: ignore[no-any-return]


@cache
def compiled(function: F) -> F:
    """The same in TorchScript, which torch's tracer can write down, and which runs without Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that other compilers are newer
        return torch.jit.script(function)  # type: ignore[no-any-return]
