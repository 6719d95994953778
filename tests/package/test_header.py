"""Headers: what a file is, what it holds, and what is said of one that is no package."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codecbay.errors import ConfigError, PackageError
from codecbay.package import TensorInfo, read_package_file
from package.conftest import Read
from package.forge import FILES, MONO, config_text, mapping, package, saved, tensor, tensors, text, with_pickle

CONFIG = text("lm_model: transformer_lm")


@pytest.mark.parametrize("role", FILES)
def test_a_header_tells_role_tensors_and_version(role: str, read: Read) -> None:
    header = read(saved(package(role)))
    expected = package(role)["best_state"]
    assert (header.role, header.version, header.container, header.reference) == (role, "1.3.0", "zip", None)
    assert header.config["sample_rate"] == 32_000
    assert {name: (info.shape, info.dtype) for name, info in header.tensors.items()} == {
        name: (value.shape, "float32") for name, value in expected.items()
    }
    assert header.num_bytes == sum(value.nbytes for value in expected.values())


def test_a_tensor_knows_its_place(read: Read) -> None:
    state = {"a": torch.zeros(4, 6).half()[1:, ::2]}
    assert read(saved(package("lm", best_state=state))).tensors["a"] == TensorInfo((3, 3), "float16", "0", 6, (6, 2))


def test_a_shape_is_compared_and_the_key_that_asks_for_it_blamed(read: Read) -> None:
    header = read(saved(package("codec", best_state={"a": torch.zeros(4, 6)})))
    section = header.config.top()
    header.check_shape(section, "a", (4, 6), "width")
    for name, shape, message in (
        ("a", (5, 6), r"'width' asks for \[5, 6\], but the tensor 'a' is \[4, 6\]"),
        ("a", (4, 7), r"'height' asks for \[4, 7\]"),
        ("a", (4, 6, 1), r"'width' asks for \[4, 6, 1\]"),
        ("b", (4, 6), r"'width' asks for the tensor 'b' \[4, 6\], which is not in the package"),
    ):
        with pytest.raises(ConfigError, match=message):
            header.check_shape(section, name, shape, "width", "height")


def test_a_reference_has_a_name_and_nothing_else(read: Read) -> None:
    header = read(saved({"pretrained": "facebook/encodec_32khz", "exported": True}))
    assert (header.role, header.reference, len(header.tensors)) == ("reference", "facebook/encodec_32khz", 0)


@pytest.mark.parametrize("version", [None, 1, ["1.3.0"], "x" * 1000, "\x1b[31m", "\ud800"])
def test_a_version_that_is_none_is_left_out(version: Any, read: Read) -> None:
    assert read(saved(package("lm", version=version))).version is None


@pytest.mark.parametrize("role", FILES)
def test_a_file_in_the_place_of_another_is_refused(role: str) -> None:
    other = next(r for r in FILES if r != role)
    with pytest.raises(PackageError, match="is needed"):
        read_package_file(MONO / FILES[other], role)


ROOTS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "expected a dictionary"),
    "a list": ([1], "expected a dictionary"),
    "a tensor": (torch.ones(2), "expected a dictionary"),
    "numbers for keys": ({1: 2}, "expected a dictionary"),
    "empty": ({}, "found nothing"),
    "something else": ({"state_dict": {}}, "found 'state_dict'"),
    "bare weights": (tensors("lm"), "bare weights"),
    "training checkpoint": ({"best_state": {"model": tensors("lm")}, "xp.cfg": "a: 1"}, "training checkpoint"),
    "no configuration": ({"best_state": {}}, "'xp.cfg' is missing"),
    "no tensors": ({"xp.cfg": config_text("lm")}, "'best_state' is missing"),
    "key misspelt": ({"best_sate": {}, "xp.cfg": "a: 1"}, "'best_state' is missing; found 'best_sate'"),
    "configuration is bytes": (package("lm", xp_cfg=b"a: 1"), "should be YAML text"),
    "configuration is a dictionary": (package("lm", xp_cfg={"a": 1}), "should be YAML text"),
    "state is a list": (package("lm", best_state=[1]), "should be a dictionary of tensors"),
    "state is a tensor": (package("lm", best_state=torch.ones(1)), "should be a dictionary of tensors"),
    "state has numbers": (package("lm", best_state={1: torch.ones(1)}), "should be a dictionary of tensors"),
    "state holds a list": (package("lm", best_state={"a": [1.0]}), "'a' is a list"),
    "state is nested": (package("lm", best_state={"a": {"b": torch.ones(1)}}), "'a' is a dict"),
    "name with a newline": (package("lm", best_state={"a\n": torch.ones(1)}), "no name of a tensor"),
    "name that is long": (package("lm", best_state={"a" * 1000: torch.ones(1)}), "no name of a tensor"),
    "reference is a number": ({"pretrained": 5}, "should be the name of a codec"),
    "reference is a list": ({"pretrained": ["a"]}, "should be the name of a codec"),
}


@pytest.mark.parametrize(("root", "problem"), ROOTS.values(), ids=ROOTS)
def test_what_is_no_package_is_named(root: Any, problem: str, read: Read) -> None:
    with pytest.raises(PackageError, match=problem):
        read(saved(root))


def test_a_configuration_of_something_else_is_refused(read: Read) -> None:
    with pytest.raises(ConfigError, match="neither"):
        read(saved(package("lm", xp_cfg="sample_rate: 32000")))


OUT_OF_BOUNDS = {
    "reaches beyond": tensor(shape=b"K\x05\x85"),
    "offset": tensor(offset=b"K\x01"),
    "offset is huge": tensor(offset=b"\x8a\x08" + b"\xff" * 7 + b"\x7f"),
    "shape is huge": tensor(shape=b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"),
    "storage is larger than its block": tensor(numel=b"J\0\0\0\x01"),
    "block is missing": tensor(key="no such"),
    "block is elsewhere": tensor(key="../version"),
}


@pytest.mark.parametrize("stub", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
def test_a_tensor_outside_its_data_is_refused(stub: bytes, read: Read) -> None:
    read(with_pickle(mapping(best_state=mapping(x=tensor()), xp_cfg=CONFIG) + b"."))
    with pytest.raises(PackageError, match="the tensor 'x'"):
        read(with_pickle(mapping(best_state=mapping(x=stub), xp_cfg=CONFIG) + b"."))


def test_a_tensor_expanded_from_less_is_refused(read: Read) -> None:
    with pytest.raises(PackageError, match="more elements than are stored"):
        read(saved(package("lm", best_state={"a": torch.zeros(1).expand(1000, 1000)})))
