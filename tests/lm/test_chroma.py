"""The melody as a chromagram, with and without stems."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from codecbay.lm.chroma import ChromaExtractor, StemSeparator
from models import noise

# The settings of the goldens in chroma.safetensors, which AudioCraft's own ChromaExtractor computed with librosa.
SETTINGS: dict[str, dict[str, Any]] = {
    "argmax": {"sample_rate": 8_000, "radix2_exp": 9, "argmax": True},
    "plain": {"sample_rate": 8_000, "radix2_exp": 8},
    "norm": {
        "sample_rate": 16_000,
        "radix2_exp": 9,
        "n_chroma": 24,
        "nfft": 512,
        "winlen": 256,
        "winhop": 128,
        "norm": 2.0,
    },
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("samples", [1_600, 100], ids=["long", "shorter than the window"])
def test_agrees_with_librosa(fixtures: Path, name: str, samples: int) -> None:
    goldens = load_file(fixtures / "chroma.safetensors")
    extractor = ChromaExtractor(**SETTINGS[name])
    chroma = extractor(goldens["wav"][..., :samples])
    torch.testing.assert_close(chroma, goldens[name if samples > 100 else f"{name}_short"])
    assert chroma.shape[1] == extractor.num_frames(samples)


def test_a_tone_falls_on_its_pitch_class() -> None:
    wav = torch.sin(torch.arange(16_000) * (2 * torch.pi * 440 / 16_000))[None, None]
    chroma = ChromaExtractor(16_000, radix2_exp=12, argmax=True)(wav)
    assert (chroma.argmax(-1) == 9).all()  # C is 0, A is 9
    assert (chroma.sum(-1) == 1).all()


class Demucs:
    """Stands in for demucs: its four stems are known parts of the mix."""

    samplerate, audio_channels = 16_000, 2
    sources = ("drums", "bass", "other", "vocals")
    parts = torch.tensor([0.5, 0.25, 0.05, 0.2])

    def to(self, device: torch.device) -> Demucs:
        return self

    def apply(self, model: Demucs, wav: Tensor, device: torch.device) -> Tensor:
        return wav[:, None] * self.parts[:, None, None]


def install_demucs(monkeypatch: pytest.MonkeyPatch, get_model: Any) -> None:
    package: Any = ModuleType("demucs")
    package.pretrained = SimpleNamespace(get_model=get_model)
    monkeypatch.setitem(sys.modules, "demucs", package)
    monkeypatch.setitem(sys.modules, "demucs.apply", SimpleNamespace(apply_model=Demucs().apply))


def test_drums_and_bass_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install_demucs(monkeypatch, lambda name: Demucs())
    wav = noise(2, 1, 800)
    torch.testing.assert_close(StemSeparator()(wav, 16_000, 16_000), 0.25 * wav)


def test_without_demucs_the_whole_mix_is_taken_and_said_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "demucs", None)
    separate, wav = StemSeparator(), noise(2, 2, 800)
    with pytest.warns(UserWarning, match="pip install demucs"):
        first = separate(wav, 16_000, 8_000)
    second = separate(wav, 16_000, 8_000)  # a second warning would fail the test
    assert first.shape == (2, 1, 400)
    assert torch.equal(first, second)


def test_weights_that_cannot_be_fetched_count_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_model(name: str) -> None:
        raise OSError("no network")

    install_demucs(monkeypatch, get_model)
    with pytest.warns(UserWarning, match="no network"):
        assert torch.equal(StemSeparator()(wav := noise(1, 1, 80), 8_000, 8_000), wav)
