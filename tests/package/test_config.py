"""``xp.cfg``: plain data as YAML and OmegaConf read it, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from codecbay.errors import ConfigError
from codecbay.package.config import MAX_ALIASES, MAX_DEPTH, MAX_NODES, MAX_TEXT, Config, Section, parse_yaml
from package.forge import config_text, harmless

texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"), exclude_characters="$\\"), max_size=20
)
words = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | texts


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    inner = st.recursive(leaves, lambda node: st.lists(node, max_size=3) | st.dictionaries(words, node, max_size=3))
    return st.dictionaries(words, inner, min_size=1, max_size=4)


@given(trees(scalars), st.booleans())
def test_plain_data_is_read_as_yaml_reads_it(data: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True)
    assert parse_yaml(text) == yaml.safe_load(text) == data


@pytest.mark.parametrize(
    "text", ["1e-4", "1E5", "1.e3", ".5", "-1_000", "0x1F", "010", "1:30", "on", "~", "+.inf", "'1'", "1.2.3"]
)
def test_scalars_are_read_as_omegaconf_reads_them(text: str) -> None:
    expected = OmegaConf.to_container(OmegaConf.create(f"a: {text}"))
    assert parse_yaml(f"a: {text}") == expected
    assert isinstance(parse_yaml(f"a: {text}")["a"], type(expected["a"]))  # type: ignore[call-overload, index]


def paths(node: Any, start: str = "") -> Iterator[tuple[str, bool]]:
    """The path of everything in a tree, and whether it is a leaf."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield f"{start}{key}", not isinstance(child, (dict, list))
        if isinstance(child, (dict, list)):
            yield from paths(child, f"{start}{key}.")


@given(trees(scalars), st.data())
def test_references_are_resolved_as_omegaconf_resolves_them(tree: dict[str, Any], draw: st.DataObject) -> None:
    targets = list(paths(tree))
    for name in ("first", "second", "third"):
        target, leaf = draw.draw(st.sampled_from(targets))
        whole = not leaf or draw.draw(st.booleans())
        tree[name] = f"${{{target}}}" if whole else f"<${{{target}}}>"
        targets.append((name, leaf))
    config = Config.parse(yaml.safe_dump(tree))
    assert {key: config[key] for key in config} == OmegaConf.to_container(OmegaConf.create(tree), resolve=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: ${b}\nb: 3", 3),
        ("a: ${ b }\nb: 3", 3),
        ("a: ${b.c}\nb: {c: x}", "x"),
        ("a: ${b.c}\nb: ${d}\nd: {c: x}", "x"),
        ("a: ${b[1].c}\nb: [0, {c: x}]", "x"),
        ("a: ${b.1}\nb: [0, x]", "x"),
        ("a: x${b}y${b}\nb: 1", "x1y1"),
        ("a: ${b.${c}}\nb: {d: 1}\nc: d", 1),
        ("a: {b: '${.c}', c: 1}", {"b": 1, "c": 1}),
        ("a: {b: '${..d}'}\nd: 1", {"b": 1}),
        ("a: ['${b}', '${b}']\nb: {c: 1}", [{"c": 1}, {"c": 1}]),
        ("a: &x {b: 1}\nc: *x", {"b": 1}),
    ],
)
def test_references(text: str, value: Any) -> None:
    assert Config.parse(text)["a"] == value


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_what_windows_does_to_a_text_does_not_matter(change: Any) -> None:
    text = config_text("codec")
    assert parse_yaml(change(text)) == parse_yaml(text)


def test_the_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIM", "4")
    config = Config.parse("a: {b: '${oc.env:DIM}'}\nc: 1")
    assert config["c"] == 1
    assert "a" in config
    with pytest.raises(ConfigError, match="nothing outside"):
        config.section("a")


NO_YAML = {
    "broken": "a: [",
    "two on a line": "a: b: c",
    "tab": "a:\n\t- b",
    "NUL": "a: \0",
    "lone surrogate": "a: \ud800",
    "two documents": "a: 1\n---\nb: 2",
    "unknown directive": "%YAML 9.9\n---\na: 1",
    "key twice": "a: 1\na: 2",
    "key is a list": "? [a]\n: 1",
    "merge": "a:\n  <<: {b: 1}",
    "unknown alias": "a: *b",
    "alias of itself": "a: &a [*a]",
    "list": "- 1",
    "text": "hello",
    "nothing": "",
    "numbers for keys": "1: 2",
    **{
        f"tag {tag}": f"a: {tag}"
        for tag in (
            "!!python/object/apply:os.system ['false']",
            "!!python/name:os.system",
            "!!python/tuple [1]",
            "!!binary aGk=",
            "!!set {b}",
            "!!bool b",
            "!!int ''",
            "!!map {b: 1}",
            "!own b",
            "!<tag:example.com,2000:own> b",
        )
    },
}


@pytest.mark.parametrize("text", NO_YAML.values(), ids=NO_YAML)
def test_what_is_no_plain_mapping_is_refused(text: str) -> None:
    with harmless(), pytest.raises(ConfigError):
        Config.parse(text)


