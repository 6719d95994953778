"""Packed convolutions: what torch's own compute, in every geometry, for as long as the weights are what they were."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from codecbay.packed import Conv1d, ConvTranspose1d, onednn, pack_layers
from models import noise

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "from a waveform": {"in_channels": 1, "kernel_size": 7, "padding": 3},
    "to a waveform": {"out_channels": 1, "kernel_size": 7},
    "of single samples": {"kernel_size": 1},
    "of single samples, padded": {"kernel_size": 1, "padding": 2},
    "without bias": {"kernel_size": 3, "bias": False},
    "dilated": {"kernel_size": 3, "dilation": 3, "padding": 3},
    "strided": {"kernel_size": 8, "stride": 4, "padding": 2},
    "of every third sample": {"kernel_size": 1, "stride": 3},
    "grouped": {"kernel_size": 7, "groups": 8, "dilation": 3, "padding": 9},
    "same": {"kernel_size": 5, "padding": "same"},
    "reflected": {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
}
TRANSPOSED: dict[str, dict[str, Any]] = {
    "of two strides": {"kernel_size": 8, "stride": 4, "padding": 2},
    "of an odd stride": {"kernel_size": 10, "stride": 5, "padding": 3, "output_padding": 1},
    "of no whole strides": {"kernel_size": 7, "stride": 3},
    "of one stride": {"kernel_size": 3, "stride": 3},
    "shorter than its stride": {"kernel_size": 2, "stride": 3},
    "without stride": {"kernel_size": 7, "out_channels": 1},
    "without bias": {"kernel_size": 4, "stride": 2, "bias": False},
    "lengthened": {"kernel_size": 4, "stride": 4, "output_padding": 3},
    "grouped": {"kernel_size": 4, "stride": 2, "groups": 4},
    "dilated": {"kernel_size": 3, "stride": 2, "dilation": 2},
}


def pair(kind: str, case: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A packed convolution, and torch's own in double precision with the same weights."""
    torch.manual_seed(0)
    arguments = {"in_channels": 8, "out_channels": 16, **case}
    ours = (Conv1d if kind == "conv" else ConvTranspose1d)(**arguments).to(dtype)
    theirs = (nn.Conv1d if kind == "conv" else nn.ConvTranspose1d)(**arguments)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.double()


CASES = [("conv", name) for name in CONVOLUTIONS] + [("transposed", name) for name in TRANSPOSED]


@pytest.mark.parametrize("length", [7, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "name"), CASES)
@torch.no_grad()
def test_computes_what_torch_computes(kind: str, name: str, dtype: torch.dtype, length: int) -> None:
    ours, theirs = pair(kind, (CONVOLUTIONS if kind == "conv" else TRANSPOSED)[name], dtype)
    x = noise(2, ours.in_channels, length + 8 * (name == "strided")).to(dtype)
    expected = theirs(x.double())
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours(x).double(), expected, rtol=tolerance, atol=tolerance)
    aside = x.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(ours(aside).double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["from a waveform", "dilated", "grouped"])
@torch.no_grad()
def test_lengths_may_change_from_call_to_call(name: str) -> None:
    ours, theirs = pair("conv", CONVOLUTIONS[name])
    for length in (40, 40, 40, 23, 40, 23, 23, 500, 40):
        x = noise(2, ours.in_channels, length)
        torch.testing.assert_close(ours(x).double(), theirs(x.double()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["conv", "transposed"])
@torch.no_grad()
def test_without_instructions_for_a_dtype_computes_in_float32(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "computes_in", lambda dtype: dtype == torch.float32)
    ours, _ = pair(kind, {"kernel_size": 8, "stride": 4}, dtype)
    x = noise(2, 8, 40).to(dtype)
    found = ours(x)
    assert torch.equal(found, ours.float()(x.float()).to(dtype))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_has_torchs_gradients(kind: str, name: str) -> None:
    ours, theirs = pair(kind, (CONVOLUTIONS if kind == "conv" else TRANSPOSED)[name])
    x = noise(2, ours.in_channels, 20)
    ours(x).pow(2).sum().backward()
    theirs(x.double()).pow(2).sum().backward()
    torch.testing.assert_close(ours.weight.grad.double(), theirs.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv", "transposed"])
@torch.no_grad()
def test_channels_stay_side_by_side(kind: str) -> None:
    ours, _ = pair(kind, {"kernel_size": 4, "stride": 2})
    assert ours(noise(2, 8, 20)).transpose(1, 2).is_contiguous()


def _changes(x: Any) -> dict[str, Any]:
    return {
        "in place": lambda: x.weight.mul_(2),
        "another": lambda: setattr(x, "weight", nn.Parameter(2 * x.weight)),
        "loaded": lambda: x.load_state_dict({**x.state_dict(), "weight": 2 * x.weight}),
        "converted": lambda: x.to(torch.bfloat16),
    }


@pytest.mark.parametrize("change", ["in place", "another", "loaded", "converted"])
@pytest.mark.parametrize("kind", ["conv", "transposed"])
@torch.no_grad()
def test_follows_its_weight(kind: str, change: str) -> None:
    ours, theirs = pair(kind, {"kernel_size": 4, "stride": 2})
    x = noise(2, 8, 20)
    before = ours(x)
    _changes(ours)[change]()
    theirs.load_state_dict(ours.state_dict())
    after = ours(x.to(ours.weight.dtype))
    torch.testing.assert_close(after.double(), theirs(x.double()), rtol=1e-2, atol=1e-2)
    assert change == "converted" or not torch.allclose(before, after)


@torch.no_grad()
def test_copies_have_weights_of_their_own() -> None:
    ours, theirs = pair("conv", {"kernel_size": 3})
    x = noise(1, 8, 20)
    ours(x)
    other = copy.deepcopy(ours)
    other.weight.zero_()
    torch.testing.assert_close(ours(x).double(), theirs(x.double()))
    assert torch.equal(other(x), other.bias[:, None].expand(1, -1, 18))


class Wrapped(nn.Module):
    """A model of a library, with the norms that it may have over its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inwards = parametrizations.weight_norm(nn.Conv1d(1, 8, 8, 4, 2))
        self.lstm = nn.LSTM(8, 8, 2)
        self.outwards = nn.ConvTranspose1d(8, 1, 8, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Run over ``[B, 1, S]``."""
        y = self.inwards(x)
        y = y + self.lstm(y.permute(2, 0, 1))[0].permute(1, 2, 0)
        z: Tensor = self.outwards(y)
        return z


@torch.no_grad()
def test_layers_of_a_library_are_packed_in_place() -> None:
    torch.manual_seed(0)
    model, x = Wrapped().eval(), noise(2, 1, 40)
    expected = model(x)
    pack_layers(model)
    assert [type(part).__module__.partition(".")[0] for part in model.children()] == ["codecbay"] * 3
    torch.testing.assert_close(model(x), expected)
    assert "inwards.weight" in model.state_dict()
