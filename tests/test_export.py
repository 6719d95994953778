"""Training checkpoints become export packages: the very ones that AudioCraft makes of them."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import codecbay
from codecbay.errors import CodecbayError, ConfigError, OutputError, PackageError, SourceError, WeightsError
from codecbay.export import export_codec, export_lm, export_pretrained_codec
from codecbay.package.layouts import read_header
from package.forge import harmless

MONO = Path(__file__).parent / "fixtures" / "audiocraft" / "musicgen-mono"
LM, CODEC = MONO / "lm_training_checkpoint.th", MONO / "codec_training_checkpoint.th"
FILES = {"lm": "state_dict.bin", "codec": "compression_state_dict.bin"}
EXPORTS: dict[str, tuple[Callable[..., Path], Path]] = {"lm": (export_lm, LM), "codec": (export_codec, CODEC)}

Change = Callable[[dict[str, Any]], object]


@cache
def _checkpoint(role: str) -> bytes:
    return EXPORTS[role][1].read_bytes()


def changed(role: str, path: Path, change: Change) -> Path:
    """A training checkpoint with something changed, at ``path``."""
    content = torch.load(EXPORTS[role][1], weights_only=False)  # our own file
    change(content)
    torch.save(content, path)
    return path


def contents(path: Path) -> dict[str, Any]:
    """What AudioCraft's loaders read: the file has to pass torch's safe reader."""
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


@pytest.mark.parametrize("role", EXPORTS)
def test_an_export_is_what_audiocraft_makes_of_the_same_checkpoint(role: str, tmp_path: Path) -> None:
    export, checkpoint = EXPORTS[role]
    path = export(checkpoint, tmp_path / "new" / FILES[role])
    found, expected = contents(path), contents(MONO / FILES[role])
    assert list(found)[: len(expected)] == list(expected)
    assert set(found) - set(expected) <= {"codec_fingerprint"}
    assert {key: type(found[key]) for key in expected} == {key: type(value) for key, value in expected.items()}
    assert (found["xp.cfg"], found["exported"]) == (expected["xp.cfg"], True)
    assert list(found["best_state"]) == list(expected["best_state"])
    for name, tensor in expected["best_state"].items():
        assert torch.equal(found["best_state"][name], tensor)
        assert found["best_state"][name].dtype == tensor.dtype
    assert path.stat().st_size < 1.05 * (MONO / FILES[role]).stat().st_size


def test_exports_make_up_a_package(tmp_path: Path, text_encoder: Path) -> None:
    assert export_codec(CODEC, tmp_path) == tmp_path / FILES["codec"]
    assert export_lm(LM, tmp_path) == tmp_path / FILES["lm"]
    model = codecbay.load(tmp_path, text_encoder=text_encoder, device="cpu")
    golden = codecbay.load(MONO, text_encoder=text_encoder, device="cpu")
    for own, other in ((model.lm, golden.lm), (model.compression_model, golden.compression_model)):
        found, expected = own.state_dict(), other.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_packages_remember_the_codec(tmp_path: Path) -> None:
    export_codec(CODEC, tmp_path)
    export_lm(LM, tmp_path)
    export_lm(LM, tmp_path / "alone.bin", codec=MONO)
    fingerprint = codecbay.load_codec(MONO, device="cpu").fingerprint()
    for name in (*FILES.values(), "alone.bin"):
        assert read_header(tmp_path / name).codec_fingerprint == fingerprint


def test_a_language_model_without_its_codec_remembers_none(tmp_path: Path) -> None:
    assert read_header(export_lm(LM, tmp_path)).codec_fingerprint is None


def test_the_best_state_of_distributed_training_comes_first(tmp_path: Path) -> None:
    def distribute(content: dict[str, Any]) -> None:
        content["fsdp_best_state"] = {"model": {k: v + 1 for k, v in content["best_state"]["model"].items()}}
        del content["best_state"]

    path = export_lm(changed("lm", tmp_path / "checkpoint.th", distribute), tmp_path / "out.bin")
    found, expected = (contents(file)["best_state"] for file in (path, MONO / FILES["lm"]))
    assert all(torch.equal(found[name], tensor + 1) for name, tensor in expected.items())


def test_a_configuration_keeps_what_it_says(tmp_path: Path) -> None:
    odd = {
        "a": "1e-4",
        "b": 1e-5,
        "c": "${sample_rate}",
        "d": "???",
        "e": None,
        "f": [],
        "g": "${oc.env:USER}",
        "h": "on",
    }
    path = changed("lm", tmp_path / "checkpoint.th", lambda c: c["xp.cfg"].update({"odd": odd, "path": Path("/a/b")}))
    config = OmegaConf.create(contents(export_lm(path, tmp_path / "out.bin"))["xp.cfg"])
    assert OmegaConf.to_container(config.odd, resolve=False) == odd
    assert config.path == "/a/b"


# ----------------------------------------------------------------------------------------------- what is refused


class Runs:
    """An object that runs something when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    mark, checkpoint = tmp_path / "mark", tmp_path / "checkpoint.th"
    changed(
        "lm", checkpoint, lambda c: c.update({"optimizer": Runs(mark), "history": {1: [Runs(mark)], (1, 2): {3, 4}}})
    )
    export_lm(checkpoint, tmp_path / "out.bin")
    changed("lm", checkpoint, lambda c: c.update({"xp.cfg": Runs(mark)}))
    with harmless(), pytest.raises(ConfigError, match=r"holds an object of the type (posix|nt)\.mkdir"):
        export_lm(checkpoint, tmp_path / "other.bin")
    assert not mark.exists()
    assert not (tmp_path / "other.bin").exists()


