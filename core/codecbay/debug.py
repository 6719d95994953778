"""The small random models that AudioCraft has under the name ``debug``, as scripts and test suites expect them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from codecbay.codec import Codec
from codecbay.generation import MODEL_CLASSES, GenerativeModel
from codecbay.lm.conditioners import ConditioningProvider, LUTConditioner
from codecbay.lm.config import FuserConfig, LMConfig, PatternConfig, TransformerConfig
from codecbay.lm.model import LMModel
from codecbay.lm.text import WordTokenizer


@dataclass(frozen=True)
class DebugModel:
    """One of them: its kind, the name of its codec, and its longest segment in seconds."""

    kind: str
    codec: str
    max_duration: float


DEBUG_MODELS = {
    "debug": DebugModel("musicgen", "debug_compression_model", 30.0),
    "debug-audiogen": DebugModel("audiogen", "debug_compression_model_16khz", 10.0),
}
_DIM, _BINS, _CARD, _N_Q = 16, 128, 400, 4


def debug_model(name: str, codec: Codec, device: torch.device) -> GenerativeModel:
    """A model with random weights over ``codec``; its texts are split at white space."""
    debug = DEBUG_MODELS[name]
    config = LMConfig(
        kind=debug.kind,
        n_q=_N_Q,
        card=_CARD,
        transformer=TransformerConfig(
            dim=_DIM, num_heads=4, num_layers=2, dim_feedforward=4 * _DIM, cross_attention=True
        ),
        pattern=PatternConfig("delay"),
        fuser=FuserConfig({"cross": ("description",)}),
        max_duration=debug.max_duration,
    )
    words = LUTConditioner(_BINS, _DIM, _DIM, WordTokenizer(_BINS))
    lm = LMModel(config, ConditioningProvider({"description": words})).to(device)
    return MODEL_CLASSES[debug.kind](name, codec, lm)
