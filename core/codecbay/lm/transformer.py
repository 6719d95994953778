"""The causal transformer of MusicGen and AudioGen, with a static key/value cache for decoding step by step.

Parameter names are AudioCraft's, so that its state dicts load as they are.

Letters: ``B`` batch, ``T`` steps, ``D`` model width, ``H`` heads, ``E`` width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codecbay.errors import GenerationError
from codecbay.lm.config import TransformerConfig
from codecbay.lm.rotary import RotaryEmbedding, Turns, turn
from codecbay.packed import Linear, Projection, mixed_linear

_EPS = 1e-5


class DecodingState:
    """What the layers remember while a sequence is decoded step by step, and where it stands.

    Args:
        config: of the transformer.
        batch: ``B``.
        capacity: steps that will be decoded at most, conditions put in front included.

    Attributes:
        position: steps decoded so far.
        cross: for each layer, keys and values of the conditions it attends to, which are the same at every step. The
            last rows of a batch may have none.
        mask: added to the scores of a single step where not all that :meth:`remember` returns is to be seen.
    """

    mask: Tensor | None = None

    def __init__(
        self, config: TransformerConfig, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        heads = config.num_heads // config.kv_repeat
        self._config = config
        self._first = 0
        self.position = 0
        self.cross: list[tuple[Tensor, Tensor] | None] = [None] * config.num_layers
        shape = (config.num_layers, 2, batch, heads, capacity, config.head_dim)
        self._cache = torch.empty(shape, device=device, dtype=dtype)
        self._new: Sequence[Tensor] = ()
        self._seen: Sequence[Tensor] = ()

    def begin(self, steps: int) -> None:
        """Make room for ``steps`` more."""
        window, past = self._config.past_context, self.position
        # One step sees all that is cached; a window cuts off what lies before it.
        first = 0 if window is None or steps > 1 else max(0, past - window)
        self._new = self._cache[..., past : past + steps, :].flatten(0, 1).unbind()
        self._seen = self._cache[..., first : past + steps, :].flatten(0, 1).unbind()

    def remember(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's new keys and values ``[B, H, T, E]`` behind those it has, and return all that it sees."""
        self._new[2 * layer].copy_(key)
        self._new[2 * layer + 1].copy_(value)
        return self._seen[2 * layer], self._seen[2 * layer + 1]

    def advance(self, steps: int) -> None:
        """Count ``steps`` more as decoded."""
        self._first = self._first or steps
        self.position += steps

    def positions(self, steps: int) -> Tensor:
        """The positions ``[T]`` of the next steps."""
        return torch.arange(self.position, self.position + steps, device=self._cache.device)

    def rotary_positions(self, steps: int) -> Tensor:
        """The positions ``[T]`` that rotary embeddings give to the next steps."""
        start = self.rotary_position
        return torch.arange(start, start + steps, device=self._cache.device)

    @property
    def rotary_position(self) -> int:
        """The position that rotary embeddings give to the next step.

        AudioCraft counts it from the cached keys, and two of its ways to count are part of what its models
        compute: with memory-efficient attention it reads the number of heads for the number of steps, and a
        first chunk longer than ``past_context`` counts as ``past_context`` steps.
        """
        config = self._config
        if not self.position:
            return 0
        if config.memory_efficient:
            return config.num_heads // config.kv_repeat
        first = self._first if config.past_context is None else min(self._first, config.past_context)
        return self.position - self._first + first


class _Projections(nn.Module):
    """The parameters of an attention block, under the names that ``nn.MultiheadAttention`` gives them."""

    def __init__(self, dim: int, out_dim: int, bias: bool) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(out_dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(out_dim)) if bias else None
        self.out_proj = Linear(dim, dim, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)


