"""The facts about a codec, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from codecbay.errors import ConfigError
from codecbay.spec import CodecSpec

SPEC = CodecSpec(
    sample_rate=24_000,
    channels=1,
    cardinalities=(1000, 1000, 8),
    frame_size=1_920,
    frame_rate=Fraction(25, 2),
    num_codebooks=3,
    allowed_num_codebooks=(1, 3),
)


@pytest.mark.parametrize(
    ("lookahead", "causal", "latency"),
    [(None, False, None), (0, True, Fraction(80, 1000)), (480, False, Fraction(100, 1000))],
)
def test_lookahead_tells_the_latency(lookahead: int | None, causal: bool, latency: Fraction | None) -> None:
    spec = replace(SPEC, lookahead=lookahead)
    assert (spec.causal, spec.latency) == (causal, latency)


@pytest.mark.parametrize(
    "change",
    [
        {"frame_rate": Fraction(25)},  # two steps of codes to a frame, as where two channels are interleaved
        {"decoded_sample_rate": 16_000},
        {"decoded_sample_rate": 48_000},
        {"can_encode": False},
        {"can_decode": False},
        {"channels": 6},
    ],
    ids=str,
)
def test_what_some_codec_is_can_be_described(change: dict[str, Any]) -> None:
    replace(SPEC, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0},
        {"channels": 1.0},
        {"cardinalities": (1000, 0, 8)},
        {"cardinalities": (1000, 8)},
        {"frame_rate": Fraction(0)},
        {"frame_rate": 12.5},
        {"frame_rate": Fraction(12)},
        {"frame_size": 1_921},
        {"can_encode": False, "can_decode": False},
        {"num_codebooks": 2},
        {"allowed_num_codebooks": ()},
        {"allowed_num_codebooks": (0, 3)},
        {"decoded_sample_rate": -1},
        {"decoded_sample_rate": 22_051},
        {"lookahead": -1},
        {"lookahead": 0.5},
        {"chunked_tolerance": 1.5},
        {"chunked_tolerance": float("nan")},
    ],
    ids=str,
)
def test_what_describes_no_codec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="This describes no codec"):
        replace(SPEC, **change)
