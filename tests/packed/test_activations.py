"""Activations that are computed otherwise than torch computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codecbay.packed import ELU


def values() -> Tensor:
    edges = [0.0, -0.0, 1e-30, -1e-30, 1e-7, -1e-7, -100.0, 100.0, 3e38, -3e38, float("inf"), -float("inf")]
    return torch.cat([torch.tensor(edges), torch.linspace(-20, 20, 4001), -torch.logspace(-8, 1, 901)])


@torch.no_grad()
def test_elu_is_torchs() -> None:
    x = values()
    torch.testing.assert_close(ELU()(x).double(), nn.ELU()(x.double()), rtol=1e-7, atol=6e-8)
    assert ELU()(torch.tensor([float("nan")])).isnan().all()
    assert ELU()(torch.empty(0, 3)).shape == (0, 3)


@torch.no_grad()
def test_elu_in_place_and_not() -> None:
    x = values()
    before = x.clone()
    y = ELU()(x)
    assert torch.equal(x, before)
    assert ELU(inplace=True)(x) is x
    assert torch.equal(x, y)


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_elu_of_other_kinds(options: dict[str, Any], dtype: torch.dtype) -> None:
    x = values().to(dtype)
    torch.testing.assert_close(ELU(**options)(x), nn.ELU(**options)(x), rtol=1e-6, atol=6e-8)


def test_elu_has_torchs_gradients() -> None:
    x = torch.randn(50, requires_grad=True)
    found, expected = (torch.autograd.grad(elu(x).sum(), x)[0] for elu in (ELU(), nn.ELU()))
    assert torch.equal(found, expected)
