"""The causal transformer of MusicGen and AudioGen, with a static key/value cache for decoding step by step.

Parameter names are AudioCraft's, so that its state dicts load as they are.

Letters: ``B`` batch, ``T`` steps, ``D`` model width, ``H`` heads, ``E`` width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codecbay.errors import GenerationError
from codecbay.lm.config import TransformerConfig
from codecbay.lm.rotary import RotaryEmbedding

_EPS = 1e-5


@dataclass
class LayerCache:
    """What a layer remembers while decoding: its own keys and values ``[B, H, capacity, E]``, and those of the
    conditions it attends to, which are the same at every step."""

    key: Tensor
    value: Tensor
    cross: tuple[Tensor, Tensor] | None = None


class DecodingState:
    """Where a sequence stands while it is decoded step by step.

    Args:
        config: of the transformer.
        batch: ``B``.
        capacity: steps that will be decoded at most, conditions put in front included.
    """

    def __init__(
        self, config: TransformerConfig, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        heads = config.num_heads // config.kv_repeat
        shape = (batch, heads, capacity, config.head_dim)
        self._config = config
        self.position = 0
        self._first = 0
        self.layers = [
            LayerCache(torch.empty(shape, device=device, dtype=dtype), torch.empty(shape, device=device, dtype=dtype))
            for _ in range(config.num_layers)
        ]

    def advance(self, steps: int) -> None:
        """Count ``steps`` more as decoded."""
        self._first = self._first or steps
        self.position += steps

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
        self.out_proj = nn.Linear(dim, dim, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)


class Attention(nn.Module):
    """Multi-head attention, of a sequence to itself or to conditions.

    The parameters stand directly in this module or under ``mha``, as the configuration says.
    """

    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    out_proj: nn.Linear

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
        self.sizes = [config.dim, kv_dim, kv_dim]
        self.rope = rope
        self.q_layer_norm: nn.Module | None = None
        self.k_layer_norm: nn.Module | None = None
        if config.qk_layer_norm_cross if cross else config.qk_layer_norm:
            self.q_layer_norm = nn.LayerNorm(config.dim)
            self.k_layer_norm = nn.LayerNorm(config.dim)

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
        return torch.unflatten(x, -1, (-1, self.config.head_dim)).transpose(1, 2)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, T, E]`` of the conditions ``[B, T, D]`` that cross attention looks at."""
        weight, bias, dim = self._params.in_proj_weight, self._params.in_proj_bias, self.config.dim
        projected = F.linear(source, weight[dim:], None if bias is None else bias[dim:])
        key, value = projected.chunk(2, dim=-1)
        if self.k_layer_norm is not None:
            key = self.k_layer_norm(key)
        return self._split(key), self._split(value)

    def forward_cross(self, x: Tensor, kv: tuple[Tensor, Tensor]) -> Tensor:
        """Attend from ``x`` ``[B, T, D]`` to conditions; see :meth:`keys_and_values`."""
        weight, bias, dim = self._params.in_proj_weight, self._params.in_proj_bias, self.config.dim
        query = F.linear(x, weight[:dim], None if bias is None else bias[:dim])
        if self.q_layer_norm is not None:
            query = self.q_layer_norm(query)
        return self._attend(self._split(query), *kv, mask=None, is_causal=False)

    def forward(self, x: Tensor, state: DecodingState | None = None, cache: LayerCache | None = None) -> Tensor:
        """Attend from ``x`` ``[B, T, D]`` to itself and to what ``cache`` remembers."""
        projected = F.linear(x, self._params.in_proj_weight, self._params.in_proj_bias)
        query, key, value = projected.split(self.sizes, dim=-1)
        if self.q_layer_norm is not None and self.k_layer_norm is not None:
            query, key = self.q_layer_norm(query), self.k_layer_norm(key)
        query, key, value = self._split(query), self._split(key), self._split(value)
        if self.rope is not None:
            query, key = self.rope(query, key, state.rotary_position if state else 0)
        past, steps = 0, x.shape[1]
        window = self.config.past_context
        if state is not None and cache is not None:
            past = state.position
            cache.key[:, :, past : past + steps] = key
            cache.value[:, :, past : past + steps] = value
            # One step sees all that is cached; a window cuts off what lies before it.
            first = 0 if window is None or steps > 1 else max(0, past - window)
            key, value = cache.key[:, :, first : past + steps], cache.value[:, :, first : past + steps]
        if not self.config.causal or steps == 1:
            return self._attend(query, key, value, mask=None, is_causal=False)
        if past == 0 and (window is None or self.config.memory_efficient):
            return self._attend(query, key, value, mask=None, is_causal=True)
        distance = torch.arange(past, past + steps, device=x.device)[:, None] - torch.arange(
            past + steps, device=x.device
        )
        mask = distance >= 0
        if window is not None:
            mask &= distance <= window
        return self._attend(query, key, value, mask=mask, is_causal=False)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, is_causal: bool) -> Tensor:
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

        def scale() -> nn.Module:
            return nn.Identity() if config.layer_scale is None else LayerScale(dim, config.layer_scale)

        self.norm_first = config.norm_first
        self.self_attn = Attention(config, rope, cross=False)
        self.linear1 = nn.Linear(dim, config.dim_feedforward, bias=config.bias_ff)
        self.linear2 = nn.Linear(config.dim_feedforward, dim, bias=config.bias_ff)
        self.activation = F.relu if config.activation == "relu" else F.gelu
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layer_scale_1 = scale()
        self.layer_scale_2 = scale()
        self.cross_attention: Attention | None = None
        if config.cross_attention:
            self.cross_attention = Attention(config, None, cross=True)
            self.norm_cross = nn.LayerNorm(dim, eps=_EPS)
            self.layer_scale_cross = scale()

    def forward(
        self,
        x: Tensor,
        cross: Tensor | None,
        state: DecodingState | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """``x`` ``[B, T, D]`` through the layer; ``cross`` ``[B, T, D]`` are conditions to attend to."""
        if self.norm_first:
            x = x + self.layer_scale_1(self.dropout(self.self_attn(self.norm1(x), state, cache)))
            if self.cross_attention is not None:
                x = x + self.layer_scale_cross(self._cross_block(self.norm_cross(x), cross, cache))
            return x + self.layer_scale_2(self._feed_forward(self.norm2(x)))  # type: ignore[no-any-return]
        source = x
        x = self.norm1(x + self.layer_scale_1(self.dropout(self.self_attn(x, state, cache))))
        if self.cross_attention is not None:
            # In AudioCraft's post-norm layers the queries come from what entered the layer.
            x = self.norm_cross(x + self.layer_scale_cross(self._cross_block(source, cross, cache)))
        return self.norm2(x + self.layer_scale_2(self._feed_forward(x)))  # type: ignore[no-any-return]

    def _cross_block(self, x: Tensor, cross: Tensor | None, cache: LayerCache | None) -> Tensor:
        assert self.cross_attention is not None
        kv = cache.cross if cache is not None else None
        if kv is None:
            if cross is None:
                raise GenerationError("This model attends to conditions, and none were given.")
            kv = self.cross_attention.keys_and_values(cross)
            if cache is not None:
                cache.cross = kv
        y: Tensor = self.dropout(self.cross_attention.forward_cross(x, kv))
        return y

    def _feed_forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return y


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
        start, steps = (state.position if state else 0), x.shape[1]
        if self.config.positional_embedding != "rope":
            positions = torch.arange(start, start + steps, device=x.device)
            embedding = sinusoidal_embedding(positions, self.config.dim, self.config.max_period)
            x = x + self.config.positional_scale * embedding.to(x.dtype)
        for i, layer in enumerate(self.layers):
            if self.config.checkpointing and self.training:
                x = checkpoint(layer, x, cross, use_reentrant=False)
            else:
                x = layer(x, cross, state, state.layers[i] if state else None)
        if state is not None:
            state.advance(steps)
        return x


def sinusoidal_embedding(positions: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines, then sines, of ``positions`` ``[T]`` at ``dim / 2`` rates: ``[T, dim]``, float32."""
    half = dim // 2
    rates = max_period ** (torch.arange(half, device=positions.device, dtype=torch.float32) / (half - 1))
    phase = positions.to(torch.float32)[:, None] / rates
    return torch.cat([phase.cos(), phase.sin()], dim=-1)
