"""Packages from elsewhere: checked before they are fetched, resolved before they are built, loaded as from the disk."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import codecbay
import tiny
from codecbay.errors import CodecbayError, IncompatibleError, PackageError, SourceError, UnresolvedReferenceError
from codecbay.factory import download
from codecbay.package import read_package_file
from codecbay.package.writing import Contents, write_twin
from codecbay.registry import get_registry
from network import faults
from network.conftest import Command, Environment
from network.https import HttpsServer
from network.hub import Hub, Repository
from package.forge import MONO, package, saved, tensors

TEXT_ENCODER = MONO.parents[1] / "tiny-t5"
LM, CODEC = "state_dict.bin", "compression_state_dict.bin"
ID = "ada/musicgen"


def files(directory: Path, start: str = "") -> dict[str, bytes]:
    return {f"{start}{path.name}": path.read_bytes() for path in directory.iterdir() if path.is_file()}


def packed() -> dict[str, bytes]:
    """A package, with its text encoder beside it."""
    return {name: (MONO / name).read_bytes() for name in (LM, CODEC)} | files(TEXT_ENCODER, "tiny-t5/")


@pytest.fixture
def musicgen(hub: Hub) -> Repository:
    return hub.add(ID, packed())


@pytest.fixture
def wide(hub: Hub) -> str:
    """A package of some megabytes, which needs another codec than its own."""
    content = package("lm", best_state=tensors("lm", extra=torch.zeros(2_000_000)))
    hub.add("ada/wide", {**packed(), LM: saved(content)})
    return "hf://ada/wide"


def same(model: Any) -> bool:
    """Whether a model is the one that the fixture is."""
    local = codecbay.load(MONO, text_encoder=TEXT_ENCODER, device="cpu")
    found, expected = model.lm.state_dict(), local.lm.state_dict()
    codec = model.compression_model.fingerprint() == local.compression_model.fingerprint()
    return codec and all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("source", [f"hf://{ID}", f"hf://{ID}/", f"hf://{ID}@main", ID])
def test_a_package_on_the_hub_loads(source: str, musicgen: Repository) -> None:
    assert same(codecbay.load(source, device="cpu"))


def test_a_folder_of_a_repository_is_a_package(hub: Hub) -> None:
    hub.add("ada/many", {f"deep/er/{name}": content for name, content in packed().items()} | {"README.md": b"text"})
    assert same(codecbay.load("hf://ada/many/deep/er", device="cpu"))
    assert same(codecbay.load("hf://ada/many@main/deep/er", device="cpu"))


def test_a_revision_is_loaded(hub: Hub, musicgen: Repository) -> None:
    musicgen.tag("v1")
    musicgen.commit({LM: b"broken"})
    assert same(codecbay.load(ID, device="cpu", revision="v1"))
    assert same(codecbay.load(f"hf://{ID}@v1", device="cpu"))
    with pytest.raises(PackageError):
        codecbay.load(ID, device="cpu")


def test_what_is_guessed_to_be_on_the_hub_is_said(musicgen: Repository, caplog: pytest.LogCaptureFixture) -> None:
    codecbay.check(f"hf://{ID}")
    assert not caplog.messages
    codecbay.check(ID)
    assert caplog.messages == [f"'{ID}' is no file here and not in the registry: looking for hf://{ID} on the Hub."]


@pytest.mark.parametrize("name", ["musicgen", f"{ID}.bin", "../musicgen", "a/b/c", "facebook/.."])
def test_what_may_be_a_mistyped_path_is_not_looked_for(name: str, hub: Hub) -> None:
    with pytest.raises(SourceError):
        codecbay.check(name)
    assert not hub.requests


def test_a_path_below_a_directory_that_is_there_is_not_looked_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(SourceError, match="write hf://models/musicgen"):
        codecbay.check("models/musicgen")
    assert not hub.requests


# ------------------------------------------------------------------------------------- the check before the download


def test_a_check_moves_headers_alone(hub: Hub, wide: str) -> None:
    report = codecbay.check(wide, MONO)
    assert report.ok
    assert hub.sent() < 1_000_000
    assert not hub.sent(f"*{CODEC}") or hub.sent(f"*{CODEC}") < 400_000


def test_a_pair_that_does_not_fit_is_refused_before_it_is_fetched(
    hub: Hub, musicgen: Repository, tmp_path: Path
) -> None:
    codec = tiny.dac_file(tmp_path) if hasattr(tiny, "dac_file") else MONO.parents[1] / "options" / "shared-codec"
    hub.add("ada/codec", files(codec) if codec.is_dir() else {CODEC: codec.read_bytes()})
    with pytest.raises(IncompatibleError):
        codecbay.load(ID, "hf://ada/codec", device="cpu")
    assert not list((tmp_path / "huggingface").rglob("*.bin"))


def test_a_server_without_ranges_is_read_whole_and_that_is_said(
    hub: Hub, musicgen: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    hub.misbehave("*/storage/*", faults.WITHOUT_RANGES)
    assert codecbay.check(f"hf://{ID}").ok
    assert any("sends whole files only" in message for message in caplog.messages)
    assert same(codecbay.load(f"hf://{ID}", device="cpu"))


def test_beside_files_of_transformers_audiocrafts_are_read(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.add(ID, {**packed(), "config.json": b"{}", "model.safetensors": b"huge"})
    assert codecbay.check(f"hf://{ID}").ok
    assert caplog.messages == [f"hf://{ID} holds a model in two layouts; AudioCraft's is read ({LM})."]


# ------------------------------------------------------------------------------------------ everything that is needed


def test_a_reference_is_followed_to_the_hub(hub: Hub, tmp_path: Path, own: Callable[[str], None]) -> None:
    codec = tiny.snac_directory(tmp_path / "snac")
    spec = codecbay.factory.resolve_codec(codec).spec
    hub.add("ada/snac", files(codec) | {"flax_model.msgpack": b"not needed"})
    lm = tiny.language_model(
        tmp_path / "lm", card=spec.cardinalities[0], n_q=spec.num_codebooks, sample_rate=spec.sample_rate
    )
    (lm / CODEC).write_bytes(saved({"pretrained": "ada/snac", "exported": True, "version": "1"}))
    with pytest.raises(UnresolvedReferenceError, match="neither the registry nor a plugin knows"):
        codecbay.load(lm, text_encoder=TEXT_ENCODER, device="cpu")
    own('[codecs.mine]\nsource = "ada/snac"\nlicence = "MIT"\n')
    model = codecbay.load(lm, text_encoder=TEXT_ENCODER, device="cpu")
    assert model.compression_model.fingerprint() == codecbay.load_codec(codec, device="cpu").fingerprint()
    assert not hub.sent("*flax_model*")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes a registry of one's own."""

    def write(text: str) -> None:
        (tmp_path / "registry.toml").write_text(f"schema_version = 1\n{text}")
        monkeypatch.setenv("CODECBAY_REGISTRY", str(tmp_path / "registry.toml"))
        get_registry.cache_clear()

    yield write
    get_registry.cache_clear()


