"""Matrix products by oneDNN, and what it computes on."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., object])


@cache
def computes_in(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in a dtype here: float32, and bfloat16 where the processor has instructions for it."""
    if not torch.backends.mkldnn.is_available():
        return False
    # Without them, oneDNN takes several times as long as for float32, and some processors a hundred times.
    return dtype == torch.float32 or (
        dtype == torch.bfloat16
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and (platform.machine() not in ("x86_64", "AMD64") or torch.cpu._is_avx512_bf16_supported())
    )


def arithmetic(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The dtype in which oneDNN computes on these: their own, or float32 where there are no instructions for that.

    ``None`` where oneDNN does not compute: for other devices, with gradients, and where the two dtypes differ.
    """
    if x.device.type != "cpu" or x.dtype != weight.dtype:
        return None
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return None
    if computes_in(x.dtype):
        return x.dtype
    short = x.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if short and computes_in(torch.float32) else None


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
