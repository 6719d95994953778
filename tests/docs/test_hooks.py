"""The reference: it knows every hook and method with its signature, every field and name; and its code runs."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import codecbay
import goldens
import projects
from codecbay import Backend, Codec, CodecSpec, ConfigError, GenerationError, Header
from codecbay.hookspecs import API_VERSION, Hooks
from codecbay.lm.conditioners import ConditionerFactory
from codecbay.lm.text import word_index
from codecbay.package import Config, Section
from codecbay.package.layouts import CHECKPOINTS, WEIGHT_FILES
from codecbay.plugins import OWN_CONDITIONERS, _cached
from codecbay.registry import Registry
from pages import PLUGINS, write_files

PAGE = PLUGINS / "hooks.md"
TEXT = PAGE.read_text()
LABELLED = goldens.FIXTURES / "options" / "lut-sum"


def public(cls: type) -> dict[str, Any]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_")}


def signature(function: Any) -> str:
    """A method as a page shows it, in Markdown: without ``self``, annotations as they are written."""
    found = inspect.signature(function)
    text = str(found.replace(parameters=[p for name, p in found.parameters.items() if name != "self"]))
    return f"{function.__name__}{text}".replace("'", "").replace("|", r"\|")


@pytest.mark.parametrize("cls", [Hooks, Backend, ConditionerFactory], ids=lambda cls: cls.__name__)
def test_every_hook_and_method_to_be_written_has_its_section(cls: type) -> None:
    for method in filter(inspect.isfunction, public(cls).values()):
        assert f"\n### `{signature(method)}`\n" in TEXT


def test_every_method_and_attribute_of_a_codec_is_told() -> None:
    for name, member in public(Codec).items():
        if isinstance(member, (property, cached_property)):
            assert f"`{name}`" in TEXT
        elif inspect.isfunction(member):
            assert f"| `{signature(member)}` |" in TEXT


def test_every_field_of_the_spec_is_told() -> None:
    table = TEXT[TEXT.index("## The spec") : TEXT.index("## The codec")]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))) == {
        field.name for field in fields(CodecSpec)
    }


def test_every_way_to_take_a_value_is_told() -> None:
    for name in public(Section):
        assert re.search(rf"`{name}\(", TEXT)


def test_what_is_told_of_headers_is_there() -> None:
    table = TEXT[TEXT.index("## The header") : TEXT.index("### The configuration")]
    told = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \| .* \|$", table[: table.index("| `layout` | is |")], re.MULTILINE))
    )
    assert {"layout", "role", "config", "tensors"} <= set(told) <= {field.name for field in fields(Header)}
    assert signature(Header.check_shape).startswith("check_shape(section: Section, name: str, shape: ")
    assert "`header.check_shape(section, name, shape, *keys)`" in table
    assert all(f"`{name}`" in table for name in (*WEIGHT_FILES, *(f"*{end}" for end in CHECKPOINTS)))


def test_every_public_name_for_plugins_is_told_and_there() -> None:
    errors = {name for name in codecbay.__all__ if name.endswith("Error")}
    for_users = {"AudioGen", "MusicGen", "LMSpec", "Report", "assemble", "check", "load", "load_codec", "__version__"}
    for_users |= {"download", "export_codec", "export_lm", "export_pretrained_codec"}
    told = set(re.findall(r"`(\w+)`", TEXT[TEXT.rindex("plugins need") :]))
    assert told == set(codecbay.__all__) - errors - for_users
    rows = set(re.findall(r"^\| `(\w+Error)` \|", TEXT, re.MULTILINE))
    assert rows == errors - {"IncompatibleError"}


def test_the_version_of_the_interface_is_the_one_that_is_told() -> None:
    for page in (PAGE, PLUGINS / "publish.md"):
        assert set(re.findall(r"CODECBAY_API = (\d+)", page.read_text())) == {str(API_VERSION)}
    for name in OWN_CONDITIONERS:
        assert f"`{name}`" in TEXT


def test_reading_a_configuration_as_shown(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    names: dict[str, Any] = {}
    exec((tmp_path / "reading.py").read_text(), names)

    class Header:
        config = Config({"model_type": "x", "sample_rate": 16_000, "causal": True}, "config.json")

    assert names["read"](Header) == (16_000, (2, 4, 5), True)
    Header.config = Config({"model_type": "x", "sample_rate": 16_000, "stride": [2]}, "config.json")
    with pytest.raises(ConfigError, match=r"config.json: 'stride' is not known. Did you mean 'strides'\?"):
        names["read"](Header)


def test_the_registry_file_is_read_as_told(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    entry = Registry([tmp_path / "registry.toml"]).find("codec", "linear_16khz")
    assert entry is not None
    assert entry.spec is not None
    assert (entry.local_path, entry.backend, entry.licence) == (tmp_path / "linear-16khz", "linear", "CC-BY-4.0")
    assert (entry.spec.cardinalities, entry.spec.lookahead) == ((64,) * 4, 0)


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of AudioCraft's whose lookup table has become a list of labels; the plugin for them is installed."""
    write_files(PAGE, tmp_path)
    projects.write_distribution(tmp_path, "labels")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    _cached.cache_clear()
    directory = Path(shutil.copytree(LABELLED, tmp_path / "package"))
    saved = torch.load(directory / "state_dict.bin", weights_only=True)
    labels = json.loads((directory / "golden.json").read_text())["prompts"]
    state, prefix = saved["best_state"], "condition_provider.conditioners.description."
    table = state.pop(f"{prefix}embed.weight")
    state[f"{prefix}table.weight"] = table[[word_index(label, len(table)) for label in labels]]
    config = yaml.safe_load(saved["xp.cfg"])
    config["conditioners"]["description"] = {"model": "labels", "labels": {"labels": labels, "dim": table.shape[1]}}
    saved["xp.cfg"] = yaml.safe_dump(config, sort_keys=False)
    torch.save(saved, directory / "state_dict.bin")
    yield directory
    _cached.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("codecbay_labels"):
            del sys.modules[name]


@pytest.mark.parametrize("key", ["lm_logits", "gen_tokens", "cont_tokens", "sampled_top_k_tokens"])
def test_a_conditioner_of_a_plugin_gives_what_audiocraft_computes(labelled: Path, key: str) -> None:
    golden = goldens.Golden(labelled)
    expected = golden.tensors[key]
    tolerance = goldens.tolerance(key) if expected.is_floating_point() else 0.0
    torch.testing.assert_close(golden.compute(key), expected, rtol=0.0, atol=tolerance)


def test_what_a_conditioner_refuses_is_told(labelled: Path) -> None:
    model = goldens.Golden(labelled).model
    with pytest.raises(GenerationError, match=r"'polka' is no label of this model\. Labels are slow"):
        model.generate(["polka"])
