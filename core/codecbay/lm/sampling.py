"""From logits to tokens.

On the CPU the draws consume torch's generator as AudioCraft's do: equal seeds give equal tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from codecbay.errors import GenerationError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        use_sampling: draw; otherwise take the likeliest.
        temperature: logits are divided by it; 0 takes the likeliest.
        top_k: draw among so many of the likeliest; 0 for all. More than there are means all.
        top_p: draw among the likeliest that together have this probability; goes before ``top_k``; 0 for all.
    """

    use_sampling: bool = True
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0

    def __post_init__(self) -> None:
        if not is_number(self.temperature) or not 0.0 <= self.temperature < float("inf"):
            raise GenerationError(f"temperature should be a number from 0, found {self.temperature!r}.")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise GenerationError(f"top_k should be a whole number from 0, found {self.top_k!r}.")
        if not is_number(self.top_p) or not 0.0 <= self.top_p <= 1.0:
            raise GenerationError(f"top_p should be between 0 and 1, found {self.top_p!r}.")

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits ``[B, K, card]`` to tokens ``[B, K]``."""
        if not self.use_sampling or self.temperature == 0.0:
            return logits.argmax(-1)
        probs = torch.softmax(logits / self.temperature, dim=-1)
        if self.top_p > 0.0:
            ordered, tokens = probs.sort(dim=-1, descending=True)
            ordered *= (ordered.cumsum(-1) - ordered <= self.top_p).to(ordered.dtype)
            drawn = _draw(ordered / ordered.sum(-1, keepdim=True))
            return tokens.gather(-1, drawn[..., None])[..., 0]
        if 0 < self.top_k < probs.shape[-1]:
            least = probs.topk(self.top_k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
            probs = probs * (probs >= least).to(probs.dtype)
        if self.top_k > 0:
            probs = probs / probs.sum(-1, keepdim=True)
        return _draw(probs)


def is_number(value: object) -> bool:
    """Whether a value is a number; ``True`` and ``False`` are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _draw(probs: Tensor) -> Tensor:
    if probs.is_cpu:
        return torch.multinomial(probs.flatten(0, -2), 1).view(probs.shape[:-1])
    return _race(probs)


def _race(probs: Tensor) -> Tensor:
    """What ``torch.multinomial`` draws, without its checks: for their outcome the host would wait for the device."""
    return (probs / torch.empty_like(probs).exponential_()).argmax(-1)
