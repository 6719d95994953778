"""Packed layers in the library's models; that they compute the same, the families' own tests tell."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from codecbay.packed import Snake
from codecbay_transformers.packing import pad1d
from plugins.transformers.shared import PACKAGES, library


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("paddings", [(0, 0), (4, 0), (2, 5), (0, 1)])
@pytest.mark.parametrize("mode", ["constant", "replicate", "reflect"])
def test_padding_is_the_library_s(mode: str, paddings: tuple[int, int], length: int) -> None:
    x = torch.randn(2, length, 3).transpose(1, 2)
    theirs = library("encodec.modeling_encodec").EncodecConv1d._pad1d
    found = pad1d(x, paddings, mode)
    assert torch.equal(found, theirs(x, paddings, mode=mode))
    assert found.stride(1) == 1


def test_circular_padding() -> None:
    x = torch.randn(2, 3, 9)
    assert torch.equal(pad1d(x, (4, 2), "circular"), F.pad(x, (4, 2), "circular"))


def test_snake_is_the_library_s_with_its_gradients() -> None:
    theirs, ours = library("dac.modeling_dac").Snake1d(5), Snake(5)
    with torch.no_grad():
        ours.alpha.copy_(theirs.alpha.uniform_(-2.0, 2.0))
    x = torch.randn(2, 5, 7, requires_grad=True)
    y = torch.randn(2, 5, 7)
    (expected,) = torch.autograd.grad((theirs(x) * y).sum(), x)
    (found,) = torch.autograd.grad((ours(x) * y).sum(), x)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "packed"), [("mimi", True), ("encodec_48khz", False)])
def test_layers_beside_a_group_norm_stay_as_they_are(name: str, packed: bool) -> None:
    kinds = {type(module).__module__ for module in PACKAGES[name].codec.modules()}
    assert ("codecbay.packed.convolution" in kinds) is packed
