"""A text encoder with more channels computes the same."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from codecbay.convert import t5
from codecbay.imports import harmless_torchaudio
from codecbay.package.config import read_json
from convert.peers import library
from models import TEXT_ENCODER


def test_a_text_encoder_as_wide_as_the_model_is_widened() -> None:
    with harmless_torchaudio():
        encoder = library().T5EncoderModel.from_pretrained(TEXT_ENCODER)
    config = t5.read_config(read_json(TEXT_ENCODER / "config.json").top())
    stored = load_file(TEXT_ENCODER / "model.safetensors")
    wide, widened = t5.widened(config, stored)
    assert {name: tuple(tensor.shape) for name, tensor in widened.items()} == t5.shapes(wide)
    with harmless_torchaudio():
        larger = library().T5EncoderModel(library().T5Config(**wide)).eval()
    larger.load_state_dict(widened, strict=False)
    ids = torch.arange(24).reshape(2, 12) % 100
    with torch.no_grad():
        found, expected = (model(input_ids=ids).last_hidden_state for model in (larger, encoder))
    assert torch.allclose(found[..., :32], expected, atol=1e-5)
    assert found[..., 32:].eq(0).all()
    narrow = t5.narrowed(wide, widened)
    assert narrow is not None
    assert narrow[0] == config
    assert all(torch.equal(narrow[1][name], stored[name]) for name in stored)
    widened["shared.weight"][3, 40] = 1.0
    assert t5.narrowed(wide, widened) is None
