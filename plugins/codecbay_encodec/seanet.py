"""The SEANet encoder and decoder (Tagliasacchi et al. 2020, https://arxiv.org/abs/2009.02095), as EnCodec has them.

Module names are AudioCraft's, so that its state dicts fit. Weight and spectral norms are folded into the weights
once, by :func:`fold_norms`, and not at every call.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

import abc
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from codecbay import packed
from codecbay.errors import ConfigError
from codecbay.packed import Conv1d, ConvTranspose1d
from codecbay.streaming import Chain, Recurrent, Residual, Stream, Trimmed, Whole, Windows, join, stream
from codecbay_encodec.config import Activation, SEANetConfig


def stored_by(norm: str, convolution: Conv1d | ConvTranspose1d) -> Conv1d | ConvTranspose1d:
    """A convolution that stores its weight in the parts of a norm, until :func:`fold_norms` puts them together.

    ``weight_norm`` stores length and direction, ``spectral_norm`` the weight and an estimate of its largest singular
    vectors, anything else the weight itself.
    """
    weight, transposed = convolution.weight, isinstance(convolution, nn.ConvTranspose1d)
    if norm == "weight_norm":
        convolution.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
        convolution.weight_v = nn.Parameter(weight)
        del convolution.weight
    elif norm == "spectral_norm":
        convolution.weight_orig = nn.Parameter(weight)
        convolution.register_buffer("weight_u", torch.ones(convolution.out_channels))
        convolution.register_buffer("weight_v", torch.ones(weight[:, 0].numel() if transposed else weight[0].numel()))
        del convolution.weight
    return convolution


def fold_norms(module: nn.Module) -> None:
    """Replace the parts of the weights of all convolutions by the weights."""
    for part in module.modules():
        parts: dict[str, Tensor] = {**part._parameters, **part._buffers}  # type: ignore[dict-item]
        if "weight_g" in parts:
            weight = torch._weight_norm(parts["weight_v"], parts["weight_g"], 0)
        elif "weight_orig" in parts:
            weight = parts["weight_orig"]
            matrix = weight.transpose(0, 1) if isinstance(part, nn.ConvTranspose1d) else weight
            weight = weight / (parts["weight_u"] @ (matrix.flatten(1) @ parts["weight_v"]))
        else:
            continue
        for name in parts.keys() - {"bias"}:
            delattr(part, name)
        part.weight = nn.Parameter(weight.detach(), requires_grad=False)


class Streamed(nn.Module, abc.ABC):
    """A module that runs as its streams do."""

    @abc.abstractmethod
    def stream(self) -> Stream:
        """The module at work on a signal that comes piece by piece."""

    def forward(self, x: Tensor) -> Tensor:
        """Run over ``[B, C, S]``."""
        return self.stream().push(x, last=True)


class TimeGroupNorm(nn.GroupNorm):
    """A norm over channels and time together, of as little as one value."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``[B, C, S]``."""
        # nn.GroupNorm refuses a single value, as training on it would make no sense; its norm is 0.
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class NormConv(nn.Module):
    """A convolution, and a norm over its output where there is one."""

    def __init__(self, name: str, convolution: Conv1d | ConvTranspose1d, config: SEANetConfig, norm: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, stored_by(norm, convolution))
        grouped = norm == "time_group_norm"
        self.norm = TimeGroupNorm(1, convolution.out_channels, **config.norm_params) if grouped else nn.Identity()

    @property
    def convolution(self) -> Conv1d | ConvTranspose1d:
        """Without the norm."""
        return self.get_submodule(self.name)  # type: ignore[return-value]


class Conv(Streamed):
    """A convolution padded so that ``S`` samples become ``ceil(S / stride)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        config: SEANetConfig,
        norm: str,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        convolution = Conv1d(in_channels, out_channels, kernel_size, stride, dilation=dilation)
        self.conv = NormConv("conv", convolution, config, norm)
        self.stride = stride
        self.pad_mode = config.pad_mode
        total = convolution.extent - stride
        right = 0 if config.causal else total // 2
        self.padding = (total - right, right)
        if total < 0:
            raise ConfigError(f"A kernel of {kernel_size} samples leaves gaps at a stride of {stride}.")

    def stream(self) -> Stream:
        """See :meth:`Streamed.stream`."""
        convolution = self.conv.convolution
        padded = partial(pad, mode=self.pad_mode)
        windows = Windows(convolution.valid, convolution.extent, self.stride, self.padding, padded, whole=True)
        # Going round, the beginning is padded with the end.
        first = [Whole(nn.Identity())] if self.pad_mode == "circular" else []
        return Chain([*first, windows, stream(self.conv.norm)])


def pad(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad ``[B, C, S]``; a signal too short to be reflected is lengthened with zeros first, and one too short to go
    round once goes round more often."""
    if mode == "constant" or not (left or right):
        return packed.pad(x, left, right)
    length = x.shape[-1]
    if mode == "reflect" and (short := max(left, right) - length + 1) > 0:
        return pad(packed.pad(x, 0, short), left, right, mode)[..., : left + length + right]

    def source(at: Tensor) -> Tensor:
        if mode == "circular":
            return at % length
        return at.clamp(0, length - 1) if mode == "replicate" else length - 1 - (length - 1 - at.abs()).abs()

    before = torch.arange(-left, 0, device=x.device)
    after = torch.arange(length, length + right, device=x.device)
    return join([x[..., source(before)], x, x[..., source(after)]])


