"""Discovery: every plugin is accounted for, whatever becomes of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

import codecbay
import projects
from codecbay.errors import PluginError
from codecbay.plugins import GROUP, HOOKS, OWN_CONDITIONERS, Plugins, find_backend, get_plugins, load_plugins

BACKEND = """
from codecbay import hookimpl
CODECBAY_API = 1

class Backend:
    name = "{name}"
    requires = ("some-library",)
    def claims(self, header): return True
    def spec(self, header): raise NotImplementedError
    def build(self, file, *, device, dtype): raise NotImplementedError

@hookimpl
def codecbay_backends():
    return [Backend()]
"""

HOOK = """
from codecbay import hookimpl
CODECBAY_API = 1

@hookimpl
def {}():
    return {}
"""
KINDS = """[type("Kind", (), {"name": name, "build": lambda self, *_: 1 / 0})() for name in %r]"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the import path; modules written there are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def point(name: str, module: str) -> EntryPoint:
    return EntryPoint(name, module, GROUP)


def only(plugins: Plugins) -> str:
    (info,) = plugins.infos
    assert info.state == "failed"
    assert not plugins.backends
    return str(info.error)


def test_the_builtin_plugin_comes_in_through_its_entry_point() -> None:
    info = next(info for info in get_plugins().infos if info.name == "encodec")
    assert (info.state, info.module, info.backends) == ("loaded", "codecbay_encodec", ("encodec",))
    assert info.distribution.startswith("codecbay ")


def test_a_good_plugin_is_loaded(module: Path) -> None:
    (module / "good_plugin.py").write_text(BACKEND.format(name="good"))
    plugins = load_plugins([point("good", "good_plugin")])
    assert list(plugins.backends) == ["good"]
    assert plugins.infos[0].requires == ("some-library",)
    assert plugins.owners["good"] is plugins.infos[0]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import not_there", "ModuleNotFoundError"),
        ("raise OSError('no library')", "OSError: no library"),
        ("def", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("CODECBAY_API = '1'", "CODECBAY_API = '1', which is no number"),
        (BACKEND.format(name="x").replace("[Backend()]", "[Backend]"), "not an instance"),
        (BACKEND.format(name="x").replace('"x"', "None"), "it has no name"),
        (BACKEND.format(name="x").replace('("some-library",)', "'torch'"), "no tuple of texts"),
        (BACKEND.format(name="x").replace("def claims", "def clams"), "it has no claims()"),
        (HOOK.format("codecbay_backends", "1 / 0"), "its codecbay_backends failed: ZeroDivisionError"),
        (HOOK.format("codecbay_backends", "(1 / 0 for _ in 'x')"), "its codecbay_backends failed: ZeroDivisionError"),
        (HOOK.format("codecbay_backends", "None"), "its codecbay_backends returned None, where a list is expected"),
        (HOOK.format("codecbay_registry", "'registry.toml'"), "returned 'registry.toml', where a list is expected"),
        (HOOK.format("codecbay_registry", "['x', 1]"), "a registry file of it (1) is no path"),
        (
            HOOK.format("codecbay_conditioners", "[int]"),
            "it is a class, not an instance, it has no name, it has no build",
        ),
    ],
)
def test_a_broken_plugin_is_a_row_and_the_others_load(module: Path, source: str, cause: str) -> None:
    (module / "broken_plugin.py").write_text(source)
    (module / "good_plugin.py").write_text(BACKEND.format(name="good"))
    plugins = load_plugins([point("a_broken", "broken_plugin"), point("good", "good_plugin")])
    broken, good = plugins.infos
    assert broken.state == "failed"
    assert cause in str(broken.error)
    assert good.state == "loaded"
    assert cause in plugins.failure_hint()


def test_two_plugins_of_one_name_are_both_refused(module: Path) -> None:
    for name in ("first", "second"):
        (module / f"{name}_plugin.py").write_text(BACKEND.format(name=name))
    plugins = load_plugins([point("same", "first_plugin"), point("same", "second_plugin")])
    assert not plugins.backends
    assert [info.state for info in plugins.infos] == ["failed", "failed"]
    assert "first_plugin" in str(plugins.infos[0].error)
    assert "second_plugin" in str(plugins.infos[0].error)


