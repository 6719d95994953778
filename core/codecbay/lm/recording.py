"""Decoding on the CPU: a step is recorded once, and repeated without Python.

A step is more than a thousand small operations. Called one by one from Python they take as long as reading the weights
does; torch's tracer writes them down as they are called, and its interpreter repeats them in a fifth of that time. A
recording repeats what it saw to the letter: whatever differs from step to step, or from one generation to the next,
comes in by a tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

import torch
from torch import Tensor, nn

from codecbay.lm.conditioners import ConditionTensors
from codecbay.lm.config import TransformerConfig
from codecbay.lm.transformer import DecodingState
from codecbay.packed import Projection

if TYPE_CHECKING:
    from codecbay.lm.model import LMModel

Step = Callable[[DecodingState, Tensor], Tensor]
_tracing = Lock()  # torch traces in one thread at a time


class _StateOfTensors(DecodingState):
    """Continues a sequence by one step, at a position that a tensor tells.

    Args:
        config: of the transformer.
        cache: of keys and values.
        cross: for each layer, keys and values of the conditions, one after the other.
        here: steps decoded so far, ``[1]``.
        rotary: the position that rotary embeddings give to the next step, ``[1]``.
    """

    def __init__(
        self, config: TransformerConfig, cache: Tensor, cross: Sequence[Tensor], here: Tensor, rotary: Tensor
    ) -> None:
        self._config, self._cache, self._here, self._rotary = config, cache, here, rotary
        self.cross = list(zip(cross[::2], cross[1::2], strict=True)) or [None] * config.num_layers
        self.position = 1  # that there is something before this step is all that layers ask for

    def begin(self, steps: int) -> None:
        here, window = self._here[0], self._config.past_context
        first: Any = 0 if window is None else (here - window).clamp(min=0)
        self._new = self._cache[..., here : here + 1, :].flatten(0, 1).unbind()
        self._seen = self._cache[..., first : here + 1, :].flatten(0, 1).unbind()

    def advance(self, steps: int) -> None:
        pass  # the host counts

    def positions(self, steps: int) -> Tensor:
        return self._here

    def rotary_positions(self, steps: int) -> Tensor:
        return self._rotary


class _Step(nn.Module):
    """A step of a model, from tensors to a tensor.

    The tracer takes what a module consists of for what it is at each repetition: the parameters, and weights packed in
    objects of torch's own. They lie side by side: of modules within, the tracer would make one script each, first.
    """

    def __init__(self, model: LMModel, names: Sequence[str]) -> None:
        super().__init__()
        self._model, self._names = [model], names  # in a list, which hides its modules
        parts = nn.ModuleList(child for child in model.children() if child is not model.condition_provider)
        for i, parameter in enumerate(parts.parameters()):
            self.register_parameter(f"parameter_{i}", parameter)
        for i, buffer in enumerate(parts.buffers()):
            self.register_buffer(f"buffer_{i}", buffer)
        for i, product in enumerate(products(model)):
            packed = None if product is None else product.packed
            if isinstance(packed, Tensor):
                self.register_buffer(f"packed_{i}", packed)
            elif packed is not None:
                setattr(self, f"packed_{i}", packed)

    def forward(self, new: Tensor, here: Tensor, rotary: Tensor, cache: Tensor, *others: Tensor) -> Tensor:
        (model,) = self._model
        conditions = {name: (x, x) for name, x in zip(self._names, others, strict=False)}
        cross = others[len(conditions) :]
        return model._step(conditions, _StateOfTensors(model.config.transformer, cache, cross, here, rotary), new)


def products(model: nn.Module) -> list[Any]:
    """What a model's projections multiply by."""
    return [module.product for module in model.modules() if isinstance(module, Projection)]


class Recording:
    """A step of a model, recorded when it is first taken.

    Args:
        model: that takes it.
        rows: of the batch.
        names: of the conditions.
        others: what a recording depends on besides.
    """

    def __init__(self, model: ReferenceType[LMModel], rows: int, names: Sequence[str], *others: object) -> None:
        self._model, self._names = model, names
        self._repeat: Callable[..., Tensor] | None = None

    def __call__(self, conditions: ConditionTensors, state: DecodingState, new: Tensor) -> Tensor:
        """The next step ``[B, K, 1]`` to logits ``[B, K, card]`` for what follows it."""
        inputs = (
            new,
            torch.tensor([state.position]),
            torch.tensor([state.rotary_position]),
            state._cache,
            *(conditions[name][0] for name in self._names),
            *(tensor for pair in state.cross if pair is not None for tensor in pair),
        )
        if self._repeat is None:
            self._repeat = self._record(inputs)
        logits = self._repeat(*inputs)
        state.advance(1)
        return logits

    def _record(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        model = self._model()
        assert model is not None  # it is at work
        step = _Step(model, self._names)
        with _tracing, warnings.catch_warnings():
            # That shapes of a single step are taken for constants, as they are; and that other tracers are newer.
            warnings.simplefilter("ignore")
            repeat: Callable[..., Tensor] = torch.jit.trace(step, inputs, check_trace=False)
        step._model.clear()  # the tracer leaves it to the garbage collector
        return repeat


class RecordedSteps:
    """Decodes a sequence: its first chunk as it comes, then one step at a time by a recording.

    Args:
        step: from a state and steps ``[B, K, S]`` to logits ``[B, K, card]`` for what follows the last of them.
        state: of the sequence, of which nothing is decoded yet.
        repeat: the same for one step of a sequence that has begun.
    """

    def __init__(self, step: Step, state: DecodingState, repeat: Step) -> None:
        self._step, self._state, self._repeat = step, state, repeat

    def __call__(self, new: Tensor) -> Tensor:
        """The next steps ``[B, K, S]`` to logits ``[B, K, card]``."""
        return (self._repeat if self._state.position else self._step)(self._state, new)
