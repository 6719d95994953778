"""What the library asks torchaudio for when a codec encodes: torchaudio may be absent, or fail to load.

Both functions compute what torchaudio does, with the arguments that the library gives it.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``W`` windows, ``T`` frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW = 400  # samples
_SHIFT = 160  # samples from a window to the next
_FFT = 512
_BANDS = 80
_LOWEST = 20.0  # Hz
_PREEMPHASIS = 0.97
_FULL_SCALE = 2.0**15  # of the whole numbers that Kaldi reads
_STACKED = 2  # windows to a frame

_ZEROS = 6  # zero crossings of the sinc on either side
_ROLLOFF = 0.99  # of the band that both sample rates can hold


def mel_features(wav: Tensor, sample_rate: int) -> Tensor:
    """Kaldi's log mel features, each band with mean 0 and variance 1 over the item, two windows to a frame.

    ``torchaudio.compliance.kaldi.fbank``, and what the feature extractors of X-Codec2 and NeuCodec make of it. Items
    are taken one by one, so that a batch gets the features of its items.

    Args:
        wav: float32 ``[B, S]``, at least 560 samples.
        sample_rate: in Hz.

    Returns:
        float32 ``[B, T, 160]``.
    """
    banks = _mel_banks(sample_rate).to(wav.device)
    items = []
    for item in wav:
        mel = _log_mel(item, banks)
        mel = (mel - mel.mean(0)) / (mel.var(0) + 1e-7).sqrt()
        items.append(mel[: len(mel) // _STACKED * _STACKED].reshape(-1, _STACKED * _BANDS))
    return torch.stack(items)


def _log_mel(wav: Tensor, banks: Tensor) -> Tensor:
    """Log mel spectrogram ``[W, 80]`` of ``[S]``; what does not fill a window is left out."""
    frames = (wav * _FULL_SCALE).unfold(-1, _WINDOW, _SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - _PREEMPHASIS * F.pad(frames[None], (1, 0), mode="replicate")[0, :, :-1]
    window = torch.hann_window(_WINDOW, periodic=False, device=wav.device).pow(0.85)  # which Kaldi calls "povey"
    power = torch.fft.rfft(F.pad(frames * window, (0, _FFT - _WINDOW))).abs().pow(2.0)
    return torch.mm(power, banks.T).clamp(min=torch.finfo(torch.float32).eps).log()


def _mel_banks(sample_rate: int) -> Tensor:
    """Triangles on the mel scale, ``[80, 257]``, from 20 Hz to half the sample rate."""
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (_LOWEST, float(sample_rate // 2)))
    edges = (low + torch.arange(_BANDS + 2) * ((high - low) / (_BANDS + 1)))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = 1127.0 * (1.0 + (sample_rate / _FFT) * torch.arange(_FFT / 2) / 700.0).log()
    banks = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    return F.pad(banks, (0, 1))  # Kaldi leaves the highest frequency out


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """``torchaudio.functional.resample`` with its defaults: a sinc under a Hann window, six zero crossings wide.

    Codes depend on its numbers, which :func:`codecbay.audio.resample`, a sharper filter, does not give.

    Args:
        wav: ``[B, C, S]``.
        from_rate: its sample rate in Hz.
        to_rate: the wanted sample rate in Hz.

    Returns:
        ``[B, C, ceil(S * to_rate / from_rate)]``.
    """
    divisor = math.gcd(from_rate, to_rate)
    old, new = from_rate // divisor, to_rate // divisor
    if old == new:
        return wav
    rate = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / rate)
    taps = torch.arange(-width, width + old, dtype=wav.dtype, device=wav.device)[None, None] / old
    phases = torch.arange(0, -new, -1, dtype=wav.dtype, device=wav.device)[:, None, None] / new
    t = ((phases + taps) * rate).clamp(-_ZEROS, _ZEROS)
    window = torch.cos(t * math.pi / _ZEROS / 2) ** 2
    t = t * math.pi
    kernel = torch.where(t == 0, 1.0, t.sin() / t) * (window * (rate / old))
    batch, channels, samples = wav.shape
    padded = F.pad(wav.reshape(batch * channels, 1, samples), (width, width + old))
    out = F.conv1d(padded, kernel, stride=old).transpose(1, 2)
    return out.reshape(batch, channels, -1)[..., : -(-samples * new // old)]