def test_a_backend_name_cannot_be_taken_again(module: Path) -> None:
    (module / "one_plugin.py").write_text(BACKEND.format(name="same"))
    (module / "two_plugin.py").write_text(BACKEND.format(name="same"))
    plugins = load_plugins([point("one", "one_plugin"), point("two", "two_plugin")])
    assert plugins.owners["same"].name == "one"
    assert "brings already" in str(plugins.infos[1].error)


def test_what_else_a_plugin_brings_is_accounted_for(module: Path) -> None:
    (module / "more_plugin.py").write_text(
        HOOK.format("codecbay_registry", "['/registry.toml']")
        + HOOK.format("codecbay_conditioners", KINDS % ["labels", "moods"])
    )
    plugins = load_plugins([point("more", "more_plugin")])
    (info,) = plugins.infos
    assert (info.state, info.registries, info.conditioners) == ("loaded", ("/registry.toml",), ("labels", "moods"))
    assert plugins.registries == [(info, Path("/registry.toml"))]
    with pytest.raises(PluginError, match=r"'mood' of the kind 'moods' \(.*\) cannot be built: ZeroDivisionError"):
        plugins.conditioners[1].build(None, SimpleNamespace(name="mood"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["moods"], "it brings a kind of conditioners 'moods', which one (unknown distribution) brings already"),
        (["t5"], "it brings a kind of conditioners 't5', which codecbay brings already"),
        (["genres", "genres"], "it brings a kind of conditioners 'genres' twice"),
    ],
)
def test_a_kind_of_conditioners_cannot_be_taken_again(module: Path, names: list[str], cause: str) -> None:
    (module / "one_plugin.py").write_text(HOOK.format("codecbay_conditioners", KINDS % ["moods"]))
    (module / "two_plugin.py").write_text(HOOK.format("codecbay_conditioners", KINDS % names))
    plugins = load_plugins([point("one", "one_plugin"), point("two", "two_plugin")])
    assert [kind.name for kind in plugins.conditioners] == ["moods"]
    assert cause in str(plugins.infos[1].error)


def test_the_kinds_of_conditioners_that_are_taken_are_those_that_there_are() -> None:
    from codecbay.lm import conditioners

    factories = [f for name, f in vars(conditioners).items() if name.startswith("_") and name.endswith("Factory")]
    assert sorted(OWN_CONDITIONERS) == sorted(factory.name for factory in factories)


def test_the_environment_limits_what_is_loaded(module: Path) -> None:
    for name in ("first", "second"):
        (module / f"{name}_plugin.py").write_text(BACKEND.format(name=name))
    points = [point(name, f"{name}_plugin") for name in ("first", "second")]
    plugins = load_plugins(points, "first, frist")
    assert {info.name: info.state for info in plugins.infos} == {
        "first": "loaded",
        "second": "disabled",
        "frist": "failed",
    }
    assert "Did you mean 'first'?" in str(plugins.infos[-1].error)
    assert "second_plugin" not in sys.modules
    assert not load_plugins(points, "").backends


def test_two_backends_that_claim_one_package_are_an_error(module: Path) -> None:
    for name in ("first", "second"):
        (module / f"{name}_plugin.py").write_text(BACKEND.format(name=name))
    plugins = load_plugins([point(name, f"{name}_plugin") for name in ("first", "second")])

    class Header:
        path = "here"

    with pytest.raises(PluginError, match="'first' and 'second' both claim"):
        find_backend(Header(), plugins.backends)  # type: ignore[arg-type]


def test_the_api_version_is_checked_before_hooks_are_called(module: Path) -> None:
    (module / "old_plugin.py").write_text(BACKEND.format(name="old").replace("CODECBAY_API = 1", "CODECBAY_API = 0"))
    assert "version 0" in only(load_plugins([point("old", "old_plugin")]))


@pytest.mark.parametrize(
    ("method", "body"),
    [("spec", "raise KeyError('oops')"), ("spec", "return None"), ("build", "raise KeyError('oops')")],
)
def test_a_backend_that_fails_is_named(module: Path, method: str, body: str) -> None:
    source = BACKEND.format(name="shaky")
    for name in ("spec", "build"):
        source = source.replace(f"def {name}(self", f"def {name}_(self") if name == method else source
    arguments = "self, header" if method == "spec" else "self, file, *, device, dtype"
    source = source.replace("    requires", f"    def {method}({arguments}): {body}\n    requires")
    (module / "shaky_plugin.py").write_text(source)
    backend = load_plugins([point("shaky", "shaky_plugin")]).backends["shaky"]
    with pytest.raises(PluginError, match=rf"'shaky' \(.*\) failed in {method}\(\)"):
        backend.spec(None) if method == "spec" else backend.build(None, device=None, dtype=None)  # type: ignore[arg-type]


