"""Streams: whatever the pieces, what comes out is what one pass gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.packed import LSTM, Conv1d, ConvTranspose1d
from codecbay.streaming import Chain, Recurrent, Residual, Stream, Trimmed, Windows, gathered, stream, streamed
from models import noise


class Past(nn.Module):
    """A residual connection around a recurrent layer and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.conv = LSTM(4, 4, 2), Conv1d(4, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Run over ``[B, C, S]``."""
        y: Tensor = x + self.conv(self.lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0))
        return y

    def stream(self) -> Stream:
        """The module at work."""
        return Residual(Chain([Recurrent(self.lstm), stream(self.conv)]))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "pointwise": nn.ELU,
    "convolution": lambda: Conv1d(4, 3, 7, padding=3),
    "without padding": lambda: Conv1d(4, 3, 7),
    "strided": lambda: Conv1d(4, 3, 8, 4, padding=2),
    "dilated": lambda: Conv1d(4, 3, 3, dilation=5, padding=5),
    "single samples": lambda: Conv1d(4, 3, 1),
    "gaps between windows": lambda: Conv1d(4, 3, 2, 5),
    "transposed": lambda: ConvTranspose1d(4, 3, 8, 4, padding=2),
    "transposed, odd": lambda: ConvTranspose1d(4, 3, 10, 5, padding=3, output_padding=1),
    "transposed, trimmed by blocks": lambda: ConvTranspose1d(4, 3, 9, 3, padding=4),
    "transposed, lengthened": lambda: ConvTranspose1d(4, 3, 4, 4, output_padding=3),
    "residual": Past,
    "reflected": lambda: nn.Conv1d(4, 3, 7, padding=3, padding_mode="reflect"),
    "norm over all": lambda: nn.GroupNorm(1, 4),
    "all of them": lambda: nn.Sequential(
        Conv1d(4, 4, 7, padding=3), Past(), nn.ELU(), Conv1d(4, 8, 8, 4, padding=2), Conv1d(8, 4, 10, 5, padding=3),
        Past(), nn.Tanh(), ConvTranspose1d(4, 8, 10, 5, padding=3, output_padding=1), nn.ELU(),
        ConvTranspose1d(8, 4, 8, 4, padding=2), Past(), Conv1d(4, 1, 7, padding=3),
    ),
}  # fmt: skip


def run(made: Stream, x: Tensor, sizes: list[int]) -> Tensor:
    """Push pieces of such sizes, the last one all that is left."""
    pieces = list(x.split([*sizes, x.shape[-1] - sum(sizes)], dim=-1))
    outputs = [made.push(piece, last=i == len(sizes)) for i, piece in enumerate(pieces)]
    return torch.cat([y for y in outputs if y.shape[-1]], dim=-1)


@pytest.mark.parametrize("sizes", [[], [1] * 60, [50, 1], [40, 0, 3, 21], [20, 20, 20, 3]], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_pieces_give_what_one_pass_gives(layer: str, sizes: list[int]) -> None:
    torch.manual_seed(0)
    module, x = LAYERS[layer]().eval(), noise(2, 4, 67)
    torch.testing.assert_close(run(stream(module), x, sizes), module(x), rtol=1e-5, atol=1e-6)


def test_gradients_go_through_streams() -> None:
    torch.manual_seed(0)
    module, x = LAYERS["all of them"](), noise(1, 4, 67)
    run(stream(module), x, [30, 20]).pow(2).sum().backward()
    found = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    module(x).pow(2).sum().backward()
    for grad, parameter in zip(found, module.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_every_sample_gets_a_window_where_the_end_is_padded_to_whole_ones() -> None:
    conv = Conv1d(4, 3, 8, 4)
    x = noise(1, 4, 41)
    made = Windows(conv.valid, 8, 4, (2, 2), whole=True)
    torch.testing.assert_close(run(made, x, [7, 7, 20]), conv(F.pad(x, (2, 2 + 3))))


@pytest.mark.parametrize("trim", [(0, 0), (5, 0), (0, 4), (7, 3)])
def test_trims_both_ends(trim: tuple[int, int]) -> None:
    x = torch.arange(20.0)[None, None]
    assert torch.equal(run(Trimmed(*trim), x, [2, 2, 6, 5]), x[..., trim[0] : 20 - trim[1]])


class Counted(nn.Module):
    """Counts the samples that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def stream(self) -> Stream:
        """The module at work."""
        counted = self

        class Counting(Stream):
            def push(self, x: Tensor, last: bool) -> Tensor:
                counted.seen.append(x.shape[-1])
                return x

        return Counting()


@torch.no_grad()
def test_nothing_is_computed_twice_and_nothing_is_held_back_for_long() -> None:
    counted = Counted()
    layers = nn.Sequential(Conv1d(4, 4, 7, padding=3), counted, Conv1d(4, 4, 8, 4, padding=2))
    list(streamed(stream(layers), noise(1, 4, 200), 50))
    assert counted.seen == [47, 50, 50, 53]


@torch.no_grad()
def test_outputs_are_gathered_as_they_come() -> None:
    module: Any = LAYERS["all of them"]().eval()
    x = noise(1, 4, 67)
    expected = module(x)
    torch.testing.assert_close(gathered(streamed(stream(module), x, 16), expected.shape[-1]), expected)
