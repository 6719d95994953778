"""Checks of what becomes of codes."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from codecbay.codec import EncodedAudio
from codecbay.errors import CodecbayError, CodeRangeError
from codecbay.testing.trial import Mismatch, NotApplicable, Trial, expect, expect_error, shortened


def prefix(trial: Trial) -> None:
    """With ``n`` codebooks set, codes are the first ``n`` rows of all, and decode to the same."""
    spec = trial.codec.spec
    *fewer, most = spec.allowed_num_codebooks
    if not fewer:
        raise NotApplicable("the codec allows one number of codebooks")
    whole, codec = trial.codec, trial.build()
    if whole.num_codebooks != most:
        whole = trial.build()
        whole.set_num_codebooks(most)
    codes, factor = trial.codes(), None
    if spec.can_encode:
        codes, factor = whole.encode(trial.wav())
    for n in fewer:
        codec.set_num_codebooks(n)
        if spec.can_encode:
            found, _ = codec.encode(trial.wav())
            expect(f"the shape of codes with {n} codebooks", [1, n, codes.shape[-1]], list(found.shape))
            equal = float((found == codes[:, :n]).double().mean())
            if equal < trial.batch_equal:
                raise Mismatch(f"codes with {n} codebooks to be the first {n} rows of all", f"{equal:.2%} equal")
        if spec.can_decode and not (spec.has_scale and factor is None):
            first, second = (c.decode(codes[:, :n], factor) for c in (codec, whole))
            if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
                raise Mismatch(f"{n} rows of codes to decode to the same, whatever num_codebooks is", "something else")


def codebook_counts(trial: Trial) -> None:
    """``set_num_codebooks`` takes what the spec allows, and nothing else."""
    codec = trial.build()
    allowed, total = codec.spec.allowed_num_codebooks, codec.total_codebooks
    for n in allowed:
        codec.set_num_codebooks(n)
        expect("num_codebooks, after it was set,", n, codec.num_codebooks)
        expect("num_codebooks of the spec, after it was set,", n, codec.spec.num_codebooks)
    before = codec.num_codebooks
    others: list[Any] = [n for n in range(-1, total + 2) if n not in allowed]
    for wrong in [*others, float(allowed[0]) + 0.5, str(allowed[0])]:
        expect_error(f"set_num_codebooks({wrong!r})", CodecbayError, partial(codec.set_num_codebooks, wrong))
        expect("num_codebooks, after another was refused,", before, codec.num_codebooks)


def wrong_codes(trial: Trial) -> None:
    """What is no code of the codec raises ``CodeRangeError``, in ``decode`` and in ``decode_latent``."""
    codec = trial.decoder()
    codes = trial.codes()
    last = codes.shape[1] - 1
    cases: dict[str, Any] = {
        "codes without a batch": codes[0],
        "codes of rank 4": codes[None],
        "codes without frames": codes[..., :0],
        "codes in floating point": codes.float(),
        f"codes of {codec.total_codebooks + 1} codebooks": codes[:, :1].repeat(1, codec.total_codebooks + 1, 1),
    }
    for k in {0, last}:
        for value in (-1, codec.spec.cardinalities[k], 1 << 40):
            wrong = codes.clone()
            wrong[0, k, 1] = value
            cases[f"the code {value} in codebook {k}, which has {codec.spec.cardinalities[k]} entries,"] = wrong
    for kind, wrong in cases.items():
        factor = trial.scale(batch=len(wrong))  # nothing shall be wrong but the codes
        expect_error(f"{kind} in decode", CodeRangeError, partial(codec.decode, wrong, factor))
        expect_error(f"{kind} in decode_latent", CodeRangeError, partial(codec.decode_latent, wrong))


def latent(trial: Trial) -> None:
    """``decode_latent`` gives finite ``[B, D, T]``, and other codes give another latent."""
    codec = trial.decoder()
    codes, others = trial.codes(batch=2), trial.codes(batch=2, seed=1)
    first, second = codec.decode_latent(codes), codec.decode_latent(others)
    if first.dim() != 3 or not first.is_floating_point():
        raise Mismatch("a floating-point latent [B, D, T]", f"{first.dtype} of shape {list(first.shape)}")
    expect("batch and frames of the latent", [2, codes.shape[-1] // codec.codes_per_frame], list(first.shape[::2]))
    if not first.isfinite().all():
        raise Mismatch("a finite latent", "NaN or infinity")
    if torch.equal(first, second):
        raise Mismatch("another latent for other codes", "the same")


def codes_file(trial: Trial) -> None:
    """What ``EncodedAudio.save`` writes, ``load`` reads, and it decodes to the same."""
    codec = trial.encoder()
    encoded = codec.encode_audio(trial.wav(batch=2), codec.sample_rate)
    try:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "recording.codes"
            encoded.save(path)
            loaded = EncodedAudio.load(path)
    except Exception as error:  # whatever the file format cannot hold
        found = f"{type(error).__name__}: {shortened(str(error))}"
        raise Mismatch("codes that can be written to a file and read back", found) from error
    for name in ("num_samples", "sample_rate", "channels", "codec", "fingerprint"):
        expect(f"{name} of codes from a file", getattr(encoded, name), getattr(loaded, name))
    for name in ("codes", "scale"):
        written, read = getattr(encoded, name), getattr(loaded, name)
        if (written is None) != (read is None) or (written is not None and not torch.equal(written.cpu(), read.cpu())):
            raise Mismatch(f"{name} from a file to be what was written", "something else")
    if codec.spec.can_decode:
        first, second = (codec.decode_audio(e)[0] for e in (encoded, loaded))
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
            raise Mismatch("codes from a file to decode to the same", "something else")
