"""Packed layers for models of other libraries."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, remove_weight_norm

from codecbay.packed.activations import Snake
from codecbay.packed.convolution import Conv1d, ConvTranspose1d
from codecbay.packed.recurrent import LSTM

_PACKED = {nn.Conv1d: Conv1d, nn.ConvTranspose1d: ConvTranspose1d, nn.LSTM: LSTM}


def pack_layers(model: nn.Module) -> None:
    """Have the convolutions, LSTMs and Snakes of a model, whose training is over, compute as ours do, in place.

    Norms over the weights of convolutions, and other parametrizations, are folded into the weights.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
            elif hasattr(module, "weight_g"):
                remove_weight_norm(module)
        if type(module).__name__ == "Snake1d":  # as descript called it, and every library since
            module.__class__ = Snake
        packed = _PACKED.get(type(module))
        if packed is not None:
            module.__class__ = packed
            module.prepare()  # type: ignore[operator]
