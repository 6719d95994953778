"""Checks of what becomes of waveforms.

Letters: ``B`` batch, ``C`` channels, ``S`` samples, ``K`` codebooks, ``T`` frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

import codecbay.codec
from codecbay.errors import AudioError
from codecbay.testing.trial import Mismatch, NotApplicable, Trial, expect, expect_error

_WINDOW = 2.0  # seconds that encode_audio shall work on at once, so that a short recording has several windows
_CLOSE = 1e-4  # of the largest sample: how far waveforms may differ that are computed in another order
_NEAR = 0.01  # of the largest sample: how far waveforms may differ that are decoded by windows


def code_range(trial: Trial) -> None:
    """Silence, noise and clipping give int64 codes within the cardinality of each codebook."""
    codec = trial.encoder()
    wav = trial.wav()
    for kind, signal in {"noise": wav, "silence": 0 * wav, "a clipped signal": (20 * wav).clamp(-1, 1)}.items():
        codes, _ = codec.encode(signal)
        expect(f"the dtype of codes of {kind}", torch.int64, codes.dtype)
        for k, cardinality in enumerate(codec.spec.cardinalities[: codes.shape[1]]):
            low, high = (int(value) for value in codes[:, k].aminmax())
            if low < 0 or high >= cardinality:
                raise Mismatch(f"codes of {kind} in codebook {k} within 0..{cardinality - 1}", f"{low}..{high}")
        # With one code for everything, most other checks would hold for nothing.
        if kind == "noise" and all(len(row.unique()) == 1 for row in codes.unbind(1)):
            raise Mismatch("more than one code for tones in noise", f"{codes[0, 0, 0]} in every frame")


def lengths(trial: Trial) -> None:
    """``S`` samples give ``T = frames_of(S)`` frames, and these give ``samples_of(T)`` samples."""
    codec = trial.codec
    spec, size = codec.spec, codec.frame_size
    for samples in sorted({1, 2, max(size - 1, 1), size, size + 1, 2 * size + size // 3 + 1, 5 * size, 7 * size - 1}):
        frames = codec.frames_of(samples)
        least = -(-samples * spec.output_rate // spec.sample_rate)
        if codec.samples_of(frames) < least:
            raise Mismatch(
                f"{frames} frames, those of {samples} samples, to be decoded to {least} samples or more",
                f"samples_of({frames}) is {codec.samples_of(frames)}",
            )
        codes, scale = trial.codes(samples=samples), None
        if spec.can_encode:
            codes, scale = codec.encode(trial.wav(samples=samples))
            wanted = [1, codec.num_codebooks, frames]
            expect(f"the shape of the codes of {samples} samples ({size} to a frame)", wanted, list(codes.shape))
        if spec.can_decode and not (spec.has_scale and scale is None):
            wav = codec.decode(codes, scale)
            wanted = [1, spec.channels, codec.samples_of(frames)]
            expect(f"the shape of the waveform decoded from {frames} frames", wanted, list(wav.shape))


def recordings(trial: Trial) -> None:
    """``decode_audio`` gives back exactly the samples, channels and rate that ``encode_audio`` took."""
    codec = trial.both()
    rate = codec.sample_rate
    for sample_rate, channels, samples in (
        (rate, codec.channels, 1),
        (rate, codec.channels, 3 * codec.frame_size + 1),
        (44_100, 1, 44_100 // 8 + 1),
        (11_025, max(2, codec.channels), 11_025 // 8),
        (rate + 1, 1, 5 * codec.frame_size + 3),
        (48_000, max(2, codec.channels) + 1, 1),
    ):
        generator = torch.Generator().manual_seed(samples)
        wav = 0.2 * torch.randn(2, channels, samples, generator=generator)
        what = f"the shape of a recording of {samples} samples and {channels} channels at {sample_rate} Hz"
        encoded = codec.encode_audio(wav.to(trial.device), sample_rate)
        decoded, found_rate = codec.decode_audio(encoded)
        expect(f"{what}, decoded,", list(wav.shape), list(decoded.shape))
        expect("the sample rate of a decoded recording", sample_rate, found_rate)


def scale(trial: Trial) -> None:
    """Where the spec has a scale, it tells how loud a signal is, and decoding needs it back; else it is ``None``."""
    codec = trial.encoder()
    wav = trial.wav(batch=2)
    codes, scale = codec.encode(wav)
    if not codec.spec.has_scale:
        if scale is not None:
            raise Mismatch("no scale, as the spec declares has_scale=False", f"one of shape {list(scale.shape)}")
        return
    if scale is None:
        raise Mismatch("a scale, as the spec declares has_scale=True", "None")
    expect("the first dimension of the scale of 2 items", 2, scale.shape[0])
    if not scale.isfinite().all() or not codec.encode(0 * wav)[1].isfinite().all():  # type: ignore[union-attr]
        raise Mismatch("a finite scale, of silence too", "NaN or infinity")
    louder = codec.encode(2 * wav)[1]
    if louder is None or not (louder > scale).all():
        raise Mismatch("a greater scale where the signal is twice as loud", f"{louder} after {scale}")
    if codec.spec.can_decode and _same_audio(codec.decode(codes, scale), codec.decode(codes, 2 * scale)):
        raise Mismatch("decode to heed the scale", "the same waveform with a scale twice as great")
    if codec.spec.can_decode:
        encoded = codec.encode_audio(wav, codec.sample_rate)
        if encoded.scale is None:
            raise Mismatch("encode_audio to keep the scale", "none in what it returned")


def determinism(trial: Trial) -> None:
    """The same input gives the same output whatever the random state is; state and input stay as they were."""
    codec = trial.codec
    wav, codes, factor = trial.wav(), trial.codes(), trial.scale()
    if codec.spec.can_encode:
        _twice("encode", wav, lambda: codec.encode(wav)[0])
    if codec.spec.can_decode:
        _twice("decode", codes, lambda: codec.decode(codes, factor))


def _twice(name: str, given: Tensor, call: Callable[[], Tensor]) -> None:
    before = given.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = call().clone()
    if not torch.equal(torch.get_rng_state(), state):
        raise Mismatch(f"{name} to leave torch's random state as it was", "another state")
    torch.manual_seed(2)
    if not torch.equal(call(), first):
        raise Mismatch(f"{name} to give the same twice", "something else the second time")
    if not torch.equal(given, before):
        raise Mismatch(f"{name} to leave what it was given as it was", "other values in it")


def batch(trial: Trial) -> None:
    """Signals of equal length, encoded and decoded together, give what they give one by one."""
    codec = trial.codec
    codes, factor = trial.codes(batch=3), trial.scale(batch=3)
    if codec.spec.can_encode:
        wav = trial.wav(batch=3)
        codes, factor = codec.encode(wav)
        alone = torch.cat([codec.encode(item[None])[0] for item in wav])
        _expect_equal("codes of a batch to be those of its items", alone, codes, trial.batch_equal)
    if codec.spec.can_decode:
        together = codec.decode(codes, factor)
        items = [codec.decode(codes[i : i + 1], None if factor is None else factor[i : i + 1]) for i in range(3)]
        if not _same_audio(together, torch.cat(items)):
            raise Mismatch("the waveforms of a batch to be those of its items", _difference(together, torch.cat(items)))


def causal(trial: Trial) -> None:
    """Another ending changes no frame that lies the declared lookahead before it."""
    codec = trial.codec
    ahead = codec.spec.lookahead
    if ahead is None:
        raise NotApplicable("the spec does not declare a lookahead")
    kept, size = 6, codec.frame_size
    more = -(-ahead // size)  # frames that may change before the change
    if codec.spec.can_encode:
        change, samples = kept * size + ahead, (2 * kept + more) * size
        # No louder than before: a scale is of the whole signal.
        wav = trial.wav(samples=samples)
        other = torch.cat([wav[..., :change], trial.wav(samples=samples, seed=1)[..., change:]], -1)
        steps = kept * codec.codes_per_frame
        first, second = codec.encode(wav)[0][..., :steps], codec.encode(other)[0][..., :steps]
        _expect_equal("codes before a change to be the same", first, second, trial.batch_equal)
    if codec.spec.can_decode:
        given = (2 * kept + more) * size
        codes, other = (trial.codes(samples=given, seed=seed) for seed in (0, 1))
        steps = (kept + more) * codec.codes_per_frame
        changed = torch.cat([codes[..., :steps], other[..., steps:]], -1)
        factor, samples = trial.scale(samples=given), kept * codec.output_frame_size
        before, after = (codec.decode(c, factor)[..., :samples] for c in (codes, changed))
        if not _same_audio(before, after):
            raise Mismatch("the waveform before a change to be the same", _difference(before, after))


def lists(trial: Trial) -> None:
    """Recordings of different lengths, encoded together, give the codes that each gives alone."""
    codec = trial.encoder()
    size = codec.frame_size
    wavs = [
        trial.wav(samples=samples, seed=seed)[0] for seed, samples in enumerate((5 * size, 3 * size + 1, 5 * size, 1))
    ]
    for wav, found in zip(wavs, codec.encode_many(wavs, codec.sample_rate), strict=True):
        alone = codec.encode_audio(wav, codec.sample_rate)
        expect("the samples of a recording in a list", alone.num_samples, found.num_samples)
        _expect_equal("codes of a recording in a list to be its own", alone.codes, found.codes, trial.batch_equal)


def chunked(trial: Trial) -> None:
    """A recording of five seconds, by windows of two, gives the codes of one pass."""
    codec = trial.encoder()
    wav = trial.wav(samples=5 * codec.sample_rate + 1)
    whole, _ = codec.encode(wav)
    with _short_windows():
        found = codec.encode_audio(wav, codec.sample_rate).codes
    least = min(1 - codec.spec.chunked_tolerance, trial.batch_equal)
    _expect_equal("codes by windows to be those of one pass", whole, found, least)


def chunked_decode(trial: Trial) -> None:
    """The codes of five seconds, by windows of two, give the waveform of one pass."""
    codec = trial.both()
    if codec.output_rate != codec.sample_rate:
        raise NotApplicable("decode_audio resamples what the codec decodes")
    wav = trial.wav(samples=5 * codec.sample_rate + 1)
    with _short_windows():
        encoded = codec.encode_audio(wav, codec.sample_rate)
        found, _ = codec.decode_audio(encoded)
    expect("the shape of a recording decoded by windows", list(wav.shape), list(found.shape))
    whole = codec.decode(encoded.codes, codec.encode(wav)[1])[..., : found.shape[-1]]
    near = float(((found - whole).abs() <= _NEAR * whole.abs().max()).double().mean())
    least = min(1 - codec.spec.chunked_tolerance, trial.batch_equal)
    if near < least:
        raise Mismatch(f"samples by windows to be those of one pass, {least:.1%} of them at least", f"{near:.2%}")


@contextmanager
def _short_windows() -> Iterator[None]:
    before = codecbay.codec._WINDOW
    codecbay.codec._WINDOW = _WINDOW
    try:
        yield
    finally:
        codecbay.codec._WINDOW = before


def wrong_audio(trial: Trial) -> None:
    """What is no waveform of the codec's channels raises ``AudioError``."""
    codec = trial.encoder()
    wav = trial.wav()
    broken = wav.clone()
    broken[..., 3] = float("nan")
    cases = {
        "NaN": broken,
        "infinity": broken.nan_to_num(nan=float("inf")),
        "a waveform of whole numbers": wav.to(torch.int16),
        "a waveform without a batch": wav[0],
        f"a waveform of {codec.channels + 1} channels": wav[:, :1].repeat(1, codec.channels + 1, 1),
        "a waveform without samples": wav[..., :0],
    }
    for kind, wrong in cases.items():
        expect_error(kind, AudioError, partial(codec.encode, wrong))


def _expect_equal(what: str, expected: Tensor, found: Tensor, least: float) -> None:
    if expected.shape != found.shape:
        raise Mismatch(what, f"the shape {list(found.shape)} where it is {list(expected.shape)}")
    equal = float((expected == found).double().mean())
    if equal < least:
        raise Mismatch(f"{what}, {least:.1%} of them at least", f"{equal:.2%}")


def _same_audio(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    largest = float(torch.maximum(first.abs().max(), second.abs().max()))
    return float((first - second).abs().max()) <= _CLOSE * largest


def _difference(first: Tensor, second: Tensor) -> str:
    if first.shape != second.shape:
        return f"the shapes {list(first.shape)} and {list(second.shape)}"
    return f"a difference of {float((first - second).abs().max()):.2g}"
