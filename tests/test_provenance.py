"""Whether a codec is the one that a model was trained on: told where it is known, and not claimed where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import codecbay
from codecbay.errors import IncompatibleError
from codecbay.export import export_lm, export_pretrained_codec


def severity(package: Path, codec: str | Path | codecbay.Codec | None) -> str | None:
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


def exported(packages: Path, directory: Path, codec: Path) -> Path:
    """A package that remembers the codec that its model was trained on."""
    export_lm(packages / "musicgen-mono" / "lm_training_checkpoint.th", f"{directory}/", codec=codec)
    return directory


def test_fingerprints_tell_codecs_apart(mono: Path, packages: Path, tmp_path: Path) -> None:
    package = exported(packages, tmp_path / "package", mono)
    for name, codec in (("same", mono), ("other", packages / "musicgen-melody")):
        export_pretrained_codec(codec, f"{tmp_path / name}/")
    assert severity(package, tmp_path / "same") is None
    assert severity(package, tmp_path / "other") == "warning"
    assert (
        severity(package, mono) == "note"
    )  # it was written without a fingerprint, and nothing is computed for a check
    assert severity(package, codecbay.load_codec(mono, device="cpu")) is None
    assert severity(package, codecbay.load_codec(packages / "musicgen-melody", device="cpu")) == "warning"


def test_another_codec_can_be_refused(mono: Path, packages: Path, text_encoder: Path) -> None:
    other = packages / "musicgen-melody"
    with pytest.warns(UserWarning, match="trained on another codec"):
        codecbay.load(mono, other, text_encoder=text_encoder, device="cpu")
    with pytest.raises(IncompatibleError, match="error: provenance"):
        codecbay.load(mono, other, text_encoder=text_encoder, device="cpu", strict=True)
    assert not codecbay.check(mono, other, strict=True).ok
    assert codecbay.check(mono, strict=True).ok
