"""Decoding on CUDA: single steps of static shapes, replayed as CUDA graphs.

A step is a thousand small kernels, which take the host longer to launch one by one than the device to run. A CUDA graph
launches them all at once, but repeats what it recorded to the letter: the same kernels at the same addresses, with the
same numbers from the host. So whatever changes from step to step lies in tensors that stay where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from codecbay.lm.transformer import DecodingState

_BUCKET = 256
_WARM_UP = 3  # runs in which libraries set themselves up, as they may not while a graph is recorded
_recording = Lock()

Step = Callable[[DecodingState, Tensor], Tensor]
Runner = Callable[[int, Callable[[], None]], None]


class StaticState(DecodingState):
    """Continues a sequence one step at a time, with nothing from the host that changes from step to step.

    Layers see a bucket of the cache, which is the steps so far rounded up to a multiple of 256; the mask hides what is
    not decoded yet, and what lies before the window.

    Args:
        before: the sequence so far; its memory is taken over.

    Attributes:
        position: steps decoded so far, counted on the host by whoever runs the steps. It chooses the bucket only.
    """

    def __init__(self, before: DecodingState) -> None:
        self._config, self._cache, self.cross = before._config, before._cache, before.cross
        self.position = before.position
        self._here = torch.full((1,), before.position, device=self._cache.device)
        self._rotary = torch.full_like(self._here, before.rotary_position)
        self._cache[..., self.position :, :] = 0  # hidden values are multiplied by 0, which leaves no number of a NaN
        self._slots = self._cache.flatten(0, 1).unbind()

    @property
    def bucket(self) -> int:
        """Steps of the cache that the next step sees or has masked."""
        return min((self.position // _BUCKET + 1) * _BUCKET, self._cache.shape[-2])

    def begin(self, steps: int) -> None:
        """Make the mask of one step."""
        self._seen = self._cache[..., : self.bucket, :].flatten(0, 1).unbind()
        ahead = torch.arange(self.bucket, device=self._here.device) - self._here[:, None]
        hidden = ahead > 0
        if self._config.past_context is not None:
            hidden |= ahead < -self._config.past_context
        dtype = torch.float32 if self._config.attention_as_float32 else self._cache.dtype
        self.mask = torch.zeros_like(ahead, dtype=dtype).masked_fill(hidden, float("-inf"))

    def remember(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's new keys and values ``[B, H, 1, E]`` in their place, and return the bucket."""
        for i, new in ((2 * layer, key), (2 * layer + 1, value)):
            self._slots[i].index_copy_(2, self._here, new.to(self._cache.dtype))
        return self._seen[2 * layer], self._seen[2 * layer + 1]

    def advance(self, steps: int) -> None:
        """Count on the device."""
        self._here += steps
        if not self._config.memory_efficient:  # see DecodingState.rotary_position
            self._rotary += steps

    def positions(self, steps: int) -> Tensor:
        """The position ``[1]`` of the next step."""
        return self._here

    def rotary_positions(self, steps: int) -> Tensor:
        """The position ``[1]`` that rotary embeddings give to the next step."""
        return self._rotary


class StaticSteps:
    """Decodes a sequence: its first chunk as it comes, then one step at a time between buffers that stay.

    Args:
        step: from a state and steps ``[B, K, S]`` to logits ``[B, K, card]`` for what follows the last of them.
        state: of the sequence, of which nothing is decoded yet.
        run: runs functions of static tensors; equal keys come with functions of equal shapes.
    """

    def __init__(self, step: Step, state: DecodingState, run: Runner) -> None:
        self._step = step
        self._state = state
        self._run = run

    def __call__(self, new: Tensor) -> Tensor:
        """The next steps ``[B, K, S]`` to logits ``[B, K, card]``, which hold until the next call."""
        if not isinstance(self._state, StaticState):
            logits = self._step(self._state, new)
            self._state = StaticState(self._state)
            self._steps, self._logits = torch.empty_like(new[..., -1:]), torch.empty_like(logits)
            return logits
        self._steps.copy_(new)
        self._run(self._state.bucket, self._next)
        self._state.position += 1
        return self._logits

    def _next(self) -> None:
        self._logits.copy_(self._step(self._state, self._steps))


class CudaGraphs:
    """Runs functions of static tensors as CUDA graphs, one for each key, after a few runs as they are.

    All of these runs count, none is a rehearsal: no state has to be put back.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._runs: Counter[int] = Counter()
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, key: int, function: Callable[[], None]) -> None:
        """Run ``function``, or the graph that was recorded of it."""
        self._runs[key] += 1
        if self._runs[key] <= _WARM_UP:
            current = torch.cuda.current_stream(self._stream.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):  # which graphs are recorded on, with what libraries keep for it
                function()
            current.wait_stream(self._stream)
            return
        if key not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the device, but one recording at a time is all that torch allows.
            with _recording, torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                function()
            self._graphs[key] = graph
        self._graphs[key].replay()
