"""The contract that scripts written for AudioCraft rely on: names, counts and shapes, with its ``debug`` models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import codecbay
from models import noise

KINDS = {"MusicGen": 32_000, "AudioGen": 16_000}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str) -> Any:
    torch.manual_seed(0)
    model = getattr(codecbay, kind).get_pretrained(name="debug", device="cpu")
    model.set_generation_params(duration=0.8, extend_stride=2.0)
    return model


def test_facts(kind: str, model: Any) -> None:
    assert type(model) is getattr(codecbay, kind)
    assert (model.sample_rate, model.frame_rate, model.audio_channels) == (KINDS[kind], 25, 1)
    assert model.max_duration == {"MusicGen": 30, "AudioGen": 10}[kind]
    assert model.compression_model.num_codebooks == model.lm.num_codebooks == 4
    assert model.compression_model.cardinality == model.lm.card == 400


@pytest.mark.parametrize("two_step_cfg", [False, True])
def test_a_piece_for_each_description(kind: str, model: Any, two_step_cfg: bool) -> None:
    model.set_generation_params(duration=0.8, two_step_cfg=two_step_cfg)
    assert model.generate(["soft rain", "thunder"]).shape == (2, 1, 0.8 * KINDS[kind])


def test_pieces_without_descriptions(kind: str, model: Any) -> None:
    assert model.generate_unconditional(3).shape == (3, 1, 0.8 * KINDS[kind])


@pytest.mark.parametrize("descriptions", [None, ["soft rain", "thunder"], [None, "thunder"]], ids=str)
def test_a_piece_for_each_prompt(kind: str, model: Any, descriptions: list[str | None] | None) -> None:
    prompt = noise(2, 1, KINDS[kind] // 4)
    assert model.generate_continuation(prompt, KINDS[kind], descriptions).shape == (2, 1, 0.8 * KINDS[kind])


def test_more_descriptions_than_prompts_fail_as_an_assertion(kind: str, model: Any) -> None:
    with pytest.raises(AssertionError):
        model.generate_continuation(noise(2, 1, 800), KINDS[kind], ["one", "two", "three"])


def test_a_shorter_window_can_be_set(kind: str, model: Any) -> None:
    model.max_duration = 1.0
    model.set_generation_params(duration=1.6, extend_stride=0.6)
    assert model.generate(["soft rain"]).shape == (1, 1, 1.6 * KINDS[kind])


def test_a_callback_is_told_of_every_step(model: Any) -> None:
    calls: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, to_do: calls.append((done, to_do)))
    audio, tokens = model.generate(["soft rain"], progress=True, return_tokens=True)
    assert tokens.shape == (1, 4, 20)
    assert calls[0][0] == 1
    assert calls[-1][0] == calls[-1][1] == len(calls)
    assert torch.equal(model.generate_audio(tokens), audio)
