"""Packages with random weights of the real sizes, which codecbay and its peers load alike.

Weights are drawn so that a signal keeps its size from layer to layer, and codebooks so that codes vary.
"""

from __future__ import annotations

import importlib
import math
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.workers import ROOT
from codecbay.files import written_directory, written_whole
from codecbay.imports import harmless_torchaudio

EXAMPLE = ROOT / "examples" / "tiny-musicgen"  # AudioCraft's own configurations, and a text encoder
# Width, layers and heads; MusicGen's own but for the first and the last.
LM_SIZES = {"tiny": (32, 2, 4), "small": (1024, 24, 16), "large": (2048, 48, 32), "2 GB": (1536, 27, 24)}
N_Q, CARD, TEXT_WIDTH = 4, 2048, 32
RATIOS, LATENT = (8, 5, 4, 4), 128
ENCODEC_FILTERS = {"tiny": 2, "small": 64}
DAC: dict[str, dict[str, Any]] = {
    "tiny": {"encoder_dim": 4, "encoder_rates": [2, 4], "decoder_dim": 16, "decoder_rates": [4, 2], "n_codebooks": 2,
             "codebook_size": 32, "codebook_dim": 4, "sample_rate": 1000},
    "small": {"encoder_dim": 64, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1536, "decoder_rates": [8, 8, 4, 2],
              "n_codebooks": 9, "codebook_size": 1024, "codebook_dim": 8, "sample_rate": 44_100},
}  # fmt: skip
WRAPPED: dict[str, dict[str, Any]] = {  # what differs from the published sizes, at the tiny size
    "Encodec": {"num_filters": 4, "hidden_size": 16, "codebook_size": 64},
    "Dac": {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "n_codebooks": 4, "codebook_size": 64},
    "Mimi": {"num_filters": 4, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32,
             "num_attention_heads": 4, "num_key_value_heads": 4, "codebook_dim": 8, "codebook_size": 64,
             "vector_quantization_hidden_dimension": 8, "upsample_groups": 32, "sliding_window": 20},
    "Xcodec": {"codebook_size": 64,
               "acoustic_model_config": {"model_type": "dac", "encoder_hidden_size": 4, "decoder_hidden_size": 32,
                                         "hidden_size": 16, "downsampling_ratios": [8, 5, 4, 2],
                                         "upsampling_ratios": [8, 5, 4, 2]},
               "semantic_model_config": {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 2,
                                         "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": [8] * 7,
                                         "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}},
}  # fmt: skip
Tensors = dict[str, Tensor]


# ------------------------------------------------------------------------------------------------- language models


def musicgen(directory: Path, size: str, dtype: torch.dtype = torch.float16) -> Path:
    """An export package: MusicGen of a size, over a tiny codec that fits, its text encoder beside it."""
    path = directory / f"musicgen-{size}-{str(dtype).removeprefix('torch.')}"
    if not path.exists():
        width, layers, heads = LM_SIZES[size]
        changes = {"dim": width, "num_layers": layers, "num_heads": heads, "n_q": N_Q, "card": CARD}
        with written_directory(path) as new:
            shutil.copytree(EXAMPLE / "tiny-t5", new / "tiny-t5")
            _save(new / "state_dict.bin", _lm(width, layers, dtype), {"transformer_lm": changes})
            shutil.copy(encodec(directory, "tiny") / "compression_state_dict.bin", new)
    return path


def _lm(width: int, layers: int, dtype: torch.dtype) -> Tensors:
    torch.manual_seed(0)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
        return torch.randn(rows, columns).mul_(gain / math.sqrt(columns)).to(dtype)

    # Some channels of a trained model are far larger than others, which is what quantization has to cope with.
    def norm() -> tuple[Tensor, Tensor]:
        return torch.randn(width).mul_(0.5).exp_().to(dtype), torch.randn(width).mul_(0.1).to(dtype)

    projection = "condition_provider.conditioners.description.output_proj"
    state = {f"{projection}.weight": matrix(width, TEXT_WIDTH), f"{projection}.bias": torch.zeros(width, dtype=dtype)}
    state |= {f"emb.{k}.weight": torch.randn(CARD + 1, width).mul_(0.5).to(dtype) for k in range(N_Q)}
    for i in range(layers):
        name = f"transformer.layers.{i}"
        for attention in ("self_attn", "cross_attention"):
            state[f"{name}.{attention}.in_proj_weight"] = matrix(3 * width, width)
            state[f"{name}.{attention}.out_proj.weight"] = matrix(width, width, 0.5)
        state[f"{name}.linear1.weight"] = matrix(4 * width, width)
        state[f"{name}.linear2.weight"] = matrix(width, 4 * width)
        for part in ("norm1", "norm2", "norm_cross"):
            state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"] = norm()
    state["out_norm.weight"], state["out_norm.bias"] = norm()
    return state | {f"linears.{k}.weight": matrix(CARD, width, 2.0) for k in range(N_Q)}


def bytes_a_step(size: str, bytes_a_weight: int, *, projects_text: bool = False) -> int:
    """Weights that decoding reads at each step; AudioCraft also projects the text anew each time."""
    width, layers, _ = LM_SIZES[size]
    return bytes_a_weight * ((14 + 2 * projects_text) * layers * width**2 + N_Q * CARD * width)


# --------------------------------------------------------------------------------------------------------- codecs


def encodec(directory: Path, size: str) -> Path:
    """An export package of EnCodec alone: the 32 kHz one of MusicGen, with more or fewer filters."""
    path = directory / f"encodec-{size}"
    if not path.exists():
        filters = ENCODEC_FILTERS[size]
        changes = {"seanet": {"dimension": LATENT, "n_filters": filters}, "rvq": {"n_q": N_Q, "bins": CARD}}
        with written_directory(path) as new:
            _save(new / "compression_state_dict.bin", _encodec(filters), changes)
    return path


def _encodec(filters: int) -> Tensors:
    torch.manual_seed(1)
    state: Tensors = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int, gain: float = 1.25) -> None:
        state.update(_normed(f"{name}.conv.conv", (outputs, inputs, kernel), gain))

    def residual(name: str, width: int) -> None:
        conv(f"{name}.block.1", width // 2, width, 3)
        conv(f"{name}.block.3", width, width // 2, 1, 0.5)

    def lstm(name: str, width: int) -> None:
        for layer in range(2):
            for kind in ("ih", "hh"):
                state[f"{name}.lstm.weight_{kind}_l{layer}"] = _uniform(4 * width, width, limit=width**-0.5)
                state[f"{name}.lstm.bias_{kind}_l{layer}"] = _uniform(4 * width, limit=width**-0.5)

    i, width = 1, filters
    conv("encoder.model.0", width, 1, 7, 3.0)
    for ratio in reversed(RATIOS):
        residual(f"encoder.model.{i}", width)
        conv(f"encoder.model.{i + 2}", 2 * width, width, 2 * ratio)
        i, width = i + 3, 2 * width
    lstm(f"encoder.model.{i}", width)
    conv(f"encoder.model.{i + 2}", LATENT, width, 7)
    conv("decoder.model.0", width, LATENT, 7)
    lstm("decoder.model.1", width)
    i = 3
    for ratio in RATIOS:
        state |= _normed(f"decoder.model.{i}.convtr.convtr", (width, width // 2, 2 * ratio), 1.25, transposed=True)
        i, width = i + 3, width // 2
        residual(f"decoder.model.{i - 2}", width)
    conv(f"decoder.model.{i}", 1, width, 7, 0.2)
    for k in range(N_Q):
        name = f"quantizer.vq.layers.{k}._codebook"
        embed = torch.randn(CARD, LATENT) * 0.9**k
        state |= {f"{name}.embed": embed, f"{name}.embed_avg": embed.clone()}
        state |= {f"{name}.inited": torch.ones(1), f"{name}.cluster_size": torch.ones(CARD)}
    return state


def dac(directory: Path, size: str) -> Path:
    """A file as descript's trainer saves it: the 44 kHz model, or a tiny one."""
    path = directory / f"dac-{size}.pth"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as new:
            torch.save({"state_dict": _dac(**DAC[size]), "metadata": {"kwargs": DAC[size]}}, new)
    return path


def _dac(
    encoder_dim: int, encoder_rates: list[int], decoder_dim: int, decoder_rates: list[int],
    n_codebooks: int, codebook_size: int, codebook_dim: int, sample_rate: int,
) -> Tensors:  # fmt: skip
    torch.manual_seed(2)
    state: Tensors = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int, gain: float = 1.0) -> None:
        state.update(_normed(name, (outputs, inputs, kernel), gain))

    def snake(name: str, width: int) -> None:
        state[f"{name}.alpha"] = torch.empty(1, width, 1).uniform_(0.5, 2.0)

    def residuals(name: str, first: int, width: int) -> None:
        for i in range(first, first + 3):
            for place, kernel, gain in ((0, 7, 1.0), (2, 1, 0.3)):
                snake(f"{name}.{i}.block.{place}", width)
                conv(f"{name}.{i}.block.{place + 1}", width, width, kernel, gain)

    width, last = encoder_dim, len(encoder_rates) + 1
    conv("encoder.block.0", width, 1, 7, 3.0)
    for i, rate in enumerate(encoder_rates):
        name = f"encoder.block.{i + 1}.block"
        residuals(name, 0, width)
        snake(f"{name}.3", width)
        conv(f"{name}.4", 2 * width, width, 2 * rate)
        width *= 2
    snake(f"encoder.block.{last}", width)
    conv(f"encoder.block.{last + 1}", width, width, 3)
    for k in range(n_codebooks):
        name = f"quantizer.quantizers.{k}"
        conv(f"{name}.in_proj", codebook_dim, width, 1)
        conv(f"{name}.out_proj", width, codebook_dim, 1, 0.3)
        state[f"{name}.codebook.weight"] = torch.randn(codebook_size, codebook_dim)
    conv("decoder.model.0", decoder_dim, width, 7)
    width, last = decoder_dim, len(decoder_rates) + 1
    for i, rate in enumerate(decoder_rates):
        name = f"decoder.model.{i + 1}.block"
        snake(f"{name}.0", width)
        state |= _normed(f"{name}.1", (width, width // 2, 2 * rate), 1.0, transposed=True)
        width //= 2
        residuals(name, 2, width)
    snake(f"decoder.model.{last}", width)
    conv(f"decoder.model.{last + 1}", 1, width, 7, 0.2)
    return state


def wrapped(directory: Path, family: str, size: str) -> Path:
    """A directory as transformers saves a codec: of a family's published sizes, or tiny."""
    path = directory / f"transformers-{family.lower()}-{size}"
    if not path.exists():
        torch.manual_seed(3)
        with harmless_torchaudio():
            transformers = importlib.import_module("transformers")
            config = getattr(transformers, f"{family}Config")(**(WRAPPED[family] if size == "tiny" else {}))
            model = getattr(transformers, f"{family}Model")(config)
        for name, value in model.state_dict().items():
            if name.endswith(("codebook.embed", "codebook.embed_sum")):
                value.normal_()  # the library leaves codebooks at zero
            elif name.endswith("cluster_usage"):
                value.fill_(1.0)
        with written_directory(path) as new:
            model.save_pretrained(new)
    return path


# --------------------------------------------------------------------------------------------------------- pieces


def _normed(name: str, shape: tuple[int, int, int], gain: float, *, transposed: bool = False) -> Tensors:
    """A weight-normed convolution whose output is ``gain`` times as large as its input.

    A sample of a transposed one, of twice its stride, sees two taps of each input.
    """
    direction = torch.randn(shape)
    length = math.sqrt(shape[1] * shape[2] / (2 * shape[0])) if transposed else 1.0
    outputs = shape[1] if transposed else shape[0]
    return {
        f"{name}.weight_g": torch.full((shape[0], 1, 1), gain * length),
        f"{name}.weight_v": direction,
        f"{name}.bias": torch.randn(outputs) * 0.02,
    }


def _uniform(*shape: int, limit: float) -> Tensor:
    return torch.empty(shape).uniform_(-limit, limit)


def _save(path: Path, state: Tensors, changes: dict[str, dict[str, Any]]) -> None:
    """Write a package's file with the example's configuration, some sections of it changed."""
    config = yaml.safe_load(torch.load(EXAMPLE / path.name, weights_only=True)["xp.cfg"])
    for section, values in changes.items():
        config[section] |= values
    root = {"best_state": state, "xp.cfg": yaml.safe_dump(config), "version": "1.3.0", "exported": True}
    torch.save(root, path)
