"""The language model over codes.

Letters: ``B`` batch, ``K`` codebooks (``n_q``), ``T`` frames, ``S`` sequence steps, ``D`` width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from weakref import ref

import torch
from torch import Tensor, nn

from codecbay.errors import GenerationError
from codecbay.lm.conditioners import (
    ConditioningAttributes,
    ConditioningProvider,
    ConditionTensors,
    Fuser,
)
from codecbay.lm.config import LMConfig
from codecbay.lm.graphs import CudaGraphs, StaticSteps
from codecbay.lm.patterns import get_pattern
from codecbay.lm.recording import RecordedSteps, Recording, products
from codecbay.lm.sampling import Sampling
from codecbay.lm.transformer import Attention, DecodingState, LayerNorm, Transformer
from codecbay.packed import Linear, Pack, Packing, Projection, keep_scratch

Callback = Callable[[int, int], None]
_UNKNOWN = -1


@dataclass
class LMOutput:
    """Predictions for given codes.

    Attributes:
        logits: ``[B, K, T, card]``; 0 where ``mask`` is false.
        mask: ``[B, K, T]``; false where the codebook pattern leaves no complete context.
    """

    logits: Tensor
    mask: Tensor


class LMModel(Packing):
    """A transformer that predicts ``K`` streams of codes under conditions.

    It is an ordinary module that trains: in training mode :meth:`forward` drops conditions as the configuration
    says, and gradients flow through :meth:`compute_predictions`. Its state dict has AudioCraft's names.

    Args:
        config: sizes and options.
        condition_provider: the conditioners that the configuration names.
    """

    def __init__(self, config: LMConfig, condition_provider: ConditioningProvider) -> None:
        super().__init__()
        dim = config.transformer.dim
        self.config = config
        self.condition_provider = condition_provider
        self.fuser = Fuser(config.fuser)
        self.emb = nn.ModuleList(nn.Embedding(config.card + 1, dim) for _ in range(config.n_q))
        self.transformer = Transformer(config.transformer)
        self.out_norm: nn.Module | None = LayerNorm(dim, eps=1e-5) if config.transformer.norm_first else None
        self.linears = nn.ModuleList(nn.Linear(dim, config.card, bias=config.bias_proj) for _ in range(config.n_q))
        self.heads = Projection()
        self._recording = Pack(Recording)
        self._owns_memory = False
        self._dropout_rng = torch.Generator().manual_seed(1234)

    @property
    def n_q(self) -> int:
        """Codebooks ``K``."""
        return self.config.n_q

    @property
    def num_codebooks(self) -> int:
        """Codebooks ``K``."""
        return self.config.n_q

    @property
    def card(self) -> int:
        """Values of a code."""
        return self.config.card

    @property
    def special_token_id(self) -> int:
        """Stands where the pattern has no code."""
        return self.config.card

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.emb[0].weight.device  # type: ignore[return-value]

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's parameters; matrices may be kept as they were stored, in a shorter one."""
        return self.transformer.layers[0].norm1.weight.dtype  # type: ignore[union-attr, return-value]

    @property
    def arithmetic(self) -> torch.dtype:
        """The dtype that the model computes in. On a CPU, shorter ones than float32 make weights smaller, but
        arithmetic slower: there, without gradients, it is float32."""
        return torch.float32 if self.device.type == "cpu" and not torch.is_grad_enabled() else self.dtype

    @property
    def packs(self) -> Sequence[Pack[Recording]]:
        """See :attr:`Packing.packs`."""
        return (self._recording,)

    def _repeats_on(self, device: str) -> bool:
        """Whether steps are recorded once, as it is done on that kind of device, and repeated.

        With hooks on modules they are not, and where what is computed depends on more than the model.
        """
        if self.device.type != device or self.training or torch.is_autocast_enabled(device):
            return False
        return not any(module._forward_hooks or module._forward_pre_hooks for module in self.modules())

    def quantize(self) -> Self:
        """Work on 8-bit weights from now on, on the CPU and without gradients.

        The matrices of the transformer and of its output heads get a scale for each feature out; embeddings, norms,
        biases and conditioners, which are a small part of what a step reads, stay as they are. The parameters do not
        change: they are what is saved, and trained.
        """
        for module in self.modules():
            if isinstance(module, Projection):
                module.precision = torch.int8
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or back. Parameters that lie in the mapped package file, maybe in a shorter dtype, get
        memory of their own."""
        if mode and not self._owns_memory:
            for parameter in self.parameters():
                parameter.data = parameter.data.to(self.dtype, copy=True)
            self._owns_memory = True
        return super().train(mode)

    def forward(
        self,
        sequence: Tensor,
        conditions: Sequence[ConditioningAttributes] = (),
        condition_tensors: ConditionTensors | None = None,
        state: DecodingState | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the steps that follow each step of a sequence.

        Args:
            sequence: int64 ``[B, K, S]``, laid out by the codebook pattern.
            conditions: of each item of the batch; or
            condition_tensors: the same, computed before.
            state: the sequence continues what this remembers.
            last_only: predict only what follows the last step.

        Returns:
            Logits ``[B, K, S, card]``; ``S`` is 1 with ``last_only``.
        """
        if condition_tensors is None:
            condition_tensors = self.condition_provider(self._drop_conditions(conditions)) if conditions else {}
        dtype = self.arithmetic
        condition_tensors = {name: (x.to(dtype), mask) for name, (x, mask) in condition_tensors.items()}
        steps = sequence.shape[-1]
        x = self.emb[0](sequence[:, 0]).to(dtype)
        for k in range(1, self.n_q):
            x = x + self.emb[k](sequence[:, k])
        x, cross = self.fuser(x, condition_tensors, first=state is None or state.position == 0)
        x = self.transformer(x, cross, state)
        x = x[:, -1:] if last_only else x[:, -steps:]  # without what conditions put in front
        if self.out_norm is not None:
            x = self.out_norm(x)
        logits: Tensor = self.heads(x, *self._head_weights())
        logits = logits.unflatten(-1, (self.n_q, self.card))
        return logits.transpose(1, 2)

    def _step(self, condition_tensors: ConditionTensors, state: DecodingState, new: Tensor) -> Tensor:
        """The next steps ``[B, K, S]`` to logits ``[B, K, card]`` for what follows the last of them."""
        logits: Tensor = self(new, condition_tensors=condition_tensors, state=state, last_only=True)
        return logits[:, :, -1]

    def _head_weights(self) -> tuple[list[Tensor], list[Tensor]]:
        linears: list[Any] = list(self.linears)
        return [linear.weight for linear in linears], [linear.bias for linear in linears if linear.bias is not None]

    def _pack(self, rows: int) -> None:
        """Lay out copies of the weights for decoding with so many rows, in as many threads as torch uses."""
        for module in self.modules():
            if isinstance(module, Projection):
                module.rows = rows
                if module.precision != torch.int8:
                    module.precision = self.dtype
        jobs: list[Callable[[], object]] = [lambda: self.heads.pack(*self._head_weights())]
        jobs += [module.pack for module in self.modules() if isinstance(module, (Attention, Linear))]
        with ThreadPoolExecutor(torch.get_num_threads(), initializer=keep_scratch) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def _drop_conditions(self, conditions: Sequence[ConditioningAttributes]) -> Sequence[ConditioningAttributes]:
        if not self.training:
            return conditions
        if self._chance() < self.config.cfg_dropout:
            return [item.null() for item in conditions]
        for kind, probabilities in self.config.attribute_dropout.items():
            for name, probability in probabilities.items():
                if self._chance() < probability:
                    conditions = [
                        item.without(kind, name) if name in getattr(item, kind) else item for item in conditions
                    ]
        return conditions

    def _chance(self) -> float:
        return float(torch.rand(1, generator=self._dropout_rng))

    def compute_predictions(
        self,
        codes: Tensor,
        conditions: Sequence[ConditioningAttributes] = (),
        condition_tensors: ConditionTensors | None = None,
        keep_only_valid_steps: bool = True,
    ) -> LMOutput:
        """Predict every code from those before it in the codebook pattern.

        Args:
            codes: int64 ``[B, K, T]``.
            conditions: of each item of the batch; or
            condition_tensors: the same, computed before.
            keep_only_valid_steps: leave out the steps at the end whose context is incomplete.
        """
        pattern = get_pattern(self.config.pattern, self.n_q, codes.shape[-1])
        sequence = pattern.lay_out(codes, self.special_token_id, valid_only=keep_only_valid_steps)
        logits, mask = pattern.gather(self(sequence, conditions, condition_tensors), predictions=True)
        return LMOutput(logits, mask.expand(len(codes), -1, -1))

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor | None = None,
        conditions: Sequence[ConditioningAttributes] = (),
        num_samples: int | None = None,
        max_gen_len: int = 256,
        sampling: Sampling | None = None,
        cfg_coef: float | None = None,
        two_step_cfg: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        """Generate codes.

        Args:
            prompt: codes to continue, int64 ``[B, K, T]``.
            conditions: of each item of the batch.
            num_samples: ``B``, where neither of the above tells it.
            max_gen_len: frames of the result, those of the prompt included.
            sampling: how tokens are drawn.
            cfg_coef: strength of classifier-free guidance; the model's own by default.
            two_step_cfg: run the model once with and once without conditions instead of both in one batch. As
                in AudioCraft, the guidance then has the model's own strength.
            callback: called with the steps done and the steps to do.

        Returns:
            Codes ``[B, K, max_gen_len]``, the prompt included.

        Raises:
            GenerationError: the prompt leaves nothing to generate, or the model is not one that generates.
        """
        sampling = sampling or Sampling()
        if not self.config.transformer.causal:
            raise GenerationError("This model is not causal: it predicts codes, but cannot generate them in order.")
        batch = num_samples or (len(prompt) if prompt is not None else len(conditions) or 1)
        if prompt is None:
            prompt = torch.zeros(batch, self.n_q, 0, dtype=torch.long, device=self.device)
        if prompt.shape[-1] >= max_gen_len:
            raise GenerationError(
                f"The prompt has {prompt.shape[-1]} frames, which leaves nothing to generate of {max_gen_len}."
            )
        pattern = get_pattern(self.config.pattern, self.n_q, max_gen_len)
        codes = torch.full((batch, self.n_q, max_gen_len), _UNKNOWN, device=self.device)
        codes[..., : prompt.shape[-1]] = prompt
        sequence = pattern.lay_out(codes, self.special_token_id)
        mask = pattern.mask.to(self.device)
        start = pattern.first_step(prompt.shape[-1])
        if not start:
            raise GenerationError("This model's codebook pattern has no empty first step to generate from.")

        guide = self._guidance(conditions, batch, pattern.num_steps, cfg_coef, two_step_cfg)
        done = 0
        for step in range(start, pattern.num_steps):
            logits = guide(sequence[..., done:step])
            token = sampling(logits.float()).masked_fill(~mask[:, step], self.special_token_id)
            known = sequence[..., step]
            sequence[..., step] = torch.where(known == _UNKNOWN, token, known)
            done = step
            if callback is not None:
                callback(1 + step - start, pattern.num_steps - start)
        return pattern.gather(sequence)[0]

    def _guidance(
        self,
        conditions: Sequence[ConditioningAttributes],
        batch: int,
        steps: int,
        cfg_coef: float | None,
        two_step: bool,
    ) -> Callable[[Tensor], Tensor]:
        """A function from the next steps ``[B, K, S]`` to guided logits ``[B, K, card]``."""

        def stream(attributes: Sequence[ConditioningAttributes], rows: int) -> Callable[[Tensor], Tensor]:
            if self.device.type == "cpu":
                self._pack(rows)
            tensors = self.condition_provider(attributes) if attributes else {}
            capacity = steps + self.fuser.prefix_length(tensors)
            state = DecodingState(self.config.transformer, rows, capacity, self.device, self.arithmetic)
            step = partial(self._step, tensors)
            if self._repeats_on("cuda"):
                return StaticSteps(step, state, CudaGraphs(self.device))
            if self._repeats_on("cpu"):
                recording = self._recording(ref(self), rows, tuple(tensors), *products(self), *self.parameters())
                return RecordedSteps(step, state, partial(recording, tensors))
            return partial(step, state)

        own = self.config.cfg_coef
        if not conditions:
            return stream([], batch)
        null = [item.null() for item in conditions]
        if two_step:
            with_conditions, without = stream(conditions, batch), stream(null, batch)

            def two_steps(new: Tensor) -> Tensor:
                logits, base = with_conditions(new), without(new)
                return base + (logits - base) * own

            return two_steps
        both = stream([*conditions, *null], 2 * batch)

        def one_step(new: Tensor) -> Tensor:
            logits, base = torch.split(both(torch.cat([new, new])), batch)
            return base + (logits - base) * (own if cfg_coef is None else cfg_coef)

        return one_step
