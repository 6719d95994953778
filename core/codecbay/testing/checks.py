"""The list of checks."""

from __future__ import annotations

from codecbay.testing import code_checks, model_checks, package_checks, signal_checks
from codecbay.testing.trial import Check

CHECKS = (
    Check("spec", model_checks.spec, "the spec is what the codec does"),
    Check("inference", model_checks.inference, "the codec is in evaluation mode, without gradients"),
    Check(
        "dtype-device", model_checks.dtype_and_device, "parameters have the dtype and the device that were asked for"
    ),
    Check("code-range", signal_checks.code_range, "codes are int64, each within its codebook"),
    Check("lengths", signal_checks.lengths, "every number of samples gives the number of frames of the length law"),
    Check("recordings", signal_checks.recordings, "recordings of any rate, channels and length come back as long"),
    Check("scale", signal_checks.scale, "a scale is there where the spec says so, and matters"),
    Check("determinism", signal_checks.determinism, "the same input gives the same output, and touches nothing else"),
    Check("batch", signal_checks.batch, "a batch gives what its items give one by one"),
    Check("lists", signal_checks.lists, "recordings of different lengths give together what each gives alone"),
    Check("causal", signal_checks.causal, "a frame depends on nothing beyond the declared lookahead"),
    Check("chunked", signal_checks.chunked, "encoding by windows gives the codes of one pass"),
    Check("chunked-decode", signal_checks.chunked_decode, "decoding by windows gives the waveform of one pass"),
    Check("wrong-audio", signal_checks.wrong_audio, "what is no waveform is refused"),
    Check("prefix", code_checks.prefix, "fewer codebooks are the first ones of all"),
    Check("codebook-counts", code_checks.codebook_counts, "only the numbers of codebooks of the spec can be set"),
    Check("wrong-codes", code_checks.wrong_codes, "what is no code of the codec is refused"),
    Check("latent", code_checks.latent, "the latent has as many frames as the codes, and tells them apart"),
    Check("codes-file", code_checks.codes_file, "codes survive being written to a file"),
    Check("fingerprint-stable", model_checks.fingerprint_stable, "one codec has one fingerprint"),
    Check("fingerprint-distinct", model_checks.fingerprint_distinct, "another codec has another fingerprint"),
    Check("header", package_checks.header, "the spec comes from the header alone, without torch"),
    Check("round-trip", package_checks.round_trip, "the package written anew is the same codec"),
    Check("weights", package_checks.weights, "a package without exactly its tensors is refused"),
)
"""Every check, in the order in which they run."""
