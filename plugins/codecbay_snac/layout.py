"""Levels of different rates laid out as uniform streams, and back. Nothing is lost or repeated.

A frame lasts as long as a code of the coarsest level; level ``i`` has ``streams[i]`` codes in it. The streams are the
codes of a frame, level by level from the first, and in time within a level. With strides 4, 2 and 1:

===========  ======================================
stream       code of frame ``t``
===========  ======================================
0            level 0 at ``t``
1, 2         level 1 at ``2 t``, ``2 t + 1``
3, 4, 5, 6   level 2 at ``4 t`` … ``4 t + 3``
===========  ======================================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_streams(levels: Sequence[Tensor], streams: Sequence[int]) -> Tensor:
    """Lay levels out as streams.

    Args:
        levels: codes ``[B, T * streams[i]]`` of the first levels.
        streams: of each level.

    Returns:
        ``[B, K, T]``, with ``K`` the sum of the streams of the given levels.
    """
    parts = [level.unflatten(1, (-1, count)) for level, count in zip(levels, streams, strict=False)]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def to_levels(codes: Tensor, streams: Sequence[int]) -> list[Tensor]:
    """The levels that were laid out as streams.

    Args:
        codes: ``[B, K, T]`` of whole levels.
        streams: of each level.

    Returns:
        Codes ``[B, T * streams[i]]`` of each level that ``K`` covers.
    """
    levels, first = [], 0
    for count in streams:
        if first == codes.shape[1]:
            break
        levels.append(codes[:, first : first + count].transpose(1, 2).flatten(1))
        first += count
    return levels
