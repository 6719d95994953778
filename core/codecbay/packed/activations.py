"""Activations that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """``x + sin(a x)^2 / a`` with an ``a`` for each channel (Ziyin et al. 2020, https://arxiv.org/abs/2006.08195).

    Args:
        channels: of the signal.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Activate ``[B, C, S]``."""
        # Each pass over the signal costs time, and so does memory that was not touched before: of both, the fewest.
        y = (x * self.alpha).sin_().square_()
        return torch.addcmul(x, y, (self.alpha + 1e-9).reciprocal())