def test_a_registry_names_what_is_on_the_hub(hub: Hub, musicgen: Repository, own: Callable[[str], None]) -> None:
    musicgen.tag("v1")
    musicgen.commit({LM: b"broken"})
    own(f'[models.mine]\nsource = "{ID}"\nrevision = "v1"\nlicence = "MIT"\n')
    assert same(codecbay.load("mine", device="cpu"))


def test_all_that_is_missing_is_said_at_once(hub: Hub, tmp_path: Path, own: Callable[[str], None]) -> None:
    content = {name: data for name, data in packed().items() if not name.startswith("tiny-t5")}
    hub.add(ID, {**content, CODEC: saved({"pretrained": "ada/codec", "exported": True, "version": "1"})})
    own(
        '[codecs.mine]\nsource = "ada/codec"\nlicence = "MIT"\n[codecs.mine.spec]\n'
        + "sample_rate = 32000\nchannels = 1\ncardinality = 64\nnum_codebooks = 4\nframe_size = 640\n"
    )
    with pytest.raises(UnresolvedReferenceError) as error:
        codecbay.load(f"hf://{ID}", device="cpu")
    lines = str(error.value).splitlines()
    assert lines[0] == "2 things are missing:"
    assert "hf://ada/codec: there is no such model on the Hub" in lines[1]
    assert "text encoder 'tiny-t5'" in lines[2]
    assert not hub.sent("*/storage/*") > 500_000


def test_after_a_download_the_network_may_be_cut(
    hub: Hub, musicgen: Repository, environment: Environment, command: Command
) -> None:
    done = command("download", f"hf://{ID}", "--json")
    assert done.code == 0, done.err
    assert {Path(path).name for path in json.loads(done.out)["files"]} >= {LM, CODEC}
    environment(HF_HUB_OFFLINE="1")
    hub.requests.clear()
    assert same(codecbay.load(f"hf://{ID}", device="cpu"))
    assert not hub.requests


# ------------------------------------------------------------------------------------------------------ other layouts


def all_in_one() -> bytes:
    parts = {name: torch.load(MONO / name, weights_only=True) for name in (LM, CODEC)}
    return saved(parts)


def test_one_file_may_hold_both(hub: Hub, tmp_path: Path) -> None:
    hub.add(ID, {"all_in_one.pt": all_in_one()} | files(TEXT_ENCODER, "tiny-t5/"))
    assert same(codecbay.load(f"hf://{ID}", device="cpu"))
    (tmp_path / "mine.pt").write_bytes(all_in_one())
    assert same(codecbay.load(tmp_path / "mine.pt", text_encoder=TEXT_ENCODER, device="cpu"))
    assert codecbay.load_codec(tmp_path / "mine.pt", device="cpu").cardinality == 64


