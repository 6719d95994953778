"""The check: every mismatch in one report, each with both values and what to change."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from codecbay.compat import Finding, Report, compare
from codecbay.errors import ConfigError
from codecbay.spec import CodecSpec, LMSpec

CODEC = CodecSpec(
    sample_rate=32000,
    channels=1,
    cardinalities=(2048,) * 4,
    frame_size=640,
    frame_rate=Fraction(50),
    num_codebooks=4,
    allowed_num_codebooks=(1, 2, 3, 4),
)
LM = LMSpec("musicgen", 2048, 4, 30.0, sample_rate=32000, channels=1, frame_rate=Fraction(50))
STEREO = replace(LM, num_codebooks=8, channels=2, stereo="codebook")


def found(report: Report) -> dict[str, Finding]:
    return {finding.field: finding for finding in report.findings}


def test_a_fitting_pair() -> None:
    report = compare(LM, CODEC)
    assert report.ok
    assert not report.findings
    assert str(report) == "Codec 'codec' fits LM 'LM'."


def test_every_mismatch_is_in_one_report() -> None:
    codec = CodecSpec(44100, 2, (1024,) * 2, 512, Fraction(44100, 512), 2, (1, 2))
    report = compare(LM, codec)
    assert not report.ok
    assert {f.field for f in report.errors} == {"card", "n_q", "sample_rate", "channels", "frame_rate"}
    for finding in report.errors:
        assert finding.lm != finding.codec
        assert finding.action
    assert "does not fit LM 'LM': 5 problems." in str(report)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cardinalities": (1024,) * 4}, "card"),
        ({"cardinalities": (2048, 2048, 2048, 1000)}, "card"),
        ({"sample_rate": 16000}, "sample_rate"),
        ({"channels": 2}, "channels"),
        ({"frame_size": 1280, "frame_rate": Fraction(25)}, "frame_rate"),
        ({"allowed_num_codebooks": (2, 3), "num_codebooks": 2}, "n_q"),
        ({"can_decode": False}, "decode"),
    ],
)
def test_each_field_alone(change: dict[str, object], field: str) -> None:
    report = compare(LM, replace(CODEC, **change))  # type: ignore[arg-type]
    assert [finding.field for finding in report.errors] == [field]


def test_what_the_package_does_not_tell_is_not_compared() -> None:
    silent = replace(LM, sample_rate=None, channels=None, frame_rate=None)
    codec = replace(CODEC, sample_rate=8000, channels=2, frame_size=8000, frame_rate=Fraction(1))
    assert compare(silent, codec).ok


def test_codebooks_are_set_where_the_codec_allows_it_and_the_report_says_so() -> None:
    codec = replace(CODEC, cardinalities=(2048,) * 32, num_codebooks=32, allowed_num_codebooks=(2, 4, 8, 16, 32))
    report = compare(LM, codec)
    assert report.ok
    assert report.num_codebooks == report.codec.num_codebooks == 4
    assert found(report)["n_q"].severity == "note"


def test_only_the_codebooks_in_use_need_the_right_cardinality() -> None:
    codec = replace(CODEC, cardinalities=(2048,) * 4 + (16,) * 4, num_codebooks=8, allowed_num_codebooks=(4, 8))
    assert compare(LM, codec).ok


def test_a_number_of_codebooks_that_was_asked_for_is_not_overruled() -> None:
    report = compare(LM, CODEC, num_codebooks=2)
    assert found(report)["n_q"].severity == "error"
    assert "num_codebooks=4" in found(report)["n_q"].action


def test_interleaved_stereo_needs_half_the_codebooks_of_a_mono_codec() -> None:
    report = compare(STEREO, CODEC)
    assert report.ok
    assert report.num_codebooks == 4
    assert (report.codec.num_codebooks, report.codec.channels) == (8, 2)


def test_interleaving_by_time_step_doubles_the_frames_instead() -> None:
    report = compare(replace(LM, channels=2, stereo="timestep"), CODEC)
    assert report.ok
    assert (report.codec.num_codebooks, float(report.codec.frame_rate)) == (4, 100.0)


def test_a_stereo_codec_cannot_be_interleaved() -> None:
    report = compare(STEREO, replace(CODEC, channels=2))
    assert [finding.field for finding in report.errors] == ["channels"]


@pytest.mark.parametrize(("own", "fits"), [(4, True), (2, False)])
def test_what_the_configuration_sets_on_the_codec_counts(own: int, fits: bool) -> None:
    report = compare(replace(LM, codec_num_codebooks=own), CODEC)
    assert report.ok is fits
    assert ("compression_model_n_q" in found(report)) is not fits


def test_another_codec_than_the_one_trained_on_is_a_warning_and_an_unknown_one_a_note() -> None:
    known = compare(LM, CODEC, own_codec=False, trained_with="facebook/encodec_32khz")
    unknown = compare(LM, CODEC, own_codec=None)
    assert known.ok
    assert unknown.ok
    assert found(known)["provenance"].severity == "warning"
    assert found(unknown)["provenance"].severity == "note"


def test_errors_come_first_and_the_report_is_plain_data() -> None:
    report = compare(LM, replace(CODEC, sample_rate=1, can_encode=False, num_codebooks=2), own_codec=False)
    assert [f.severity for f in report.findings] == sorted(
        (f.severity for f in report.findings), key=["error", "warning", "note"].index
    )
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is False
    assert data["findings"][0] == {
        "severity": "error",
        "field": "sample_rate",
        "lm": 32000,
        "codec": 1,
        "action": report.findings[0].action,
    }


@pytest.mark.parametrize(
    ("lm", "codec", "field", "action"),
    [
        (
            LM,
            replace(CODEC, cardinalities=(64, 64, 128, 128)),
            "card",
            "Use a codec with 2048 entries in each codebook.",
        ),
        (LM, replace(CODEC, cardinalities=(64,) * 4), "card", "transformer_lm.card=64"),
        (replace(LM, codec_num_codebooks=2), CODEC, "compression_model_n_q", "correct compression_model_n_q"),
        (replace(STEREO, channels=1), CODEC, "channels", "correct whichever is wrong"),
        (replace(STEREO, num_codebooks=7), CODEC, "n_q", "need an even number"),
        (
            LM,
            replace(CODEC, cardinalities=(2048,) * 32, num_codebooks=2, allowed_num_codebooks=(2, 5, 32)),
            "n_q",
            "train the LM with n_q=5",
        ),
    ],
)
def test_actions_help(lm: LMSpec, codec: CodecSpec, field: str, action: str) -> None:
    report = compare(lm, codec)
    assert not report.ok
    assert action in found(report)[field].action


def test_what_the_codec_allows_is_said_where_the_wanted_number_does_not_help_either() -> None:
    report = compare(replace(LM, num_codebooks=9), CODEC, num_codebooks=99)
    assert "but the codec allows 1..4" in found(report)["n_q"].action


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0},
        {"channels": 1.5},
        {"cardinalities": ()},
        {"cardinalities": (2048, 0, 2048, 2048)},
        {"allowed_num_codebooks": ()},
        {"allowed_num_codebooks": (0, 4)},
        {"num_codebooks": 3, "allowed_num_codebooks": (4,)},
        {"allowed_num_codebooks": (4, 5)},
        {"frame_rate": Fraction(0)},
    ],
)
def test_a_spec_that_describes_no_codec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="This describes no codec"):
        replace(CODEC, **change)
