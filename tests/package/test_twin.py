"""The safetensors twin: the same package, without a pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from codecbay.errors import ConfigError, PackageError, UnsafePickleError, WeightsError
from codecbay.package import Header, PackageFile, read_package_file
from codecbay.package.twin import digest
from codecbay.package.writing import Contents, write_twin
from package.forge import golden, harmless, legacy, package, saved, tensors

Facts = dict[str, str]
FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").rglob("*state_dict.bin"))
FINGERPRINT = "ab" * 32


def twin(source: Path, directory: Path) -> Path:
    path = directory / "twin.safetensors"
    write_twin(Contents.of(read_package_file(source), spec={"sample_rate": 32_000}, fingerprint=FINGERPRINT), path)
    return path


def written(data: bytes, directory: Path) -> Path:
    path = directory / "state_dict.bin"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("path", FIXTURES[::6], ids=lambda path: "/".join(path.parts[-2:]))
def test_a_twin_says_what_the_package_says(path: Path, tmp_path: Path) -> None:
    own, other = read_package_file(path), read_package_file(twin(path, tmp_path))
    assert other.header.container == ("none" if own.header.role == "reference" else "safetensors")
    for name in ("layout", "role", "reference"):
        assert getattr(own.header, name) == getattr(other.header, name)
    if own.header.role == "reference":
        return
    assert own.header.version == other.header.version
    assert own.header.config.to_yaml() == other.header.config.to_yaml()
    expected, found = own.tensors(), other.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_a_twin_is_a_safetensors_file_like_any_other(tmp_path: Path) -> None:
    path = twin(written(golden("lm"), tmp_path), tmp_path)
    found, expected = load_file(path), tensors("lm")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert json.loads(facts["spec"]) == {"sample_rate": 32_000}
    assert facts["codec_fingerprint"] == FINGERPRINT
    assert facts["xp.cfg"] == package("lm")["xp.cfg"]


def test_tensors_may_share_memory_and_have_any_layout(tmp_path: Path) -> None:
    weight = torch.randn(6, 5)
    odd = {"a": weight, "b": weight, "c": weight.t(), "d": weight[3:], "e": weight[:, ::2], "f": torch.tensor(1.0)}
    source = written(saved(package("lm", best_state=odd)), tmp_path)
    found = read_package_file(twin(source, tmp_path)).tensors()
    assert all(torch.equal(found[name], tensor) for name, tensor in odd.items())


def test_a_twin_knows_what_it_was_made_from(tmp_path: Path) -> None:
    source = written(golden("lm"), tmp_path)
    assert read_package_file(twin(source, tmp_path)).header.source == ("state_dict.bin", digest(_header(source)))


def _header(path: Path) -> Header:
    return read_package_file(path).header


@pytest.mark.parametrize(
    "change",
    [
        lambda: package("lm", best_state=tensors("lm", emb__0__weight=tensors("lm")["emb.0.weight"] + 1)),
        lambda: package("lm", best_state=tensors("lm", emb__0__weight=None)),
        lambda: package("lm", xp_cfg=package("lm")["xp.cfg"] + "\nnew: 1\n"),
    ],
    ids=["weights", "names", "configuration"],
)
@pytest.mark.parametrize("write", [saved, legacy])
def test_a_digest_tells_packages_apart(
    change: Callable[[], dict[str, Any]], write: Callable[[Any], bytes], tmp_path: Path
) -> None:
    first = digest(_header(written(write(package("lm")), tmp_path)))
    assert digest(_header(written(write(package("lm")), tmp_path))) == first
    assert digest(_header(written(write(change()), tmp_path))) != first


def _damaged(data: bytes) -> bytes:
    return data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]


def test_a_changed_tensor_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = twin(written(golden("lm"), tmp_path), tmp_path)
    path.write_bytes(_damaged(path.read_bytes()))
    with harmless(), pytest.raises(PackageError, match="checksum"):
        read_package_file(path).tensors()


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    bad = {"a": torch.full((3,), float("nan"))}
    with pytest.raises(WeightsError, match="'a' holds NaN"):
        twin(written(saved(package("lm", best_state=bad)), tmp_path), tmp_path)


WRONG: dict[str, tuple[Callable[[Facts], object], type[PackageError], str]] = {
    "bare weights": (dict.clear, PackageError, "bare weights, without the configuration"),
    "another format": (lambda f: f.update(format="pt"), PackageError, "'format' in the metadata is 'pt'"),
    "no configuration": (lambda f: f.pop("xp.cfg"), PackageError, "neither 'xp.cfg' nor 'pretrained'"),
    "broken configuration": (lambda f: f.update({"xp.cfg": "a: ["}), ConfigError, "not valid YAML"),
    "no checksums": (lambda f: f.pop("checksums"), PackageError, "not those of a package"),
    "checksum missing": (lambda f: f.update(checksums="{}"), PackageError, "not those of a package"),
    "checksums are no JSON": (lambda f: f.update(checksums="["), PackageError, "not those of a package"),
    "checksums nest": (lambda f: f.update(checksums="[" * 10**5), PackageError, "not those of a package"),
    "source is no digest": (lambda f: f.update(source='{"file": "a", "digest": "b"}'), PackageError, "names no file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_twin_is_refused(name: str, tmp_path: Path) -> None:
    change, error, message = WRONG[name]
    path = twin(written(golden("lm"), tmp_path), tmp_path)
    with safe_open(path, "pt") as file:
        facts = dict(file.metadata())
    change(facts)
    save_file(load_file(path), path, facts)
    with harmless(), pytest.raises(error, match=message):
        read_package_file(path)


def test_a_pickle_by_the_name_of_a_twin_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state_dict.safetensors"
    path.write_bytes(golden("lm"))
    with harmless(), pytest.raises(PackageError, match="no safetensors file") as error:
        read_package_file(path)
    assert not isinstance(error.value, UnsafePickleError)


def test_a_reference_has_a_twin(tmp_path: Path) -> None:
    source = written(saved({"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1"}), tmp_path)
    file = read_package_file(twin(source, tmp_path))
    assert isinstance(file, PackageFile)
    assert file.header.reference == "facebook/encodec_32khz"
