"""A long short-term memory with weights laid out for oneDNN, which torch lays out anew at every call.

Letters: ``T`` steps, ``B`` batch, ``D`` width, ``N`` layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from codecbay.packed.convolution import suits_onednn
from codecbay.packed.pack import Pack

_LSTM_MODE = 2  # torch's number for it


class LSTM(nn.LSTM):
    """``nn.LSTM``, in one direction and without gradients on the CPU computed from packed weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()

    def prepare(self) -> None:
        """Get ready to be packed; done by the constructor."""
        self._packs = [Pack(_lay_out) for _ in range(self.num_layers)]

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run from a state on: ``[T, B, D]``, two tensors ``[N, B, D]``; zeros where there is none."""
        if not self._suits(x):
            return super().forward(x, state)
        hidden, cell = state or (x.new_zeros(self.num_layers, x.shape[1], self.hidden_size),) * 2
        x = x.contiguous()
        states = []
        for i, pack in enumerate(self._packs):
            weights: Any = [getattr(self, f"{name}_l{i}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            x, *after = self._layer(x, pack(*weights[:2]), weights[2:], hidden[i], cell[i])
            states.append(after)
        return x, (torch.stack([h for h, _ in states]), torch.stack([c for _, c in states]))

    def _suits(self, x: Tensor) -> bool:
        other = self.bidirectional or self.proj_size or self.batch_first or not self.bias or self.training
        usual = not other and isinstance(x, Tensor) and x.dim() == 3
        return usual and suits_onednn(x, cast(Tensor, self.weight_hh_l0))

    def _layer(
        self, x: Tensor, packed: list[Tensor], biases: list[Tensor], hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, hidden, cell, _ = torch.ops.aten.mkldnn_rnn_layer(
            x, *packed, *biases, hidden, cell, False, [], _LSTM_MODE, self.hidden_size, 1, True, False, False, False
        )
        return y, hidden, cell

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or back."""
        if mode:
            self._clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._clear()
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _clear(self) -> None:
        for pack in self._packs:
            pack.clear()


def _lay_out(weight_ih: Tensor, weight_hh: Tensor) -> list[Tensor]:
    packed: list[Tensor] = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
        weight_ih, weight_hh, weight_hh.shape[1], False, True, False, None
    )
    return packed
