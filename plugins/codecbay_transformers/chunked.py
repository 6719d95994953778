"""``ChunkedCodec``: an EnCodec that works on overlapping chunks, such as the one at 48 kHz in stereo.

A chunk of 1 s is encoded for itself, with a volume of its own; the next one starts 0.99 s later, and decoded chunks are
cross-faded where they overlap. The codes of a waveform are those of its chunks one after the other, and its scale has
the shape ``[B, chunks]``. Codes of overlaps come twice, so that a second of codes makes a little less than a second of
audio: :meth:`ChunkedCodec.frames_of` and :meth:`ChunkedCodec.samples_of` count. Where a chunk is no whole number of
frames, its last frame reaches beyond it, and what it is decoded to is cross-faded too.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from codecbay.audio import check_waveform
from codecbay_transformers.codec import TransformersCodec


class ChunkedCodec(TransformersCodec):
    """A codec of chunks of a fixed length. See :class:`codecbay.codec.Codec` for what its methods promise."""

    @property
    def chunk(self) -> int:
        """Samples of a chunk."""
        return cast(int, self.description.chunk)

    @property
    def stride(self) -> int:
        """Samples from the start of a chunk to the start of the next."""
        return cast(int, self.description.stride)

    @property
    def chunk_frames(self) -> int:
        """Frames of a chunk."""
        return -(-self.chunk // self.frame_size)

    def frames_of(self, samples: int) -> int:
        """Frames of codes of a waveform of so many samples."""
        before = self._chunks_before_last(samples)
        return before * self.chunk_frames + -(-(samples - before * self.stride) // self.frame_size)

    def samples_of(self, frames: int) -> int:
        """Samples of the waveform that so many frames are decoded to."""
        before = self.chunks_of(frames) - 1
        last = before * self.stride + (frames - before * self.chunk_frames) * self.frame_size
        return max(last, (before - 1) * self.stride + self.chunk_frames * self.frame_size) if before else last

    def chunks_of(self, frames: int) -> int:
        """Chunks of so many frames."""
        return -(-frames // self.chunk_frames)

    def _chunks_before_last(self, samples: int) -> int:
        # The library adds a last chunk even where the overlap alone is left for it, which the one before holds already.
        return max(-(-(samples - self.chunk) // self.stride), 0)

    @torch.no_grad()
    def encode(self, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode ``[B, C, S]``.

        Returns:
            Codes ``[B, K, T]`` with ``T = frames_of(S)``, and where the codec normalizes the volumes ``[B, chunks]``.
        """
        check_waveform(wav, channels=self.channels)
        wav = wav.to(self.device, torch.float32)
        starts = range(0, (self._chunks_before_last(wav.shape[-1]) + 1) * self.stride, self.stride)
        parts = [self._encode(wav[..., start : start + self.chunk]) for start in starts]
        scales = [scale for _, scale in parts if scale is not None]
        return torch.cat([codes for codes, _ in parts], dim=-1), torch.cat(scales, dim=-1) if scales else None

    @torch.no_grad()
    def decode(self, codes: Tensor, scale: Tensor | None = None) -> Tensor:
        """Decode ``[B, K, T]``, with volumes ``[B, chunks]`` or without, to ``[B, C, samples_of(T)]``."""
        codes = self.check_codes(codes)
        chunks = codes.split(self.chunk_frames, dim=-1)
        scale = self._checked(scale, len(codes), len(chunks))
        # A weight that rises to the middle of a chunk and falls again, so that overlaps are cross-faded: summed in
        # float32, as shorter formats round it to nothing at the ends.
        ramp = torch.linspace(0, 1, chunks[0].shape[-1] * self.frame_size + 2, device=codes.device)[1:-1]
        weight = 0.5 - (ramp - 0.5).abs()
        total = weight.new_zeros(self.samples_of(codes.shape[-1]))
        wav = weight.new_zeros(len(codes), self.channels, len(total))
        for i, chunk in enumerate(chunks):
            part: Tensor = self.model.decoder(self._adapter.latent(self.model, chunk))  # type: ignore[operator]
            if scale is not None:
                part = part * scale[:, i, None, None]
            start, size = i * self.stride, part.shape[-1]
            wav[..., start : start + size] += weight[:size] * part
            total[start : start + size] += weight[:size]
        return (wav / total).to(next(self.parameters()).dtype)

    # Chunks follow each other in one pass: they are the windows.

    def _encode_long(self, wav: Tensor, progress: bool) -> tuple[Tensor, Tensor | None]:
        codes, scale = self.encode(wav)
        return codes, None if scale is None else scale[..., None]

    def _decode_long(self, codes: Tensor, scale: Tensor | None, progress: bool) -> Tensor:
        return self.decode(codes, None if scale is None else scale[..., 0])

    def _scale_shape(self, batch: int, frames: int) -> tuple[int, ...]:
        return batch, self.chunks_of(frames), 1
