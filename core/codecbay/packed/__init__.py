"""Layers that work on copies of their weights in the layout that the processor reads fastest."""

from codecbay.packed.activations import ELU, Snake
from codecbay.packed.convolution import Conv1d, ConvTranspose1d, pad
from codecbay.packed.linear import Linear, Projection, mixed_linear
from codecbay.packed.models import pack_layers
from codecbay.packed.pack import Pack, Packing
from codecbay.packed.recurrent import LSTM
from codecbay.packed.scratch import keep_scratch

__all__ = [
    "ELU",
    "LSTM",
    "Conv1d",
    "ConvTranspose1d",
    "Linear",
    "Pack",
    "Packing",
    "Projection",
    "Snake",
    "keep_scratch",
    "mixed_linear",
    "pack_layers",
    "pad",
]
