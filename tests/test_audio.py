"""Waveforms: resampling, channels, and sound files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from codecbay import audio
from codecbay.audio import check_waveform, convert_audio, read_audio, resample, write_audio
from codecbay.errors import AudioError, OutputError
from models import FIXTURES, noise

few = settings(max_examples=60, deadline=None, derandomize=True)

with safe_open(FIXTURES / "resampled.safetensors", "pt") as _file:
    JULIUS = {key: _file.get_tensor(key) for key in _file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("rates", sorted(JULIUS.keys() - {"wav"}))
def test_resamples_as_julius_does(rates: str) -> None:
    old, new = map(int, rates.split("_"))
    torch.testing.assert_close(resample(JULIUS["wav"], old, new), JULIUS[rates], rtol=0, atol=2e-6)


@few
@given(old=st.integers(1, 60_000), new=st.integers(1, 60_000), samples=st.integers(1, 400))
def test_the_length_is_in_proportion(old: int, new: int, samples: int) -> None:
    length = samples * new // old
    if length > 100_000:
        return
    if length == 0:
        with pytest.raises(AudioError, match="too short"):
            resample(noise(1, samples), old, new)
    else:
        assert resample(noise(1, samples), old, new).shape == (1, length)


@pytest.mark.parametrize(("old", "new"), [(44_100, 44_101), (48_000, 7_919), (44_100, 44_099), (7, 96_001)])
def test_memory_is_bounded_at_any_ratio(monkeypatch: pytest.MonkeyPatch, old: int, new: int) -> None:
    taps = []
    conv1d = torch.nn.functional.conv1d

    def spy(x: Any, weight: Any, *args: Any, **options: Any) -> Any:
        taps.append(weight.numel())
        return conv1d(x, weight, *args, **options)

    wav = noise(1, 2_000 * old // new + 2)
    monkeypatch.setattr(torch.nn.functional, "conv1d", spy)
    assert resample(wav, old, new).shape[-1] == wav.shape[-1] * new // old
    assert max(taps) <= audio._BANK


def test_working_in_groups_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resample(JULIUS["wav"], 32_000, 44_100)
    monkeypatch.setattr(audio, "_BANK", 1)
    torch.testing.assert_close(resample(JULIUS["wav"], 32_000, 44_100), whole)


@pytest.mark.parametrize("rate", [8_000, 22_050, 96_000])
def test_a_tone_stays_a_tone(rate: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(torch.arange(rate) * (2 * torch.pi * 440 / rate))

    found = resample(tone(16_000)[None], 16_000, rate)[0]
    inner = slice(rate // 10, -rate // 10)
    torch.testing.assert_close(found[inner], tone(rate)[inner], rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", [0, -1, 1.5, True, 768_001, 10**30, float("nan"), float("inf"), "8000", None])
def test_a_sample_rate_that_is_none(rate: Any) -> None:
    with pytest.raises(AudioError):
        resample(noise(1, 10), rate, 8_000)
    with pytest.raises(AudioError):
        resample(noise(1, 10), 8_000, rate)


def test_equal_rates_leave_the_samples_alone() -> None:
    wav = noise(2, 3, 50)
    assert torch.equal(resample(wav, 44_100, 44_100), wav)


def test_channels_are_averaged_repeated_or_left_out() -> None:
    wav = noise(2, 3, 50)
    assert torch.equal(convert_audio(wav, 1, 1, 1), wav.mean(1, keepdim=True))
    assert torch.equal(convert_audio(wav[:, :1], 1, 1, 4), wav[:, :1].repeat(1, 4, 1))
    assert torch.equal(convert_audio(wav, 1, 1, 2), wav[:, :2])
    assert torch.equal(convert_audio(wav, 1, 1, 3), wav)
    with pytest.raises(AudioError, match="2 channels cannot be made 3"):
        convert_audio(wav[:, :2], 1, 1, 3)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(1, 10), r"\[1, 10\]"),
        (torch.zeros(1, 1, 0), "empty"),
        (torch.zeros(1, 0, 5), "empty"),
        (torch.full((1, 1, 2), float("nan")), "NaN"),
        (torch.full((1, 1, 2), -float("inf")), "infinity"),
        (torch.zeros(1, 1, 5).int(), "int32"),
        (np.zeros((1, 1, 5), np.float32), "ndarray|float32"),
    ],
)
def test_what_is_no_waveform(wav: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        check_waveform(wav)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("ending", "step"), [("wav", 2**-15), ("flac", 2**-15), ("WAV", 2**-15)])
def test_files_hold_what_was_written(tmp_path: Path, channels: int, ending: str, step: float) -> None:
    path, wav = tmp_path / f"a.{ending}", noise(channels, 500).clamp(-1, 0.999)
    write_audio(path, wav, 22_050)
    read, rate = read_audio(path)
    assert rate == 22_050
    torch.testing.assert_close(read, wav, rtol=0, atol=2 * step)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_what_is_too_loud_is_clipped(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", torch.tensor([[3.0, -3.0, 0.5]]), 8_000)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav")[0], torch.tensor([[1.0, -1.0, 0.5]]), rtol=0, atol=1e-4)


def _no_sound(path: Path) -> None:
    path.write_text("no sound at all\n" * 20)


def _nan(path: Path) -> None:
    soundfile.write(path, np.full(80, np.nan, np.float32), 8_000, subtype="FLOAT")


def _no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), 8_000)


def _cut_short(path: Path) -> None:
    soundfile.write(path, np.zeros(800, np.float32), 8_000)
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize("make", [_no_sound, _nan, _no_samples, _cut_short, Path.touch, Path.mkdir, lambda path: None])
def test_files_that_are_no_sound(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(AudioError):
        read_audio(path)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.", ".wav", "missing/a.wav"])
def test_files_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises((AudioError, OutputError), match=name):
        write_audio(tmp_path / name, noise(1, 10), 8_000)
    assert not list(tmp_path.iterdir())


def test_a_file_appears_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, noise(1, 10), 8_000)
    before = path.read_bytes()

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(OutputError, match="disk full"):
        write_audio(path, noise(1, 20), 8_000)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]
    assert path.read_bytes() == before


def test_nothing_is_left_where_a_wrong_rate_is_given(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        write_audio(tmp_path / "a.wav", noise(1, 10), 0)
    assert not list(tmp_path.iterdir())
