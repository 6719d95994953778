"""Packages between AudioCraft's layout and the safetensors twin: nothing is lost either way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import codecbay
import tiny
from codecbay.convert import convert_package
from codecbay.errors import CodecbayError, OutputError, PackageError
from codecbay.package import read_package_file
from command_line import Run
from models import FIXTURES
from package.forge import MONO, saved

FILES = {"state_dict.bin", "compression_state_dict.bin"}
PACKAGES = sorted(path.parent for path in FIXTURES.rglob("state_dict.bin"))[::5]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_there_and_back_gives_the_same(package: Path, tmp_path: Path) -> None:
    twin = convert_package(package, tmp_path / "twin", format="safetensors")
    names = {name for name in FILES if (package / name).is_file()}
    assert {path.name for path in twin.iterdir()} == {name.replace(".bin", ".safetensors") for name in names}
    back = convert_package(twin, tmp_path / "back", format="audiocraft")
    for name in names:
        own, again = torch.load(package / name, weights_only=True), torch.load(back / name, weights_only=True)
        assert set(again) - set(own) <= {"codec_fingerprint"}
        assert {key: again[key] for key in own if key != "best_state"} == {
            key: value for key, value in own.items() if key != "best_state"
        }
        assert list(again.get("best_state", ())) == list(own.get("best_state", ()))
        for key, tensor in own.get("best_state", {}).items():
            assert torch.equal(again["best_state"][key], tensor)
            assert again["best_state"][key].dtype == tensor.dtype


def test_both_remember_the_codec(tmp_path: Path) -> None:
    fingerprint = codecbay.load_codec(MONO, device="cpu").fingerprint()
    for format, ending in (("safetensors", ".safetensors"), ("audiocraft", ".bin")):
        out = convert_package(MONO, tmp_path / format, format=format)
        for name in FILES:
            header = read_package_file((out / name).with_suffix(ending)).header
            assert header.codec_fingerprint == fingerprint


def test_one_file_that_holds_both_is_taken_apart(tmp_path: Path) -> None:
    both = tmp_path / "all_in_one.pt"
    both.write_bytes(saved({name: torch.load(MONO / name, weights_only=True) for name in FILES}))
    out = convert_package(both, tmp_path / "out", format="audiocraft")
    for name in FILES:
        own, again = torch.load(MONO / name, weights_only=True), torch.load(out / name, weights_only=True)
        assert all(torch.equal(again["best_state"][key], tensor) for key, tensor in own["best_state"].items())


def test_a_reference_stays_one(tmp_path: Path) -> None:
    (tmp_path / "compression_state_dict.bin").write_bytes(
        saved({"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1"})
    )
    (tmp_path / "state_dict.bin").write_bytes((MONO / "state_dict.bin").read_bytes())
    twin = convert_package(tmp_path, tmp_path / "twin", format="safetensors")
    header = read_package_file(twin / "compression_state_dict.safetensors").header
    assert header.reference == "facebook/encodec_32khz"


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("text")
    with pytest.raises(OutputError, match="is there already"):
        convert_package(MONO, tmp_path / "out", format="safetensors")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    convert_package(MONO, tmp_path / "out", format="safetensors", overwrite=True)
    assert "precious" not in {path.name for path in (tmp_path / "out").iterdir()}


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecbayError, match="Did you mean 'safetensors'"):
        convert_package(MONO, tmp_path / "out", format="safetensor")


def test_a_codec_in_another_layout_is_refused_by_its_back_end(tmp_path: Path) -> None:
    codec = tiny.transformers_directory(tmp_path / "dac", tiny.transformers_model(*tiny.TRANSFORMERS["dac_44khz"]))
    with pytest.raises(PackageError, match=r"only AudioCraft's layout is.* 'transformers'; share its directory"):
        convert_package(codec, tmp_path / "out", format="safetensors")


def test_a_broken_package_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = (MONO / "state_dict.bin").read_bytes()
    (tmp_path / "in" / "state_dict.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(PackageError):
        convert_package(tmp_path / "in", tmp_path / "out", format="safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Run(capsys)
    checkpoints = {kind: MONO / f"{kind}_training_checkpoint.th" for kind in ("codec", "lm")}
    for kind, checkpoint in checkpoints.items():
        done = run("export", kind, checkpoint, f"{tmp_path / 'own'}/", "--json")
        assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "own").iterdir()} == FILES
    refused = run("export", "lm", checkpoints["lm"], tmp_path / "own")
    assert (refused.code, "--force" in refused.err) == (1, True)
    assert run("export", "lm", checkpoints["lm"], tmp_path / "own", "--force").code == 0
    assert run("export", "codec", "dac_44kh", tmp_path / "x.bin").code == 1
    assert run("export", "codec", "dac_44khz", tmp_path / "x.bin").code == 0
    done = run("convert", tmp_path / "own", tmp_path / "twin", "--json")
    assert done.code == 0, done.err
    assert {Path(name).suffix for name in done.json["files"]} == {".safetensors"}
    assert run("check", tmp_path / "twin").code == 0
    shown = run("info", tmp_path / "twin", "--json").json["files"]
    assert [file["container"] for file in shown] == ["safetensors"] * 2
    assert run("convert", tmp_path / "twin", tmp_path / "back", "--format", "audiocraft").code == 0
