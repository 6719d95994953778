"""Rotary positions (RoPE, Su et al. 2021, https://arxiv.org/abs/2104.09864), optionally with the decay of xPos
(Sun et al. 2022, https://arxiv.org/abs/2212.10554)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Turns = tuple[Tensor, Tensor]  # of queries and of keys, complex ``[T, D / 2]``

_XPOS_SMOOTHING = 0.4
_XPOS_BASE_SCALE = 512


class _XPos(nn.Module):
    decay_rates: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        rates = (torch.arange(half) / half + _XPOS_SMOOTHING) / (1.0 + _XPOS_SMOOTHING)
        self.register_buffer("decay_rates", rates)


class RotaryEmbedding(nn.Module):
    """Rotates queries and keys by their position, in float32.

    Args:
        dim: width of an attention head.
        max_period: of the slowest rotation, in steps.
        xpos: decay queries and grow keys with their position, so that far keys count less.
        scale: 0 leaves the vectors as they are, 1 rotates them in full.
    """

    frequencies: Tensor

    def __init__(self, dim: int, max_period: float, xpos: bool, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("frequencies", 1.0 / (max_period ** (torch.arange(0, dim, 2).float() / dim)))
        self.xpos = _XPos(dim) if xpos else None

    def forward(self, positions: Tensor) -> Turns:
        """What :func:`turn` turns queries and keys by whose steps have the ``positions`` ``[T]``."""
        steps = positions.float()
        angles = torch.outer(steps, self.frequencies.float())
        rotation = torch.polar(torch.ones_like(angles), angles)
        if self.xpos is None:
            both = rotation * self.scale + (1.0 - self.scale)
            return both, both
        decay = self.xpos.decay_rates.float() ** (steps / _XPOS_BASE_SCALE)[:, None]
        of_queries = (rotation * decay) * self.scale + (1.0 - self.scale)
        of_keys = (rotation / decay) * self.scale + (1.0 - self.scale)
        return of_queries, of_keys


def turn(x: Tensor, by: Tensor) -> Tensor:
    """Turn ``[B, H, T, D]`` queries or keys."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * by).flatten(-2).type_as(x)