class ConvTranspose(Streamed):
    """A transposed convolution trimmed so that ``T`` steps become ``T * stride``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        config: SEANetConfig,
        norm: str,
        stride: int,
    ) -> None:
        super().__init__()
        convolution = ConvTranspose1d(in_channels, out_channels, kernel_size, stride)
        self.convtr = NormConv("convtr", convolution, config, norm)
        total = kernel_size - stride
        self.right = math.ceil(total * config.trim_right_ratio) if config.causal else total // 2
        self.left = total - self.right

    def stream(self) -> Stream:
        """See :meth:`Streamed.stream`."""
        return Chain([stream(self.convtr.convolution), stream(self.convtr.norm), Trimmed(self.left, self.right)])


class LSTM(Streamed):
    """A recurrent layer over time, added to its input."""

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = packed.LSTM(dim, dim, num_layers)

    def stream(self) -> Stream:
        """See :meth:`Streamed.stream`."""
        return Residual(Recurrent(self.lstm))


class ResidualBlock(Streamed):
    """Two convolutions, the first dilated, beside a skip connection."""

    def __init__(self, dim: int, dilation: int, config: SEANetConfig, norm: str) -> None:
        super().__init__()
        hidden = dim // config.compress
        self.block = nn.Sequential(
            build_activation(config.activation, inplace=False),  # the skip connection takes its input too
            Conv(dim, hidden, config.residual_kernel_size, config, norm, dilation=dilation),
            build_activation(config.activation),
            Conv(hidden, dim, 1, config, norm),
        )
        self.shortcut = nn.Identity() if config.true_skip else Conv(dim, dim, 1, config, norm)

    def stream(self) -> Stream:
        """See :meth:`Streamed.stream`."""
        return Residual(stream(self.block), stream(self.shortcut))


class Encoder(Streamed):
    """Waveform ``[B, C, S]`` to latent ``[B, D, T]``."""

    def __init__(self, config: SEANetConfig) -> None:
        super().__init__()
        norms = _norms(config)
        width = config.n_filters
        layers: list[nn.Module] = [Conv(config.channels, width, config.kernel_size, config, norms[0])]
        for ratio, norm in zip(reversed(config.ratios), norms[1:], strict=False):
            layers += [
                ResidualBlock(width, config.dilation_base**j, config, norm) for j in range(config.n_residual_layers)
            ]
            layers += [
                build_activation(config.activation),
                Conv(width, width * 2, ratio * 2, config, norm, stride=ratio),
            ]
            width *= 2
        if config.lstm:
            layers.append(LSTM(width, config.lstm))
        layers += [
            build_activation(config.activation),
            Conv(width, config.dimension, config.last_kernel_size, config, norms[-1]),
        ]
        self.model = nn.Sequential(*layers)

    def stream(self) -> Stream:
        """See :meth:`Streamed.stream`."""
        return stream(self.model)


class Decoder(Streamed):
    """Latent ``[B, D, T]`` to waveform ``[B, C, S]``."""

    def __init__(self, config: SEANetConfig) -> None:
        super().__init__()
        norms = _norms(config)[::-1]
        width = config.n_filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [Conv(config.dimension, width, config.kernel_size, config, norms[0])]
        if config.lstm:
            layers.append(LSTM(width, config.lstm))
        for ratio, norm in zip(config.ratios, norms[1:], strict=False):
            layers += [
                build_activation(config.activation),
                ConvTranspose(width, width // 2, ratio * 2, config, norm, stride=ratio),
            ]
            width //= 2
            layers += [
                ResidualBlock(width, config.dilation_base**j, config, norm) for j in range(config.n_residual_layers)
            ]
        layers += [
            build_activation(config.activation),
            Conv(width, config.channels, config.last_kernel_size, config, norms[-1]),
        ]
        if config.final_activation is not None:
            layers.append(build_activation(config.final_activation))
        self.model = nn.Sequential(*layers)

    def stream(self) -> Stream:
        """See :meth:`Streamed.stream`."""
        return stream(self.model)


def _norms(config: SEANetConfig) -> list[str]:
    """The norm of each block, from the waveform inwards; the outer ones may go without."""
    blocks = len(config.ratios) + 2
    bare = config.disable_norm_outer_blocks
    return ["none"] * bare + [config.norm] * (blocks - bare)


def build_activation(activation: Activation, inplace: bool = True) -> nn.Module:
    """A module of ``torch.nn``, from a name that the configuration's reader has let through.

    Args:
        activation: the name, and arguments.
        inplace: write the output over the input, if the module can.

    Raises:
        ConfigError: its arguments are wrong.
    """
    kind: Any = packed.ELU if activation.name == "ELU" else getattr(nn, activation.name)
    try:
        module: nn.Module = kind(**activation.params)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"The activation {activation.name} cannot take {dict(activation.params)}: {error}") from None
    if hasattr(module, "inplace"):
        module.inplace = inplace  # type: ignore[assignment]
    return module
