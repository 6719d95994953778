"""Packages with small random weights: codecs of every family, and language models that fit them."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from codecbay.errors import MissingDependencyError
from codecbay.imports import harmless_torchaudio, import_library
from package.forge import configured, saved, tensors

LM_WIDTH = 32

DAC: dict[str, Any] = {
    "encoder_dim": 8,
    "encoder_rates": [2, 4, 5],
    "latent_dim": 24,
    "decoder_dim": 32,
    "decoder_rates": [5, 4, 2],
    "n_codebooks": 4,
    "codebook_size": 32,
    "codebook_dim": 4,
    "quantizer_dropout": 0.5,
    "sample_rate": 1000,
}
SNAC: dict[str, Any] = {
    "sampling_rate": 1000,
    "encoder_dim": 16,
    "encoder_rates": [2, 3],
    "latent_dim": None,
    "decoder_dim": 64,
    "decoder_rates": [3, 2],
    "attn_window_size": None,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
SPEECHTOKENIZER: dict[str, Any] = {
    "sample_rate": 1000,
    "n_filters": 4,
    "strides": [5, 2, 2],
    "dimension": 16,
    "semantic_dimension": 12,
    "n_residual_layers": 1,
    "residual_kernel_size": 3,
    "dilation_base": 2,
    "lstm_layers": 2,
    "bidirectional": True,
    "activation": "ELU",
    "n_q": 4,
    "codebook_size": 32,
    "batch_size": 6,  # and what else the trainer keeps there
}
_ENCODEC: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64}
_DAC: dict[str, Any] = {
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 32,
    "n_codebooks": 4,
    "codebook_size": 64,
    "codebook_dim": 4,
}
# Of the library's configuration class by name, scaled down.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "encodec_24khz": ("Encodec", {**_ENCODEC, "target_bandwidths": [0.9, 1.8, 3.6]}),
    "encodec_32khz": (
        "Encodec",
        {
            **_ENCODEC,
            "sampling_rate": 32_000,
            "upsampling_ratios": [8, 5, 4, 4],
            "target_bandwidths": [1.2],
            "use_causal_conv": False,
            "use_conv_shortcut": False,
        },
    ),
    "encodec_48khz": (
        "Encodec",
        {
            **_ENCODEC,
            "sampling_rate": 48_000,
            "audio_channels": 2,
            "normalize": True,
            "chunk_length_s": 1.0,
            "overlap": 0.01,
            "norm_type": "time_group_norm",
            "use_causal_conv": False,
            "target_bandwidths": [0.9, 1.8, 3.6],
        },
    ),
    "dac_44khz": ("Dac", {**_DAC, "sampling_rate": 44_100, "downsampling_ratios": [2, 4, 8, 8]}),
    "dac_24khz": ("Dac", {**_DAC, "sampling_rate": 24_000, "downsampling_ratios": [2, 4, 5, 8]}),
    "mimi": (
        "Mimi",
        {
            "num_filters": 4,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "codebook_dim": 8,
            "codebook_size": 64,
            "num_quantizers": 4,
            "vector_quantization_hidden_dimension": 8,
            "upsample_groups": 32,
            "sliding_window": 20,
        },
    ),
    "xcodec": (
        "Xcodec",
        {
            "target_bandwidths": [0.3, 0.6, 1.2],
            "codebook_size": 64,
            "acoustic_model_config": {
                "model_type": "dac",
                "encoder_hidden_size": 4,
                "decoder_hidden_size": 32,
                "hidden_size": 16,
                "downsampling_ratios": [8, 5, 4, 2],
                "upsampling_ratios": [8, 5, 4, 2],
            },
            "semantic_model_config": {
                "model_type": "hubert",
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "conv_dim": [8] * 7,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        },
    ),
}


def descript_model(**changes: Any) -> Any:
    """Descript's own model. The test is skipped where its library cannot be imported."""
    model = _library("dac", "dac").DAC(**(DAC | changes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.data.uniform_(0.5, 2.0)
        elif name.endswith("bias"):
            parameter.data.normal_(std=0.1)
        elif name.endswith("weight_g"):
            parameter.data *= torch.empty_like(parameter).uniform_(0.7, 1.2)
    return model


def descript_file(path: Path, model: Any = None, **changes: Any) -> Path:
    """A file as descript's trainer saves it."""
    state = (descript_model(**changes) if model is None else model).state_dict()
    torch.save({"state_dict": state, "metadata": {"kwargs": DAC | changes}}, path)
    return path


def snac_model(**changes: Any) -> Any:
    """The snac library's own model. The test is skipped where the library cannot be imported."""
    model = _library("snac", "snac").SNAC(**(SNAC | changes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.data.uniform_(0.5, 2.0)
        elif name.endswith("original0"):
            parameter.data *= torch.empty_like(parameter).uniform_(0.7, 1.2)
    return model


def snac_directory(path: Path, model: Any = None, **changes: Any) -> Path:
    """A directory as SNAC is published."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(SNAC | changes))
    torch.save((snac_model(**changes) if model is None else model).state_dict(), path / "pytorch_model.bin")
    return path


def speechtokenizer_model(**changes: Any) -> Any:
    """SpeechTokenizer's own model. The test is skipped where its library cannot be imported."""
    library = _library("speechtokenizer", "speechtokenizer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = library.SpeechTokenizer(SPEECHTOKENIZER | changes).eval()
    for name, value in model.state_dict().items():
        if name.endswith("embed"):
            value.normal_(std=0.3)  # the library leaves codebooks at zero
        elif name.endswith("inited"):
            value.fill_(1)
        elif name.endswith("alpha"):
            value.uniform_(0.5, 2.0)
        elif name.endswith("weight_g"):
            value *= torch.empty_like(value).uniform_(1.4, 2.4)
    return model


def speechtokenizer_directory(path: Path, model: Any = None, **changes: Any) -> Path:
    """A directory as SpeechTokenizer's trainer leaves it."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(SPEECHTOKENIZER | changes))
    torch.save((speechtokenizer_model(**changes) if model is None else model).state_dict(), path / "SpeechTokenizer.pt")
    return path


def _library(name: str, extra: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            library = import_library(name, needed_by="this test", install=f"pip install 'codecbay[{extra}]'")
        except MissingDependencyError as error:
            pytest.skip(str(error))
    torch.manual_seed(0)
    return library


def transformers_model(family: str, arguments: dict[str, Any]) -> Any:
    """A model of the transformers library, such as ``Encodec``."""
    with harmless_torchaudio():
        import transformers

        torch.manual_seed(1)
        config = getattr(transformers, f"{family}Config")(**arguments)
        # From its own file: transformers' front door is shut to some where there is no torchaudio.
        library = importlib.import_module(type(config).__module__.replace("configuration", "modeling"))
        model = getattr(library, f"{family}Model")(config).eval()
    for key, value in model.state_dict().items():
        if key.endswith(("codebook.embed", "codebook.embed_sum")):
            value.normal_(std=0.1)  # the library leaves codebooks at zero
        if key.endswith("cluster_usage"):
            value.uniform_(0.5, 2)
    for module in model.modules():
        if hasattr(module, "embed_sum"):
            module._embed = None
    return model


def transformers_directory(path: Path, model: Any) -> Path:
    """A directory as the transformers library saves it."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(path)
    logging.enable_progress_bar()
    return path


def language_model(
    path: Path, *, card: int, n_q: int, sample_rate: int, channels: int = 1, stereo: str | None = None
) -> Path:
    """An export package without a codec: MusicGen's configuration with other numbers.

    Args:
        path: the directory.
        card: values of a token.
        n_q: streams of tokens.
        sample_rate: of the audio, in Hz.
        channels: of the audio.
        stereo: how two mono streams are interleaved: ``codebook`` or ``timestep``.
    """
    changes = {
        "transformer_lm.card": card,
        "transformer_lm.n_q": n_q,
        "codebooks_pattern.delay.delays": list(range(n_q)),
        "sample_rate": sample_rate,
        "channels": channels,
        "interleave_stereo_codebooks.use": stereo is not None,
        "interleave_stereo_codebooks.per_timestep": stereo == "timestep",
        "compression_model_checkpoint": None,
    }
    torch.manual_seed(2)
    streams = {f"emb.{k}.weight": torch.randn(card + 1, LM_WIDTH) for k in range(n_q)}
    streams |= {f"linears.{k}.weight": torch.randn(card, LM_WIDTH) for k in range(n_q)}
    others = {name: t for name, t in tensors("lm").items() if not name.startswith(("emb.", "linears."))}
    path.mkdir(exist_ok=True)
    package = configured("lm", changes) | {"best_state": others | streams}
    (path / "state_dict.bin").write_bytes(saved(package))
    return path
