"""What torchaudio computes, without it: against its own files, and against the formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codecbay.imports import harmless_torchaudio
from codecbay_transformers.signal import mel_features, resample

RATES = [(24_000, 16_000), (16_000, 24_000), (44_100, 16_000), (8_000, 16_000)]


def noise(samples: int, batch: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(samples))


def stacked(mel: torch.Tensor) -> torch.Tensor:
    """Features of a log mel spectrogram ``[W, 80]``, as the library's extractors write it."""
    mel = (mel - mel.mean(0)) / torch.sqrt(mel.var(0, unbiased=True) + 1e-7)
    mel = mel[: len(mel) - len(mel) % 2]
    return mel.reshape(len(mel) // 2, 160)


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("samples", [640, 1600, 16_001])
def test_features_are_torchaudios(samples: int, rate: int, torchaudio_files: SimpleNamespace) -> None:
    wav = noise(samples)
    found = mel_features(wav, rate)
    for item, features in zip(wav, found, strict=True):
        mel = torchaudio_files.compliance.kaldi.fbank(
            item[None] * 2**15,
            num_mel_bins=80,
            frame_length=400 / rate * 1000,
            frame_shift=160 / rate * 1000,
            sample_frequency=rate,
            low_freq=20,
            high_freq=rate // 2,
        )
        torch.testing.assert_close(features, stacked(mel))


@pytest.mark.parametrize("samples", [640, 16_001])
def test_features_are_kaldis(samples: int) -> None:
    with harmless_torchaudio():
        from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
    banks = mel_filter_bank(257, 80, 20, 8000, 16_000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True)
    wav = noise(samples)
    for item, features in zip(wav, mel_features(wav, 16_000), strict=True):
        mel = spectrogram(
            item.numpy() * 2**15,
            window_function(400, "povey", periodic=False),
            frame_length=400,
            hop_length=160,
            fft_length=512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=banks,
            log_mel="log",
            mel_floor=1.192092955078125e-07,
            remove_dc_offset=True,
        )
        torch.testing.assert_close(features, stacked(torch.from_numpy(mel.T).float()), atol=2e-3, rtol=1e-3)


def test_silence_has_features() -> None:
    assert mel_features(torch.zeros(1, 3200), 16_000).eq(0).all()


@pytest.mark.parametrize(("old", "new"), RATES)
@pytest.mark.parametrize("samples", [1, 2, 960, 4001])
def test_resampling_is_torchaudios(old: int, new: int, samples: int, torchaudio_files: SimpleNamespace) -> None:
    wav = noise(samples)[:, None]
    torch.testing.assert_close(resample(wav, old, new), torchaudio_files.functional.resample(wav, old, new))


@pytest.mark.parametrize(("old", "new"), RATES)
def test_resampling_is_a_windowed_sinc(old: int, new: int) -> None:
    wav = noise(480, 1)[:, None]
    found = resample(wav, old, new)
    assert found.shape[-1] == math.ceil(480 * new / old)
    rate, x = 0.99 * min(old, new), wav[0, 0].double().numpy()
    t = rate * (np.arange(480)[None] / old - np.arange(found.shape[-1])[:, None] / new)
    taps = np.where(abs(t) < 6, np.sinc(t) * np.cos(np.pi * t / 12) ** 2, 0) * rate / old
    np.testing.assert_allclose(found[0, 0].numpy(), taps @ x, atol=1e-6)


def test_equal_rates_are_left_alone() -> None:
    wav = noise(10)[:, None]
    assert resample(wav, 16_000, 16_000) is wav
