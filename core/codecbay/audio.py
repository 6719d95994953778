"""Waveforms: sample rates, channels, and sound files.

Letters: ``B`` batch, ``C`` channels, ``S`` samples. Waveforms are float, ``[B, C, S]`` or ``[C, S]``.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from codecbay.errors import AudioError
from codecbay.files import written_whole

MAX_SAMPLE_RATE = 768_000
_ZEROS = 24  # zero crossings of the sinc on either side
_ROLLOFF = 0.945  # of the band that both sample rates can hold
_BANK = 1 << 21  # filter taps that are held at once


def check_sample_rate(sample_rate: int) -> int:
    """``sample_rate`` itself, if it is one.

    Raises:
        AudioError: it is not a whole number of Hz, or out of proportion.
    """
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float)) or sample_rate % 1:
        raise AudioError(f"A sample rate is a whole number of Hz, found {sample_rate!r}.")
    if not 1 <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(f"The sample rate {sample_rate} Hz is not between 1 and {MAX_SAMPLE_RATE} Hz.")
    return int(sample_rate)


def check_waveform(wav: Tensor, *, channels: int | None = None) -> Tensor:
    """``wav`` itself, if it is a batch of waveforms ``[B, C, S]``.

    Raises:
        AudioError: it has another rank, no samples, NaN or infinity, is not float, or has other channels.
    """
    if not isinstance(wav, Tensor) or not wav.is_floating_point():
        raise AudioError(f"A waveform is a floating-point tensor, found {getattr(wav, 'dtype', type(wav).__name__)}.")
    if wav.dim() != 3:
        raise AudioError(f"A batch of waveforms has the shape [B, C, S], found {list(wav.shape)}.")
    if not wav.numel():
        raise AudioError(f"The waveform is empty: its shape is {list(wav.shape)}.")
    if channels is not None and wav.shape[1] != channels:
        raise AudioError(f"The waveform has {wav.shape[1]} channels, expected {channels}; see convert_audio.")
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(wav)):  # without a copy of a long recording
        raise AudioError("The waveform holds NaN or infinity.")
    return wav


def as_batch(wav: Tensor) -> Tensor:
    """``[C, S]`` or ``[B, C, S]`` as ``[B, C, S]``.

    Raises:
        AudioError: it is no waveform; see :func:`check_waveform`.
    """
    return check_waveform(wav[None] if isinstance(wav, Tensor) and wav.dim() == 2 else wav)


def convert_audio(wav: Tensor, from_rate: int, to_rate: int, channels: int) -> Tensor:
    """Change a waveform's sample rate and number of channels.

    Channels are averaged to one, one is repeated to many, and of many the first are kept.

    Args:
        wav: ``[..., C, S]``.
        from_rate: its sample rate in Hz.
        to_rate: the wanted sample rate in Hz.
        channels: the wanted number of channels.

    Returns:
        ``[..., channels, floor(S * to_rate / from_rate)]``.

    Raises:
        AudioError: fewer channels than are wanted, but more than one; or a sample rate is none.
    """
    wav = resample(wav, from_rate, to_rate)
    found = wav.shape[-2]
    if found == channels:
        return wav
    if channels == 1:
        return wav.mean(-2, keepdim=True)
    if found == 1:
        return wav.expand(*wav.shape[:-2], channels, wav.shape[-1])
    if found > channels:
        return wav[..., :channels, :]
    raise AudioError(f"{found} channels cannot be made {channels}: give mono or at least {channels}.")


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling, at any ratio of rates, in bounded memory.

    A windowed sinc (Smith, "Digital audio resampling", https://ccrma.stanford.edu/~jos/resample/), whose taps
    and length agree with the julius library, so that prompts become the samples that AudioCraft makes of them.

    Args:
        wav: ``[..., S]``.
        from_rate: its sample rate in Hz.
        to_rate: the wanted sample rate in Hz.

    Returns:
        ``[..., floor(S * to_rate / from_rate)]``.

    Raises:
        AudioError: a sample rate is none, or nothing is left of the waveform.
    """
    from_rate, to_rate = check_sample_rate(from_rate), check_sample_rate(to_rate)
    divisor = math.gcd(from_rate, to_rate)
    old, new = from_rate // divisor, to_rate // divisor
    if old == new:
        return wav
    length = wav.shape[-1] * new // old
    if not length:
        raise AudioError(f"The waveform is too short to be resampled from {from_rate} to {to_rate} Hz.")
    rate = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / rate)
    flat = wav.reshape(-1, 1, wav.shape[-1])
    padded = F.pad(flat, (width, width + old), mode="replicate")
    frames = (padded.shape[-1] - (2 * width + old)) // old + 1

    # Phase i of an output frame is centred on input sample i * old / new. Phases that lie together share one
    # convolution, over only the samples that any of them can see.
    group = max(1, min(new, math.ceil(2 * width * new / old), _BANK // (4 * width)))
    columns = []
    for first in range(0, min(new, length), group):
        last = min(first + group, new) - 1
        low = first * old // new
        high = min(last * old // new + 2 * width + 2, 2 * width + old)
        phases = torch.tensor([-i / new for i in range(first, last + 1)])
        taps = torch.arange(low - width, high - width).float() / old
        t = ((phases[:, None] + taps) * rate).clamp(-_ZEROS, _ZEROS) * math.pi
        kernel = torch.where(t == 0, 1.0, t.sin() / t) * torch.cos(t / _ZEROS / 2) ** 2
        kernel = (kernel / kernel.sum(1, keepdim=True)).to(wav)
        seen = padded[..., low : low + (frames - 1) * old + kernel.shape[1]]
        columns.append(F.conv1d(seen, kernel[:, None], stride=old))
    out = torch.cat(columns, dim=1).transpose(1, 2).flatten(1)
    return out[:, :length].reshape(*wav.shape[:-1], length)


def read_audio(path: str | os.PathLike[str]) -> tuple[Tensor, int]:
    """Read a sound file (wav, flac, ogg, mp3 …).

    Returns:
        The waveform ``[C, S]`` in float32, and its sample rate in Hz.

    Raises:
        AudioError: there is no such file, it is no sound file, or it is empty.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: there is no such sound file.")
    try:
        data, sample_rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:
        raise AudioError(f"{path}: this cannot be read as sound: {error}") from None
    wav = torch.from_numpy(data.T.copy())
    check_sample_rate(sample_rate)
    check_waveform(wav[None])
    return wav, int(sample_rate)


def write_audio(path: str | os.PathLike[str], wav: Tensor, sample_rate: int) -> None:
    """Write a sound file, in the format that the ending of its name tells; clipped to [-1, 1].

    The file appears whole or not at all.

    Args:
        path: the file.
        wav: ``[C, S]``.
        sample_rate: in Hz.

    Raises:
        AudioError: the ending is not that of a sound format, or it does not take the waveform.
        OutputError: the file cannot be written.
    """
    import soundfile

    path = Path(path)
    kind = path.suffix[1:].upper()
    if kind not in soundfile.available_formats():
        raise AudioError(f"{path}: give a file name that ends in .wav, .flac or .ogg.")
    check_waveform(wav[None])
    check_sample_rate(sample_rate)
    samples = wav.detach().to("cpu", torch.float32).clamp(-1.0, 1.0).T.numpy()
    with written_whole(path) as temporary:
        try:
            soundfile.write(str(temporary), samples, sample_rate, format=kind)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{path}: the file cannot be written: {error}.") from None