def test_a_backend_that_cannot_answer_does_not_claim(module: Path) -> None:
    (module / "shaky_plugin.py").write_text(BACKEND.format(name="shaky").replace("return True", "return 1 / 0"))
    backends = load_plugins([point("shaky", "shaky_plugin")]).backends
    with pytest.warns(UserWarning, match="'shaky'"):
        assert find_backend(None, backends) is None  # type: ignore[arg-type]


def test_a_backend_that_lacks_a_library_says_how_to_install_it(module: Path) -> None:
    source = BACKEND.format(name="needy").replace("raise NotImplementedError", "import some_library")
    (module / "needy_plugin.py").write_text(source)
    backend = load_plugins([point("needy", "needy_plugin")]).backends["needy"]
    with pytest.raises(
        PluginError, match=r"No module named 'some_library'\. Install what it needs: pip install some-library$"
    ):
        backend.build(None, device=None, dtype=None)  # type: ignore[arg-type]


LESSONS = {
    "old": (
        "CODECBAY_API = 0",
        "it is written for version 0 of the plugin interface (CODECBAY_API), and codecbay {version} has version 1. "
        "Upgrade the older one: pip install --upgrade codecbay-old",
    ),
    "new": (
        "CODECBAY_API = 2",
        "it is written for version 2 of the plugin interface (CODECBAY_API), and codecbay {version} has version 1. "
        "Upgrade the older one: pip install --upgrade codecbay",
    ),
    "unsaid": ("", "it does not say for which plugin interface it is written: write CODECBAY_API = 1"),
    "hookless": ("CODECBAY_API = 1", "it implements no hook: mark a function with @hookimpl. Hooks are {hooks}"),
    "misspelt": (
        HOOK.format("codecbay_backend", "[]"),
        "it has an unknown hook 'codecbay_backend'. Did you mean 'codecbay_backends'? Hooks are {hooks}",
    ),
    "misspelt-unmarked": (
        "CODECBAY_API = 1\ndef codecbay_backend(): return []",
        "it has an unknown hook 'codecbay_backend'. Did you mean 'codecbay_backends'? Hooks are {hooks}",
    ),
    "nameless": (
        HOOK.format("backends", "[]"),
        "it has an unknown hook 'backends'. Did you mean 'codecbay_backends'? Hooks are {hooks}",
    ),
    "unmarked": (
        "CODECBAY_API = 1\ndef codecbay_backends(): return []",
        "its codecbay_backends lacks the marker @hookimpl",
    ),
    "arguments": (
        HOOK.format("codecbay_backends", "[]").replace("()", "(registry, more=None)"),
        "its hook codecbay_backends(registry, more=None) has arguments, and hooks take none",
    ),
    "library": (
        "import codecbay\ncodecbay.import_library('nolib', needed_by='The codec x', install='pip install x[y]')",
        "The codec x needs 'nolib', which cannot be imported (ModuleNotFoundError: No module named 'nolib'). "
        "Install it: pip install x[y]",
    ),
    "needy": ("import nolib", "No module named 'nolib'. Install what needy needs: pip install codecbay-needy"),
}


def test_the_command_line_teaches_what_is_wrong_with_each(tmp_path: Path) -> None:
    for name, (source, _) in LESSONS.items():
        projects.write_distribution(tmp_path, name)
        (tmp_path / f"codecbay_{name.replace('-', '_')}.py").write_text(source)
    infos = {info["name"]: info for info in json.loads(projects.run("codecbay", "plugins", "--json", target=tmp_path))}
    for name, (_, lesson) in LESSONS.items():
        lesson = lesson.format(version=codecbay.__version__, hooks=", ".join(HOOKS))
        assert infos[name]["error"].partition(": ")[2] == lesson
        assert (infos[name]["state"], infos[name]["distribution"]) == ("failed", f"codecbay-{name} 1.0")
    assert infos["encodec"]["state"] == "loaded"
    table = projects.run("codecbay", "plugins", target=tmp_path)
    assert re.search(
        r"^unmarked +codecbay-unmarked 1.0 +failed +PluginError: its codecbay_backends lacks", table, re.MULTILINE
    )
