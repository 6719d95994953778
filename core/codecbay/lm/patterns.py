"""Codebook patterns: how ``K`` parallel streams of codes are laid out over the steps of one sequence.

A pattern is a table ``[K, S]`` that says which frame of codebook ``k`` stands at sequence step ``s``. The five
layouts are those of MusicGen (Copet et al. 2023, https://arxiv.org/abs/2306.05284, section 2.2). Step 0 is
empty: it holds the special token that a sequence starts with.

Letters: ``B`` batch, ``K`` codebooks, ``T`` frames, ``S`` sequence steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from codecbay.errors import ConfigError
from codecbay.lm.config import PatternConfig

Step = list[tuple[int, int]]  # the (frame, codebook) pairs that share a sequence step
_NOWHERE = -1


class Pattern:
    """The layout of ``T`` frames of ``K`` codebooks.

    Attributes:
        num_frames: ``T``.
        frames: the frame at each step, ``[K, S]``; negative where there is none. Values from ``T`` on are steps
            past the end, which delays bring about.
        mask: where ``frames`` is one of the ``T`` frames, ``[K, S]``.
    """

    def __init__(self, steps: list[Step], num_codebooks: int, num_frames: int) -> None:
        frames = np.full((num_codebooks, len(steps)), _NOWHERE, dtype=np.int64)
        for s, step in enumerate(steps):
            for t, k in step:
                frames[k, s] = t
        for k, row in enumerate(frames):
            if (np.diff(row[row >= 0]) < 0).any():
                raise ConfigError(f"The codebook pattern goes back in time in codebook {k}.")
        self.num_frames = num_frames
        self.frames = torch.from_numpy(frames)
        self.mask = (self.frames >= 0) & (self.frames < num_frames)
        self.starts_empty = not steps[0]
        # Steps whose context is complete: without those that only delays bring about.
        self._valid_steps = len(steps) - (int(self.frames[:, 1:].max()) + 1 - num_frames)

    @property
    def num_steps(self) -> int:
        """Sequence steps ``S``, the empty first one included."""
        return self.frames.shape[1]

    def first_step(self, frame: int) -> int:
        """The first sequence step that holds any codebook of ``frame``."""
        return int((self.frames == frame).any(0).nonzero()[0])

    def lay_out(self, codes: Tensor, special: int, *, valid_only: bool = False) -> Tensor:
        """Codes ``[B, K, T]`` as a sequence ``[B, K, S]``, ``special`` where the pattern has no code.

        Args:
            codes: int64.
            special: fills the holes.
            valid_only: stop where the context becomes incomplete.
        """
        steps = self._valid_steps if valid_only else self.num_steps
        index = self.frames[:, :steps].clamp(0, self.num_frames - 1).to(codes.device)
        mask = self.mask[:, :steps].to(codes.device)
        laid_out = codes.gather(-1, index.expand(len(codes), -1, -1))
        return laid_out.masked_fill(~mask, special)

    def gather(self, sequence: Tensor, *, predictions: bool = False) -> tuple[Tensor, Tensor]:
        """Bring a sequence ``[B, K, S, ...]`` back to the frames ``[B, K, T, ...]`` and say which are there.

        Args:
            sequence: anything laid out along the steps.
            predictions: it holds the model's outputs, one step ahead of its inputs.

        Returns:
            The values (0 where there is none) and a mask ``[K, T]``.
        """
        shift = int(predictions and self.starts_empty)
        frames = self.frames[:, shift : sequence.shape[2]]
        index = torch.full((len(frames), self.num_frames), _NOWHERE)
        for k, row in enumerate(frames):
            steps = ((row >= 0) & (row < self.num_frames)).nonzero()[:, 0]
            index[k, row[steps]] = steps
        index = index.to(sequence.device)
        mask = index >= 0
        shape = (1, *index.shape, *[1] * (sequence.dim() - 3))
        wanted = index.clamp(min=0).view(shape).expand(len(sequence), -1, -1, *sequence.shape[3:])
        return sequence.gather(2, wanted).masked_fill(~mask.view(shape), 0), mask


@lru_cache(maxsize=64)
def get_pattern(config: PatternConfig, num_codebooks: int, num_frames: int) -> Pattern:
    """The pattern that a configuration describes, for ``num_frames`` frames.

    Raises:
        ConfigError: the options of the pattern contradict each other.
    """
    layout = {
        "delay": _delay,
        "parallel": _delay,
        "unroll": _unroll,
        "coarse_first": _coarse_first,
        "musiclm": _musiclm,
    }[config.name]
    return Pattern(list(layout(config, num_codebooks, num_frames)), num_codebooks, num_frames)


def _delay(config: PatternConfig, K: int, T: int) -> Iterator[Step]:  # noqa: N803
    """Codebook ``k`` comes ``delays[k]`` steps late; the first frames may be flattened to one code a step."""
    delays = config.delays or (range(K) if config.name == "delay" else [0] * K)
    flat = config.flatten_first
    yield from ([] for _ in range(1 + config.empty_initial))
    yield from ([(t, k)] for t in range(min(T, flat)) for k in range(K))
    for t in range(flat, T + max(delays)):
        yield [(t - delay, k) for k, delay in enumerate(delays) if t - delay >= flat]


def _unroll(config: PatternConfig, K: int, T: int) -> Iterator[Step]:  # noqa: N803
    """Every frame takes several steps, ``flattening[k]`` telling in which of them codebook ``k`` stands."""
    flattening = config.flattening or range(K)
    delays = config.delays or [0] * K
    by_inner_step: dict[int, list[int]] = {}
    for k, inner in enumerate(flattening):
        by_inner_step.setdefault(inner, []).append(k)
    end = T + max(delays)
    steps: list[tuple[int, Step]] = [(-1, [])]
    for t in range(end):
        for inner in range(max(by_inner_step) + 1):
            codebooks = by_inner_step.get(inner)
            if codebooks is None:
                steps.append((t, []))
            elif t + delays[codebooks[0]] < end:
                steps.append((t + delays[codebooks[0]], [(t, k) for k in codebooks]))
    yield from (step for _, step in sorted(steps))


def _coarse_first(config: PatternConfig, K: int, T: int) -> Iterator[Step]:  # noqa: N803
    """All of codebook 0 first, then the others side by side."""
    delays = config.delays or [0] * (K - 1)
    yield []
    yield from ([(t, 0)] for t in range(T))
    for t in range(T + max(delays)):
        yield [(t - delay, k + 1) for k, delay in enumerate(delays) if t >= delay]


def _musiclm(config: PatternConfig, K: int, T: int) -> Iterator[Step]:  # noqa: N803
    """Groups of codebooks one after another, each flattened to one code a step."""
    yield []
    for first in range(0, K, config.group_by):
        yield from ([(t, k)] for t in range(T) for k in range(first, first + config.group_by))