def _nested(content: dict[str, Any]) -> None:
    node: dict[str, Any] = {}
    for _ in range(100):
        node = {"a": node}
    content["xp.cfg"] = node


def _nan(content: dict[str, Any]) -> None:
    content["best_state"]["model"]["emb.0.weight"][3, 4] = float("nan")


def _without(*keys: str) -> Change:
    return lambda content: [content.pop(key, None) for key in keys]


WRONG: dict[str, tuple[Change, type[Exception], str]] = {
    "no configuration": (_without("xp.cfg"), PackageError, "no training checkpoint: the key 'xp.cfg' is missing"),
    "no best state": (_without("best_state", "fsdp_best_state"), PackageError, "no best model.*found nothing"),
    "best state is empty": (lambda c: c.update(best_state={}), PackageError, "no best model.*validation"),
    "best state of others": (
        lambda c: c.update(best_state={"ema": {}}),
        PackageError,
        "should hold 'model'; found 'ema'",
    ),
    "best state is text": (lambda c: c.update(best_state="best"), PackageError, "no best model"),
    "an export package": (lambda c: c.update({"xp.cfg": "a: 1"}), PackageError, "is an export package already"),
    "configuration is a list": (lambda c: c.update({"xp.cfg": OmegaConf.create([1])}), ConfigError, "found list"),
    "configuration is too deep": (_nested, ConfigError, "nests deeper than 50 levels"),
    "configuration of something else": (
        lambda c: c.update({"xp.cfg": {"a": 1}}),
        ConfigError,
        "neither a language model",
    ),
    "configuration contradicts tensors": (lambda c: c["xp.cfg"].transformer_lm.update(dim=64), ConfigError, "dim"),
    "not finite": (_nan, WeightsError, "'emb.0.weight' holds NaN or infinity"),
    "no tensor": (lambda c: c["best_state"]["model"].update(a=1), PackageError, "'a' is a int, not a tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    change, error, message = WRONG[name]
    checkpoint = changed("lm", tmp_path / "checkpoint.th", change)
    with harmless(), pytest.raises(error, match=message):
        export_lm(checkpoint, tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


def test_a_codec_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    def drop(content: dict[str, Any]) -> None:
        state = content["best_state"]["model"]
        state.pop(next(name for name in state if name.startswith("decoder")))

    with pytest.raises(WeightsError, match=r"missing: decoder"):
        export_codec(changed("codec", tmp_path / "checkpoint.th", drop), tmp_path / "out.bin")


@pytest.mark.parametrize(
    ("export", "checkpoint", "hint"), [(export_lm, CODEC, "export_codec"), (export_codec, LM, "export_lm")]
)
def test_a_checkpoint_of_the_other_kind_is_named(
    export: Callable[..., Path], checkpoint: Path, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=f"Use {hint}"):
        export(checkpoint, tmp_path / "out.bin")


@pytest.mark.parametrize(
    "data",
    [b"", b"text", _checkpoint("lm")[:-1000], _checkpoint("lm")[:5000], pickle.dumps({"best_state": {}})],
    ids=["empty", "text", "cut", "cut early", "plain pickle"],
)
def test_what_is_no_checkpoint_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.th"
    path.write_bytes(data)
    with harmless(), pytest.raises(PackageError):
        export_lm(path, tmp_path / "out.bin")
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.th"]


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        export_lm(tmp_path / "checkpoint.th", tmp_path / "out.bin")


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_text("precious")
    with pytest.raises(OutputError, match="is there already"):
        export_lm(LM, path)
    assert path.read_text() == "precious"
    export_lm(LM, path, overwrite=True)
    assert "xp.cfg" in contents(path)


# ------------------------------------------------------------------------------------------------ published codecs


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("facebook/encodec_32khz", "facebook/encodec_32khz"),
        ("encodec-32khz", "facebook/encodec_32khz"),
        ("dac_44khz", "dac_44khz"),
        ("dac-44khz-8kbps", "dac_44khz"),
    ],
)
def test_a_published_codec_becomes_a_reference(name: str, reference: str, tmp_path: Path) -> None:
    found = contents(export_pretrained_codec(name, tmp_path))
    assert list(found) == ["pretrained", "exported", "version"]
    assert (found["pretrained"], found["exported"], type(found["version"])) == (reference, True, str)
    assert read_header(tmp_path / FILES["codec"]).reference == reference


@pytest.mark.parametrize("name", ["dac_44kh", "./dac_44khz", "codecs/mine.bin", "https://example.org/codec"])
def test_a_mistyped_name_is_no_reference(name: str, tmp_path: Path) -> None:
    with pytest.raises(CodecbayError):
        export_pretrained_codec(name, tmp_path / "out.bin")
    assert not list(tmp_path.iterdir())


def test_a_codec_of_ones_own_is_copied(tmp_path: Path) -> None:
    found, expected = contents(export_pretrained_codec(MONO, tmp_path)), contents(MONO / FILES["codec"])
    assert found.pop("codec_fingerprint") == codecbay.load_codec(MONO, device="cpu").fingerprint()
    assert isinstance(found["best_state"], OrderedDict)
    assert {k: v for k, v in found.items() if k != "best_state"} == {
        k: v for k, v in expected.items() if k != "best_state"
    }
    assert all(torch.equal(found["best_state"][name], tensor) for name, tensor in expected["best_state"].items())