def twins(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    for name in (LM, CODEC):
        twin = (directory / name).with_suffix(".safetensors")
        write_twin(Contents.of(read_package_file(MONO / name), spec={}, fingerprint=None), twin)
    return directory


def test_twins_load(hub: Hub, tmp_path: Path) -> None:
    directory = twins(tmp_path / "twins")
    assert same(codecbay.load(directory, text_encoder=TEXT_ENCODER, device="cpu"))
    hub.add(ID, files(directory) | files(TEXT_ENCODER, "tiny-t5/"))
    assert same(codecbay.load(f"hf://{ID}", device="cpu"))


@pytest.mark.parametrize("name", [LM, CODEC])
def test_a_twin_beside_another_than_it_was_made_of_is_an_error(name: str, tmp_path: Path) -> None:
    directory = twins(tmp_path / "twins")
    for file in (LM, CODEC):
        (directory / file).write_bytes((MONO / file).read_bytes())
    assert same(codecbay.load(directory, text_encoder=TEXT_ENCODER, device="cpu"))
    role = "lm" if name == LM else "codec"
    changed = {key: value + 1 if value.is_floating_point() else value for key, value in tensors(role).items()}
    (directory / name).write_bytes(saved(package(role, best_state=changed)))
    twin = Path(name).with_suffix(".safetensors")
    with pytest.raises(PackageError, match=rf"{twin} was converted from a {name} that is not the one beside it"):
        codecbay.load(directory, text_encoder=TEXT_ENCODER, device="cpu")


# -------------------------------------------------------------------------------------------------------------- https


@pytest.fixture
def address(https_server: HttpsServer, tmp_path: Path, environment: Environment) -> str:
    environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    for name, content in packed().items():
        path = tmp_path / "served" / "music gen" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return f"{https_server.url}/music%20gen"


def test_a_package_at_an_address_loads(address: str, https_server: HttpsServer) -> None:
    assert codecbay.check(f"{address}/{LM}").ok
    for source in (f"{address}/{LM}", f"{address}/"):
        assert same(codecbay.load(source, text_encoder=TEXT_ENCODER, device="cpu"))
    assert same_codec(codecbay.load_codec(f"{address}/{CODEC}", device="cpu"))


def same_codec(codec: codecbay.Codec) -> bool:
    return codec.fingerprint() == codecbay.load_codec(MONO, device="cpu").fingerprint()


def test_an_address_that_leads_nowhere(address: str) -> None:
    for source in (f"{address}/absent.bin", f"{address}/absent/"):
        with pytest.raises(SourceError, match="absent"):
            codecbay.load(source, device="cpu")


@pytest.mark.parametrize(
    "fault", [faults.status(500), faults.truncate(1000), faults.cut(1000)], ids=["500", "short", "cut"]
)
def test_what_goes_wrong_on_the_way_is_a_typed_error(
    fault: Any, address: str, https_server: HttpsServer, command: Command, hub: Hub, musicgen: Repository
) -> None:
    https_server.misbehave("*", fault)
    hub.misbehave("*/storage/*", fault)
    for source in (f"{address}/{LM}", f"hf://{ID}"):
        with pytest.raises(CodecbayError):
            codecbay.load(source, text_encoder=TEXT_ENCODER, device="cpu")
    assert command("check", f"hf://{ID}").code == 1


@pytest.mark.parametrize("right", [True, False])
def test_a_registry_tells_the_hash_of_a_file(right: bool, address: str, own: Callable[[str], None]) -> None:
    digest = hashlib.sha256((MONO / CODEC).read_bytes()).hexdigest() if right else "0" * 64
    own(f'[codecs.mine]\nsource = "{address}/{CODEC}"\nsha256 = "{digest}"\nlicence = "MIT"\n')
    if right:
        assert same_codec(codecbay.load_codec("mine", device="cpu"))
    else:
        with pytest.raises(SourceError, match="its SHA-256 is"):
            codecbay.load_codec("mine", device="cpu")


@pytest.mark.parametrize("state", ["absent", "present", "out of reach"])
def test_a_download_includes_what_takes_melodies_out_of_a_mix(
    state: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def get_model(name: str) -> object:
        asked.append(name)
        if state == "out of reach":
            raise OSError("no network")
        return object()

    pretrained = types.ModuleType("demucs.pretrained")
    pretrained.get_model = get_model  # type: ignore[attr-defined]
    package = types.ModuleType("demucs")
    package.pretrained = pretrained  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "demucs", None if state == "absent" else package)
    melody = MONO.parent / "musicgen-melody"
    if state == "out of reach":
        with pytest.raises(SourceError, match="demucs cannot fetch"):
            download(melody, text_encoder=TEXT_ENCODER)
    else:
        download(melody, text_encoder=TEXT_ENCODER)
    assert asked == ([] if state == "absent" else ["htdemucs"])
    assert bool(caplog.messages) is (state == "absent")
