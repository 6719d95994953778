"""transformers' own models: loaded from a directory, or random and saved to one; and how they are asked."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codecbay.convert import to_transformers
from codecbay.errors import ConfigError
from codecbay.imports import harmless_torchaudio
from codecbay.lm.patterns import Pattern
from models import SHARED_CODEC, TEXT_ENCODER, package

CLASSES = {
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}
CODEC = {
    "num_filters": 2,
    "hidden_size": 8,
    "codebook_size": 16,
    "sampling_rate": 800,
    "upsampling_ratios": [8, 4],
    "target_bandwidths": [0.3, 0.4],  # 3 and 4 codebooks of 4 bits at 25 frames a second
    "use_causal_conv": False,
    "use_conv_shortcut": False,
}
TEXT = {"vocab_size": 105, "d_model": 20, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 3}
DECODER = {
    "vocab_size": 16,
    "pad_token_id": 16,
    "bos_token_id": 16,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "ffn_dim": 37,  # no multiple of the model's width
    "num_codebooks": 3,
}
MELODY = {"num_chroma": 10, "chroma_length": 13}
FEATURES = {"sampling_rate": 800, "n_fft": 256, "hop_length": 64, "chunk_length": 1}


@cache
def library() -> Any:
    """The library, without its remarks."""
    with harmless_torchaudio():
        import transformers
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        # What loads its modules does so when a name is first used.
        for name in (*CLASSES.values(), "AutoTokenizer", "AutoProcessor", "EncodecModel", "T5EncoderModel"):
            getattr(transformers, name)
        return transformers


def load(directory: Path) -> Any:
    """The model of a directory. Nothing may be missing, too much, or of another shape."""
    kind = json.loads((directory / "config.json").read_text())["model_type"]
    with harmless_torchaudio(), warnings.catch_warnings():
        model, found = getattr(library(), CLASSES[kind]).from_pretrained(directory, output_loading_info=True)
    assert not any(found.values()), found
    return model


def tokens(directory: Path, prompts: list[str]) -> dict[str, Tensor]:
    """Descriptions as the model takes them."""
    with harmless_torchaudio():
        tokenizer = library().AutoTokenizer.from_pretrained(directory)
    return dict(tokenizer(prompts, return_tensors="pt", padding=True))


@torch.no_grad()
def logits(model: Any, sequence: Tensor, **inputs: Tensor) -> Tensor:
    """Predictions ``[B, K, S, card]`` for a sequence ``[B, K, S]`` that a pattern laid out."""
    batch, codebooks, steps = sequence.shape
    found: Tensor = model(**inputs, decoder_input_ids=sequence.reshape(batch * codebooks, steps)).logits
    return found[:, -steps:].reshape(batch, codebooks, steps, -1)  # without what conditions put in front


def predictions(model: Any, pattern: Pattern, codes: Tensor, card: int, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions ``[B, K, T, card]`` for codes ``[B, K, T]``, and a mask ``[K, T]``."""
    sequence = pattern.lay_out(codes, card, valid_only=True)
    return pattern.gather(logits(model, sequence, **inputs), predictions=True)


def converted(name: str, out: Path) -> Path:
    """A package of the fixtures as transformers takes it, over the shared codec where it has none."""
    directory = package(name)
    codec = None if (directory / "compression_state_dict.bin").exists() else SHARED_CODEC
    return to_transformers(directory, out, text_encoder=TEXT_ENCODER, codec=codec)


def refusal(source: Path, out: Path) -> str:
    """The message of an error that comes before weights are read or anything is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codecbay.convert.tensors.load_tensors", lambda *_: pytest.fail("weights were read"))
        with pytest.raises(ConfigError) as caught:
            to_transformers(source, out / "out", text_encoder=TEXT_ENCODER)
    assert not (out / "out").exists()
    return str(caught.value)


def random_model(kind: str = "musicgen", *, codec: dict[str, Any] | None = None, **decoder: Any) -> Any:
    """A model of random weights; embeddings and outputs are large enough for every part to show in them."""
    transformers = library()
    torch.manual_seed(3)
    text = {**TEXT, "d_model": decoder.pop("text_width", TEXT["d_model"])}
    name = {"musicgen": "Musicgen", "musicgen_melody": "MusicgenMelody"}[kind]
    with harmless_torchaudio():
        config = getattr(transformers, f"{name}Config")(
            text_encoder=transformers.T5Config(**text),
            audio_encoder=transformers.EncodecConfig(**CODEC | (codec or {})),
            decoder=getattr(transformers, f"{name}DecoderConfig")(**DECODER | decoder),
            **(MELODY if kind == "musicgen_melody" else {}),
        )
        model = getattr(transformers, CLASSES[kind])(config).eval()
    for key, value in model.state_dict().items():
        if key.endswith("codebook.embed"):
            value.normal_(std=0.1)  # the library leaves codebooks at zero
        elif key.startswith(("decoder.", "enc_to", "audio_enc_to")):
            value.normal_(std=0.3)
    return model


def saved(directory: Path, model: Any, **options: Any) -> Path:
    """A directory as transformers saves a model, with its processor's files."""
    with harmless_torchaudio():
        model.save_pretrained(directory, **options)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((TEXT_ENCODER / name).read_bytes())
    if model.config.model_type == "musicgen_melody":
        (directory / "preprocessor_config.json").write_text(json.dumps(FEATURES))
    return directory
