"""Whether a codec is the one that a model was trained on: told where it is known, and not claimed where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import codecbay


def severity(package: Path, codec: str | Path | None) -> str | None:
    findings = codecbay.check(package, codec).findings
    return next((finding.severity for finding in findings if finding.field == "provenance"), None)


@pytest.fixture
def mono(packages: Path) -> Path:
    return packages / "musicgen-mono"


def test_the_codec_of_the_package_and_its_copies_are_the_same(mono: Path, tmp_path: Path) -> None:
    shutil.copy(mono / "compression_state_dict.bin", tmp_path / "copy.bin")
    for codec in (None, mono, mono / "compression_state_dict.bin", tmp_path / "copy.bin"):
        assert severity(mono, codec) is None


def test_other_weights_are_another_codec(mono: Path, packages: Path) -> None:
    assert severity(mono, packages / "musicgen-melody") == "warning"


def test_names_are_compared_by_what_they_stand_for(mono: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(mono / "state_dict.bin", alone)  # its configuration says facebook/encodec_32khz
    assert severity(alone, "encodec-32khz") is None
    assert severity(alone, "dac_44khz") == "warning"
    assert severity(alone, mono) == "note"
