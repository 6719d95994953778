"""Whether a codec is the one that a model was trained on: told where it is known, and not claimed where it is not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import yaml

import codecbay
import tiny
from codecbay.errors import IncompatibleError
from codecbay.export import export_lm, export_pretrained_codec
from codecbay.registry import get_registry


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


@pytest.fixture
def registered(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry of codecs on this disk: two in AudioCraft's layout, one in that of transformers."""
    sources = {
        "mine": packages / "musicgen-mono",
        "fast": packages / "encodec-24khz-causal",
        "theirs": tiny.transformers_directory(
            tmp_path / "theirs", tiny.transformers_model(*tiny.TRANSFORMERS["dac_44khz"])
        ),
    }
    text = "".join(f'[codecs.{name}]\nsource = "{path}"\nlicence = "MIT"\n' for name, path in sources.items())
    (tmp_path / "registry.toml").write_text(f"schema_version = 1\n{text}")
    monkeypatch.setenv("CODECBAY_REGISTRY", str(tmp_path / "registry.toml"))
    get_registry.cache_clear()
    yield
    get_registry.cache_clear()


def trained_on(mono: Path, directory: Path, name: str) -> Path:
    """A package without a codec, whose configuration names the one it was trained on."""
    saved = torch.load(mono / "state_dict.bin", weights_only=True)
    settings = yaml.safe_load(saved["xp.cfg"]) | {"compression_model_checkpoint": f"//pretrained/{name}"}
    directory.mkdir()
    torch.save(saved | {"xp.cfg": yaml.safe_dump(settings)}, directory / "state_dict.bin")
    return directory


@pytest.mark.usefixtures("registered")
def test_the_same_name_on_this_disk_is_the_same_codec_and_another_may_be_a_copy(mono: Path, tmp_path: Path) -> None:
    package = trained_on(mono, tmp_path / "package", "mine")
    assert severity(package, "mine") is None
    assert severity(package, "theirs") == "note"
    assert severity(package, "dac_44khz") == "note"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("name", "rate"), [("fast", 75), ("dac_44khz", Fraction(44_100, 512)), ("unheard-of", None)])
def test_without_its_codec_the_frame_rate_is_that_of_the_registry(
    mono: Path, tmp_path: Path, name: str, rate: Fraction | None
) -> None:
    report = codecbay.check(trained_on(mono, tmp_path / "package", name), mono)
    assert report.lm.frame_rate == (None if rate is None else Fraction(rate))
    assert ("frame_rate" in {finding.field for finding in report.errors}) is (rate is not None)


@pytest.mark.usefixtures("registered")
def test_a_reference_by_a_registered_name_leads_to_the_codec(mono: Path, tmp_path: Path) -> None:
    package = trained_on(mono, tmp_path / "package", "unheard-of")
    export_pretrained_codec("theirs", f"{package}/")
    assert torch.load(package / "compression_state_dict.bin", weights_only=True)["pretrained"] == "theirs"
    report = codecbay.check(package)
    assert (report.codec_name, report.lm.frame_rate) == ("theirs", Fraction(44_100, 512))
    assert "provenance" not in {finding.field for finding in report.findings}
    assert codecbay.load_codec(package, device="cpu").name == "theirs"
    export_pretrained_codec("mine", tmp_path / "copy.bin")  # which can be a part of a package
    assert "best_state" in torch.load(tmp_path / "copy.bin", weights_only=True)
