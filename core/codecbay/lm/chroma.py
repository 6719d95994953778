"""The melody of a waveform as a chromagram, optionally of its stems without drums and bass."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codecbay.audio import convert_audio
from codecbay.imports import harmless_torchaudio


class ChromaExtractor(nn.Module):
    """How much of each pitch class a waveform holds, frame by frame.

    Args:
        sample_rate: in Hz.
        n_chroma: pitch classes.
        radix2_exp: the window has ``2 ** radix2_exp`` samples.
        nfft: points of the Fourier transform; the window's length by default.
        winlen: samples in a window.
        winhop: samples from window to window; a quarter of a window by default.
        argmax: keep only the strongest pitch class of a frame.
        norm: the order of the norm that frames are scaled by.
        stored_window: the window is part of the state, under AudioCraft's name for it.
    """

    def __init__(
        self,
        sample_rate: int,
        n_chroma: int = 12,
        radix2_exp: int = 12,
        nfft: int | None = None,
        winlen: int | None = None,
        winhop: int | None = None,
        argmax: bool = False,
        norm: float = float("inf"),
        stored_window: bool = False,
    ) -> None:
        super().__init__()
        self.winlen = winlen or 2**radix2_exp
        self.nfft = nfft or self.winlen
        self.winhop = winhop or self.winlen // 4
        self.argmax = argmax
        self.norm = norm
        self.n_chroma = n_chroma
        self.sample_rate = sample_rate
        self._filters: Tensor | None = None
        self.spec = nn.Module()
        if stored_window:
            self.spec.register_buffer("window", torch.hann_window(self.winlen))

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform of so many samples."""
        return 1 + max(samples, self.nfft) // self.winhop

    def forward(self, wav: Tensor) -> Tensor:
        """Waveform ``[B, 1, S]`` to chroma ``[B, T, n_chroma]``."""
        if wav.shape[-1] < self.nfft:
            short = self.nfft - wav.shape[-1]
            wav = F.pad(wav, (short // 2, short - short // 2))
        stored = dict(self.spec.named_buffers()).get("window")
        window = torch.hann_window(self.winlen, device=wav.device) if stored is None else stored.float()
        spectrum = torch.stft(
            wav.squeeze(1),
            self.nfft,
            self.winhop,
            self.winlen,
            window=window,
            center=True,
            return_complex=True,
        )
        power = (spectrum / window.pow(2).sum().sqrt()).abs().pow(2)
        chroma = torch.einsum("cf,bft->bct", self._filter_bank(wav.device), power)
        chroma = F.normalize(chroma, p=self.norm, dim=-2, eps=1e-6).transpose(1, 2)
        if self.argmax:
            strongest = chroma.argmax(-1, keepdim=True)
            chroma = torch.zeros_like(chroma).scatter_(-1, strongest, 1.0)
        return chroma

    def _filter_bank(self, device: torch.device) -> Tensor:
        if self._filters is None:
            with harmless_torchaudio():
                from transformers.audio_utils import chroma_filter_bank

            bank = chroma_filter_bank(
                num_frequency_bins=self.nfft,
                num_chroma=self.n_chroma,
                sampling_rate=self.sample_rate,
                tuning=0.0,
            )
            self._filters = torch.from_numpy(bank).float()
        self._filters = self._filters.to(device)
        return self._filters


def load_demucs() -> Any:
    """The model that takes stems apart, fetched by demucs itself where it is not in torch's cache yet.

    Raises:
        ImportError: demucs is not installed.
    """
    from demucs import pretrained

    return pretrained.get_model("htdemucs")


class StemSeparator:
    """Takes drums and bass out of a mix with demucs, where it is installed; otherwise leaves the mix alone."""

    def __init__(self) -> None:
        self._model: Any = None
        self._missing = False

    def __call__(self, wav: Tensor, sample_rate: int, target_rate: int) -> Tensor:
        """Mix ``[B, C, S]`` at ``sample_rate`` to melody ``[B, 1, S]`` at ``target_rate``."""
        if self._model is None and not self._missing:
            try:
                self._model = load_demucs()
            except Exception as error:  # not installed, or its weights cannot be fetched
                self._missing = True
                warnings.warn(
                    f"The melody is taken from the whole mix, because demucs cannot be used ({error}). "
                    "For the melody alone: pip install demucs",
                    stacklevel=2,
                )
        if self._model is None:
            return convert_audio(wav, sample_rate, target_rate, 1)
        from demucs.apply import apply_model

        model = self._model.to(wav.device)
        wav = convert_audio(wav, sample_rate, model.samplerate, model.audio_channels)
        stems = apply_model(model, wav, device=wav.device)
        kept = [model.sources.index(name) for name in ("vocals", "other")]
        return convert_audio(stems[:, kept].sum(1), model.samplerate, target_rate, 1)
