"""The packed LSTM: what torch's own computes, from any state on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from codecbay.packed import LSTM, onednn
from models import noise


def pair(dtype: torch.dtype) -> tuple[LSTM, nn.LSTM]:
    """A packed LSTM, and torch's own in double precision with the same weights."""
    torch.manual_seed(0)
    ours, theirs = LSTM(16, 24, 2).eval().to(dtype), nn.LSTM(16, 24, 2)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.double()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_computes_what_torch_computes(dtype: torch.dtype, batch: int) -> None:
    ours, theirs = pair(dtype)
    x = noise(batch, 16, 9).to(dtype).permute(2, 0, 1)  # neither layout of steps and batch is assumed
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    found, expected = ours(x), theirs(x.double())
    for a, b in ((found[0], expected[0]), *zip(found[1], expected[1], strict=True)):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_without_instructions_for_a_dtype_computes_in_float32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "computes_in", lambda dtype: dtype == torch.float32)
    ours, _ = pair(dtype)
    x = noise(9, 2, 16).to(dtype)
    found, (hidden, cell) = ours(x)
    expected, (last, kept) = ours.float()(x.float())
    assert torch.equal(found, expected.to(dtype))
    assert torch.equal(hidden, last.to(dtype))
    assert torch.equal(cell, kept.to(dtype))


@torch.no_grad()
def test_goes_on_from_a_state() -> None:
    ours, _ = pair(torch.float32)
    x = noise(9, 2, 16)
    whole, last = ours(x)
    state, parts = None, []
    for part in x.split(4):
        y, state = ours(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole)
    assert state is not None
    torch.testing.assert_close(state, last)


@torch.no_grad()
def test_follows_its_weights() -> None:
    ours, theirs = pair(torch.float32)
    x = noise(5, 2, 16)
    ours(x)
    ours.get_parameter("weight_hh_l1").mul_(2)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x)[0].double(), theirs(x.double())[0], rtol=1e-6, atol=1e-6)


def test_has_torchs_gradients() -> None:
    ours, theirs = pair(torch.float32)
    x = noise(5, 2, 16)
    ours(x)[0].sum().backward()
    theirs(x.double())[0].sum().backward()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad.double(), its.grad, rtol=1e-4, atol=1e-5)
