"""The SEANet encoder and decoder (Tagliasacchi et al. 2020, https://arxiv.org/abs/2009.02095), as EnCodec has them.

Module names are AudioCraft's, so that its state dicts fit. Weight and spectral norms are folded into the weights
once, by :func:`fold_norms`, and not at every call.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``T`` frames, ``D`` width of the latent.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.errors import ConfigError
from codecbay_encodec.config import Activation, SEANetConfig


class Convolution(nn.Module):
    """A convolution, or a transposed one, without padding, whose weight may be stored in parts.

    Args:
        norm: ``weight_norm`` stores length and direction, ``spectral_norm`` the weight and an estimate of its
            largest singular vectors, anything else the weight itself.
    """

    weight: Tensor
    weight_u: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        dilation: int,
        norm: str,
        *,
        transposed: bool,
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.transposed, self.norm = stride, dilation, transposed, norm
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        weight = torch.empty(first, second, kernel_size)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(second * kernel_size)
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        if norm == "weight_norm":
            self.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
            self.weight_v = nn.Parameter(weight)
        elif norm == "spectral_norm":
            self.weight_orig = nn.Parameter(weight)
            self.register_buffer("weight_u", torch.ones(out_channels))
            self.register_buffer("weight_v", torch.ones(in_channels * kernel_size))
        else:
            self.weight = nn.Parameter(weight)

    def fold(self) -> None:
        """Replace the parts of the weight by the weight."""
        if self.norm == "weight_norm":
            weight = torch._weight_norm(self.weight_v, self.weight_g, 0)
            del self.weight_g, self.weight_v
        elif self.norm == "spectral_norm":
            matrix = self.weight_orig.transpose(0, 1) if self.transposed else self.weight_orig
            largest = self.weight_u @ (matrix.flatten(1) @ self.weight_v)
            weight = self.weight_orig / largest
            del self.weight_orig, self.weight_u, self.weight_v
        else:
            return
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.norm = "none"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``[B, C, S]``."""
        if self.transposed:
            return F.conv_transpose1d(x, self.weight, self.bias, self.stride)
        return F.conv1d(x, self.weight, self.bias, self.stride, dilation=self.dilation)


class TimeGroupNorm(nn.GroupNorm):
    """A norm over channels and time together, of as little as one value."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``[B, C, S]``."""
        # nn.GroupNorm refuses a single value, as training on it would make no sense; its norm is 0.
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class NormConv(nn.Module):
    """A convolution, and a norm over its output where there is one."""

    def __init__(self, name: str, convolution: Convolution, channels: int, config: SEANetConfig, norm: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, convolution)
        self.norm = TimeGroupNorm(1, channels, **config.norm_params) if norm == "time_group_norm" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``[B, C, S]``."""
        y: Tensor = self.norm(self.get_submodule(self.name)(x))
        return y


class Conv(nn.Module):
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
        convolution = Convolution(in_channels, out_channels, kernel_size, stride, dilation, norm, transposed=False)
        self.conv = NormConv("conv", convolution, out_channels, config, norm)
        self.stride = stride
        self.pad_mode = config.pad_mode
        total = (kernel_size - 1) * dilation + 1 - stride
        right = 0 if config.causal else total // 2
        self.padding = (total - right, right)
        if total < 0:
            raise ConfigError(f"A kernel of {kernel_size} samples leaves gaps at a stride of {stride}.")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``[B, C, S]``."""
        left, right = self.padding
        y: Tensor = self.conv(pad(x, left, right + -x.shape[-1] % self.stride, self.pad_mode))
        return y


def pad(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad ``[B, C, S]``; a signal too short to be reflected is lengthened with zeros first, and one too short to go
    round once goes round more often."""
    length = x.shape[-1]
    if mode == "circular" and max(left, right) > length:
        return x[..., torch.arange(-left, length + right, device=x.device) % length]
    if mode != "reflect":
        return F.pad(x, (left, right), mode)
    short = max(left, right) - x.shape[-1] + 1
    if short <= 0:
        return F.pad(x, (left, right), mode)
    padded = F.pad(F.pad(x, (0, short)), (left, right), mode)
    return padded[..., : padded.shape[-1] - short]


class ConvTranspose(nn.Module):
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
        convolution = Convolution(in_channels, out_channels, kernel_size, stride, 1, norm, transposed=True)
        self.convtr = NormConv("convtr", convolution, out_channels, config, norm)
        total = kernel_size - stride
        self.right = math.ceil(total * config.trim_right_ratio) if config.causal else total // 2
        self.left = total - self.right

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``[B, C, T]``."""
        y: Tensor = self.convtr(x)
        return y[..., self.left : y.shape[-1] - self.right]


class LSTM(nn.Module):
    """A recurrent layer over time, added to its input."""

    def __init__(self, dim: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, num_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Run over ``[B, C, T]``."""
        steps = x.permute(2, 0, 1)
        y: Tensor = self.lstm(steps)[0] + steps
        return y.permute(1, 2, 0)


class ResidualBlock(nn.Module):
    """Two convolutions, the first dilated, beside a skip connection."""

    def __init__(self, dim: int, dilation: int, config: SEANetConfig, norm: str) -> None:
        super().__init__()
        hidden = dim // config.compress
        self.block = nn.Sequential(
            build_activation(config.activation),
            Conv(dim, hidden, config.residual_kernel_size, config, norm, dilation=dilation),
            build_activation(config.activation),
            Conv(hidden, dim, 1, config, norm),
        )
        self.shortcut = nn.Identity() if config.true_skip else Conv(dim, dim, 1, config, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Run over ``[B, C, S]``."""
        y: Tensor = self.shortcut(x) + self.block(x)
        return y


class Encoder(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """Run the encoder."""
        y: Tensor = self.model(x)
        return y


class Decoder(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """Run the decoder."""
        y: Tensor = self.model(x)
        return y


def _norms(config: SEANetConfig) -> list[str]:
    """The norm of each block, from the waveform inwards; the outer ones may go without."""
    blocks = len(config.ratios) + 2
    bare = config.disable_norm_outer_blocks
    return ["none"] * bare + [config.norm] * (blocks - bare)


def build_activation(activation: Activation) -> nn.Module:
    """A module of ``torch.nn``, from a name that the configuration's reader has let through.

    Raises:
        ConfigError: its arguments are wrong.
    """
    kind: Any = getattr(nn, activation.name)
    try:
        module: nn.Module = kind(**activation.params)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"The activation {activation.name} cannot take {dict(activation.params)}: {error}") from None
    return module


def fold_norms(module: nn.Module) -> None:
    """Fold the norms of all convolutions into their weights."""
    for child in module.modules():
        if isinstance(child, Convolution):
            child.fold()
