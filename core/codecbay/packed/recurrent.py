"""A long short-term memory with weights laid out for oneDNN, which torch lays out anew at every call.

Letters: ``T`` steps, ``B`` batch, ``D`` width, ``N`` layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from codecbay.packed.onednn import Product, arithmetic, compiled
from codecbay.packed.pack import Pack, Packing

_LSTM_MODE = 2  # torch's number for it


class LSTM(Packing, nn.LSTM):
    """``nn.LSTM``, in one direction and without gradients on the CPU computed from packed weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()

    def prepare(self) -> None:
        """Get ready to be packed; done by the constructor."""
        self._packs = [Pack(_lay_out) for _ in range(self.num_layers)]

    @property
    def packs(self) -> Sequence[Pack[_Layer]]:
        """See :attr:`Packing.packs`."""
        return self._packs

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run from a state on: ``[T, B, D]``, two tensors ``[N, B, D]``; zeros where there is none."""
        dtype = self._arithmetic(x)
        if dtype is None:
            return super().forward(x, state)
        own = x.dtype
        hidden, cell = state or (x.new_zeros(self.num_layers, x.shape[1], self.hidden_size),) * 2
        x, hidden, cell = x.contiguous().to(dtype), hidden.to(dtype), cell.to(dtype)
        states = []
        for i, pack in enumerate(self._packs):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            layer = pack(x.shape[1] > 1, dtype, *(getattr(self, f"{name}_l{i}") for name in names))
            x, *after = layer(x, hidden[i], cell[i])
            states.append(after)
        return x.to(own), (torch.stack([h for h, _ in states]).to(own), torch.stack([c for _, c in states]).to(own))

    def _arithmetic(self, x: Tensor) -> torch.dtype | None:
        other = self.bidirectional or self.proj_size or self.batch_first or not self.bias or self.training
        usual = not other and isinstance(x, Tensor) and x.dim() == 3
        return arithmetic(x, cast(Tensor, self.weight_hh_l0)) if usual else None


class _Layer(Protocol):
    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


def _lay_out(several: bool, dtype: torch.dtype, *tensors: Tensor) -> _Layer:
    tensors = tuple(tensor.to(dtype) for tensor in tensors)
    # OneDNN's own layer multiplies float32 with few rows three times slower than its linear layer does.
    return _Steps(*tensors) if several and dtype == torch.float32 else _Whole(several, *tensors)


class _Whole:
    """A layer that oneDNN computes."""

    def __init__(self, several: bool, weight_ih: Tensor, weight_hh: Tensor, *biases: Tensor) -> None:
        self._width, self._biases = weight_hh.shape[1], biases
        # Without the shape of a signal, oneDNN may choose a layout that it then changes at every call. What counts in
        # it is whether there are several rows: neither how many, nor the steps.
        shape = [64, 2 if several else 1, weight_ih.shape[1]]
        self._weights = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
            weight_ih, weight_hh, self._width, False, True, False, shape
        )

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, hidden, cell, _ = torch.ops.aten.mkldnn_rnn_layer(
            x, *self._weights, *self._biases, hidden, cell,
            False, [], _LSTM_MODE, self._width, 1, True, False, False, False,
        )  # fmt: skip
        return y, hidden, cell


class _Steps:
    """A layer computed step by step."""

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> None:
        self._from_input, self._from_hidden = Product(_reordered(weight_ih)), Product(_reordered(weight_hh))
        self._bias = _reordered(bias_ih + bias_hh)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates = self._from_input(x, self._bias)
        run: Callable[..., tuple[Tensor, Tensor, Tensor]] = compiled(_steps)
        return run(gates, self._from_hidden.packed, hidden, cell)


def _steps(gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    width = hidden.shape[1]
    y = torch.empty([gates.shape[0], gates.shape[1], width], dtype=gates.dtype)
    for t in range(gates.shape[0]):
        all_gates = torch.ops.mkldnn._linear_pointwise(hidden, weight, None, "none", [], "none").add_(gates[t])
        take, keep, give = all_gates[:, : 3 * width].sigmoid().chunk(3, 1)
        new = all_gates[:, 3 * width :].tanh()
        cell = torch.addcmul(cell * keep, take, new)
        hidden = torch.mul(give, cell.tanh(), out=y[t])
    return y, hidden, cell


def _reordered(rows: Tensor) -> Tensor:
    """Rows of torch's gates, take, keep, new and give, with the three that are sigmoids side by side."""
    take, keep, new, give = rows.chunk(4)
    return torch.cat([take, keep, give, new])
