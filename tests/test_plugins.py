"""Discovery: every plugin is accounted for, whatever becomes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from codecbay.errors import PluginError
from codecbay.plugins import GROUP, Plugins, find_backend, get_plugins, load_plugins

BACKEND = """
from codecbay.hookspecs import hookimpl
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
        ("x = 1", "version None of the plugin interface"),
        ("CODECBAY_API = 2", "version 2 of the plugin interface"),
        (
            "from codecbay.hookspecs import hookimpl\nCODECBAY_API = 1\n@hookimpl\ndef codecbay_backend(): return []",
            "unknown hook",
        ),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("CODECBAY_API = 1\ndef codecbay_backends(): return []", "lacks the marker @hookimpl"),
        (BACKEND.format(name="x").replace("[Backend()]", "[Backend]"), "not an instance"),
        (BACKEND.format(name="x").replace('"x"', "None"), "it has no name"),
        (BACKEND.format(name="x").replace('("some-library",)', "'torch'"), "no tuple of texts"),
        (BACKEND.format(name="x").replace("def claims", "def clams"), "it has no claims()"),
        (
            "from codecbay.hookspecs import hookimpl\nCODECBAY_API = 1\n@hookimpl\ndef codecbay_backends(): return 1/0",
            "ZeroDivisionError",
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