NESTED = "{x: " * 45 + "%s" + "}" * 45
HOGS = {
    "long": "a: " + "x" * MAX_TEXT,
    "deep": "a: " + "[" * (MAX_DEPTH + 1),
    "very deep": "[" * 100_000,
    "very deep blocks": "\n".join(" " * i + "a:" for i in range(300)),
    "many values": "a: [" + "1," * MAX_NODES + "]",
    "many aliases": "a: &a 1\nb: [" + "*a," * (MAX_ALIASES + 1) + "]",
    "bomb": "".join(f"k{i}: &k{i} [{f'*k{i - 1},' * 9 if i else 'x'}]\n" for i in range(9)),
    "references to itself": "a: ${a}",
    "references in a circle": "a: ${b}\nb: ${c}\nc: ${a}",
    "reference to what it is in": "a: {b: '${a}'}",
    "doubled text": "".join(f"k{i}: ${{k{i + 1}}}${{k{i + 1}}}\n" for i in range(48)) + "k48: xxxx\na: ${k0}",
    "doubled mapping": "".join(f"k{i}: ['${{k{i + 1}}}', '${{k{i + 1}}}']\n" for i in range(48)) + "k48: x\na: ${k0}",
    "chain of deep mappings": "".join(f"k{i}: " + NESTED % f"'${{k{i + 1}}}'" + "\n" for i in range(40)) + "a: ${k0}",
    "long chain": "".join(f"k{i}: ${{k{i + 1}}}\n" for i in range(5000)) + "a: ${k0}",
    "blanks in a reference": "a: '${" + " " * 500_000 + "'",
    "many openings": "a: '" + "${" * 100_000 + "}'",
    "long path": "a: '${" + "a." * 200_000 + "x}'",
    "many dots": "a: '${" + "." * 500_000 + "x}'",
    "huge index": "a: '${b." + "9" * 10_000 + "}'\nb: [1]",
    "mapping in a text": "a: x${b}\nb: {c: 1}",
    "reference to nothing": "a: ${}",
    "digits": "a: " + "1" * 600_000,
    "digits and lines": "a: " + "1_" * 300_000 + "x",
    "hexadecimal": "a: 0x" + "f" * 200_000,
    "base sixty": "a: 1" + ":59" * 200_000,
    "base sixty with a point": "a: 1" + ":59" * 200_000 + ".5",
}


@pytest.mark.parametrize("text", HOGS.values(), ids=HOGS)
def test_a_configuration_cannot_take_time_or_memory(text: str) -> None:
    with harmless(), pytest.raises(ConfigError) as caught:
        Config.parse(text).top().take_int("a")
    assert len(str(caught.value)) < 500


# ---------------------------------------------------------------------------------------------------------- values

TAKES: dict[str, tuple[str, list[Any], list[Any]]] = {
    "a whole number": ("take_int", [1, 16], [0, -1, 17, 1.0, True, None, "1", [1], 10**30]),
    "one or none": ("take_optional_int", [1, None], [0, 1.5, "", False]),
    "a number": ("take_float", [1, 0.5, -3.0], [math.nan, math.inf, 17, True, None, "1", 10**30]),
    "a number or none": ("take_optional_float", [None, 1.5], [math.inf, "x", {}]),
    "whole numbers": ("take_ints", [(), (1, 16)], [1, None, "12", [0], [1.0], [True], [[1]], {1: 1}]),
    "rates": ("take_rates", [(2,), (8, 5, 4, 2), (2,) * 16], [[], [1, 2], [5000], [2] * 17, [2.0], "8542", None, 2]),
    "a text": ("take_str", ["", "x"], [1, None, ["x"], True]),
    "texts": ("take_strs", [(), ("a", "b")], ["ab", None, [1], [["a"]], {"a": 1}]),
    "a truth": ("take_bool", [True, False], [0, 1, None, "true", []]),
    "a mapping": ("take_mapping", [{}, {"a": 1}], [[], "a", 1, {1: 2}, True]),
}
LIMITED = {"take_int", "take_optional_int", "take_float", "take_optional_float", "take_ints"}


def take(method: str, value: Any) -> Any:
    options = {"high": 16} if method in LIMITED else {}
    return getattr(Section({"key": value}, "section", "file"), method)("key", **options)


@pytest.mark.parametrize(("method", "good", "bad"), TAKES.values(), ids=TAKES)
def test_a_value_is_of_its_kind_or_refused(method: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert take(method, list(value) if isinstance(value, tuple) else value) == value
    for value in bad:
        with pytest.raises(ConfigError, match=r"file: 'section.key' "):
            take(method, value)


def test_a_missing_value_is_an_error_or_its_default() -> None:
    section = Config.parse("part: {there: '???', num_head: 4}").section("part")
    assert section.take_int("absent", 3) == section.take_int("there", 3) == 3
    with pytest.raises(ConfigError, match="Did you mean 'num_head'"):
        section.take_int("num_heads")


def test_what_nothing_took_is_an_error() -> None:
    section = Section({"known": 1, "knwon": 2}, "section", "file")
    section.take_int("known")
    with pytest.raises(ConfigError, match=r"'section.knwon' is not known. Did you mean 'known'"):
        section.finish()


@pytest.mark.parametrize(
    ("text", "problem"), [("transformr: {}", "missing. Did you mean"), ("transformer: 1", "mapping")]
)
def test_a_section_is_a_mapping_that_is_there(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Config.parse(text).section("transformer")