class Attention(nn.Module):
    """Multi-head attention, of a sequence to itself or to conditions.

    The parameters stand directly in this module or under ``mha``, as the configuration says.
    """

    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    out_proj: Linear

    def __init__(self, config: TransformerConfig, rope: RotaryEmbedding | None, *, cross: bool) -> None:
        super().__init__()
        self.config = config
        self.cross = cross
        self.kv_repeat = 1 if cross else config.kv_repeat
        kv_dim = config.dim // self.kv_repeat
        projections = _Projections(config.dim, config.dim + 2 * kv_dim, config.bias_attn)
        if config.flat_attention:
            self.in_proj_weight = projections.in_proj_weight
            self.in_proj_bias = projections.in_proj_bias
            self.out_proj = projections.out_proj
        else:
            self.mha = projections
        self.projection = Projection()
        self.heads = [size // config.head_dim for size in (config.dim, kv_dim, kv_dim)]
        self.rope = rope
        self.q_layer_norm: LayerNorm | None = None
        self.k_layer_norm: LayerNorm | None = None
        if config.qk_layer_norm_cross if cross else config.qk_layer_norm:
            self.q_layer_norm = LayerNorm(config.dim)
            self.k_layer_norm = LayerNorm(config.dim)

    @property
    def _params(self) -> Attention | _Projections:
        return self if self.config.flat_attention else self.mha

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # AudioCraft's own models may have been saved from nn.MultiheadAttention itself.
        if not self.config.flat_attention:
            for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"):
                if prefix + name in state_dict:
                    state_dict[f"{prefix}mha.{name}"] = state_dict.pop(prefix + name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.config.head_dim).transpose(1, 2)

    def pack(self) -> None:
        """Lay out copies of the weights for decoding, if there are none yet."""
        self.projection.pack(*self._projected())
        self._params.out_proj.pack()

    def _projected(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias from which steps are projected: for queries, and for their own keys and values."""
        weight, bias = self._params.in_proj_weight, self._params.in_proj_bias
        if self.cross:
            weight, bias = weight[: self.config.dim], None if bias is None else bias[: self.config.dim]
        return weight, bias

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, T, E]`` of the conditions ``[B, T, D]`` that cross attention looks at."""
        weight, bias, dim = self._params.in_proj_weight, self._params.in_proj_bias, self.config.dim
        key, value = mixed_linear(source, weight[dim:], None if bias is None else bias[dim:]).chunk(2, dim=-1)
        if self.k_layer_norm is not None:
            key = self.k_layer_norm(key)
        return self._split(key), self._split(value)

    def forward_cross(self, x: Tensor, kv: tuple[Tensor, Tensor]) -> Tensor:
        """Attend from ``x`` ``[B, T, D]`` to conditions; see :meth:`keys_and_values`."""
        query = self.projection(x, *self._projected())
        if self.q_layer_norm is not None:
            query = self.q_layer_norm(query)
        return self._attend(self._split(query), *kv)

    def forward(
        self, x: Tensor, turns: Turns | None = None, state: DecodingState | None = None, layer: int = 0
    ) -> Tensor:
        """Attend from ``x`` ``[B, T, D]`` to itself and to what ``state`` remembers."""
        heads = self._split(self.projection(x, *self._projected()))
        query, key, value = heads.split(self.heads, dim=1)
        if self.q_layer_norm is not None and self.k_layer_norm is not None:
            query, key = (
                self._split(norm(y.transpose(1, 2).flatten(2)))
                for norm, y in ((self.q_layer_norm, query), (self.k_layer_norm, key))
            )
        if turns is not None:
            query, key = turn(query, turns[0]), turn(key, turns[1])
        past, steps, mask = 0, x.shape[1], None
        if state is not None:
            past, mask = state.position, state.mask
            key, value = state.remember(layer, key, value)
        if not self.config.causal or steps == 1:
            return self._attend(query, key, value, mask=mask)
        window = self.config.past_context
        if past == 0 and (window is None or self.config.memory_efficient):
            return self._attend(query, key, value, is_causal=True)
        distance = torch.arange(past, past + steps, device=x.device)[:, None] - torch.arange(
            past + steps, device=x.device
        )
        mask = distance >= 0
        if window is not None:
            mask &= distance <= window
        return self._attend(query, key, value, mask=mask)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        dtype = query.dtype
        if self.kv_repeat > 1:
            key = key.repeat_interleave(self.kv_repeat, dim=1)
            value = value.repeat_interleave(self.kv_repeat, dim=1)
        if self.config.attention_as_float32:
            query, key, value = query.float(), key.float(), value.float()
        dropout = self.config.attention_dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=is_causal)
        out: Tensor = self._params.out_proj(x.to(dtype).transpose(1, 2).flatten(2))
        return out


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over inputs of any dtype, its weights in another or not."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``[..., D]``."""
        if self.weight.dtype == x.dtype:
            return super().forward(x)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class LayerScale(nn.Module):
    """A learnt factor for every channel (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``[..., D]``."""
        return self.scale * x


class Layer(nn.Module):
    """Self attention, cross attention where there is something to attend to, and a feed-forward block."""

    def __init__(self, config: TransformerConfig, rope: RotaryEmbedding | None) -> None:
        super().__init__()
        dim = config.dim

        def scale() -> LayerScale | None:
            return None if config.layer_scale is None else LayerScale(dim, config.layer_scale)

        self.norm_first = config.norm_first
        self.activation = config.activation
        self.dropout = config.dropout
        self.self_attn = Attention(config, rope, cross=False)
        self.linear1 = Linear(dim, config.dim_feedforward, bias=config.bias_ff)
        self.linear2 = Linear(config.dim_feedforward, dim, bias=config.bias_ff)
        self.norm1 = LayerNorm(dim, eps=_EPS)
        self.norm2 = LayerNorm(dim, eps=_EPS)
        self.layer_scale_1 = scale()
        self.layer_scale_2 = scale()
        self.cross_attention: Attention | None = None
        if config.cross_attention:
            self.cross_attention = Attention(config, None, cross=True)
            self.norm_cross = LayerNorm(dim, eps=_EPS)
            self.layer_scale_cross = scale()

    def forward(
        self,
        x: Tensor,
        cross: Tensor | None,
        turns: Turns | None = None,
        state: DecodingState | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Run over ``x`` ``[B, T, D]``.

        Args:
            x: steps.
            cross: conditions to attend to, ``[B, T, D]``.
            turns: rotations of queries and keys by their positions.
            state: remembers what came before ``x``.
            layer: the place of this layer in it.
        """
        if self.norm_first:
            x = self._add(x, self.self_attn(self.norm1(x), turns, state, layer), self.layer_scale_1)
            if self.cross_attention is not None:
                x = self._add(x, self._cross_block(self.norm_cross(x), cross, state, layer), self.layer_scale_cross)
            return self._add(x, self._feed_forward(self.norm2(x)), self.layer_scale_2)
        source = x
        x = self.norm1(self._add(x, self.self_attn(x, turns, state, layer), self.layer_scale_1))
        if self.cross_attention is not None:
            # In AudioCraft's post-norm layers the queries come from what entered the layer.
            y = self._cross_block(source, cross, state, layer)
            x = self.norm_cross(self._add(x, y, self.layer_scale_cross))
        return self.norm2(self._add(x, self._feed_forward(x), self.layer_scale_2))  # type: ignore[no-any-return]

    def _add(self, x: Tensor, y: Tensor, scale: LayerScale | None) -> Tensor:
        if self.training:
            y = F.dropout(y, self.dropout)
        return x + (y if scale is None else scale(y))

    def _cross_block(self, x: Tensor, cross: Tensor | None, state: DecodingState | None, layer: int) -> Tensor:
        assert self.cross_attention is not None
        kv = state.cross[layer] if state is not None else None
        if kv is None:
            if cross is None:
                raise GenerationError("This model attends to conditions, and none were given.")
            kv = self.cross_attention.keys_and_values(cross)
            if state is not None:
                state.cross[layer] = kv
        if state is None:
            return self.cross_attention.forward_cross(x, kv)
        filled = kv[0].shape[0]
        y = self.cross_attention.forward_cross(x[:filled], kv)
        return torch.cat([y, torch.zeros_like(x[filled:])])

    def _feed_forward(self, x: Tensor) -> Tensor:
        y = self.linear1(x, self.activation)
        if self.training:
            y = F.dropout(y, self.dropout)
        return self.linear2(y)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A stack of layers over embedded steps."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.rope: RotaryEmbedding | None = None
        if config.uses_rope:
            self.rope = RotaryEmbedding(config.head_dim, config.max_period, config.xpos, config.positional_scale)
        self.layers = nn.ModuleList(Layer(config, self.rope) for _ in range(config.num_layers))

    def forward(self, x: Tensor, cross: Tensor | None = None, state: DecodingState | None = None) -> Tensor:
        """Steps ``[B, T, D]`` in, steps ``[B, T, D]`` out; with ``state``, as the next steps of a sequence."""
        steps, turns = x.shape[1], None
        if self.config.positional_embedding != "rope":
            positions = torch.arange(steps, device=x.device) if state is None else state.positions(steps)
            embedding = sinusoidal_embedding(positions, self.config.dim, self.config.max_period)
            x = x + self.config.positional_scale * embedding.to(x.dtype)
        if self.rope is not None:
            turns = self.rope(torch.arange(steps, device=x.device) if state is None else state.rotary_positions(steps))
        if state is not None:
            state.begin(steps)
            if cross is not None and not self.config.bias_attn:
                cross = _without_empty_rows(cross)
        for i, layer in enumerate(self.layers):
            if self.config.checkpointing and self.training:
                x = checkpoint(layer, x, cross, turns, use_reentrant=False)
            else:
                x = layer(x, cross, turns, state, i)
        if state is not None:
            state.advance(steps)
        return x


def _without_empty_rows(cross: Tensor) -> Tensor:
    """Conditions ``[B, T, D]`` but for the last rows, if they are nothing but zeros, as without guidance's text.

    Their values are zeros, so that attending to them adds nothing: half of the rows under guidance.
    """
    filled = cross.flatten(1).any(1).nonzero()
    return cross[: int(filled.max()) + 1 if len(filled) else 1]


def sinusoidal_embedding(positions: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines, then sines, of ``positions`` ``[T]`` at ``dim / 2`` rates: ``[T, dim]``, float32."""
    half = dim // 2
    rates = max_period ** (torch.arange(half, device=positions.device, dtype=torch.float32) / (half - 1))
    phase = positions.to(torch.float32)[:, None] / rates
    return torch.cat([phase.cos(), phase.sin()], dim=-1)
