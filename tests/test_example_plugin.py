"""The example of a plugin as its users have it: built, installed, and used under a language model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import projects

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "codecbay-dct"
MODEL = str(ROOT / "examples" / "tiny-musicgen")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, where its tests may write."""
    caches = shutil.ignore_patterns("__pycache__", ".*_cache", "package")
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / "codecbay-dct", ignore=caches))


@pytest.fixture(scope="module")
def target(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed."""
    target = tmp_path_factory.mktemp("installed")
    projects.install(copy, target)
    return target


def test_its_own_tests_pass(copy: Path, target: Path) -> None:
    assert "passed" in projects.run("pytest", target=target, cwd=copy)


def test_it_is_found_and_its_codec_has_a_name(target: Path) -> None:
    infos = {info["name"]: info for info in json.loads(projects.run("codecbay", "plugins", "--json", target=target))}
    assert infos["dct"]["distribution"] == "codecbay-dct 0.1.0"
    assert infos["dct"]["backends"] == ["dct"]
    assert infos["dct"]["registries"] == [str(target / "codecbay_dct" / "registry.toml")]
    entry = json.loads(projects.run("codecbay", "codecs", "dct-32khz", "--json", target=target))
    assert entry["licence"] == "CC0-1.0"


def test_it_serves_a_language_model(target: Path, tmp_path: Path) -> None:
    report = json.loads(projects.run("codecbay", "check", MODEL, "--codec", "dct-32khz", "--json", target=target))
    assert report["ok"]
    arguments = ("a text", "--codec", "dct-32khz", "--duration", "0.5", "-o", "out.wav")
    projects.run("codecbay", "generate", MODEL, *arguments, target=target, cwd=tmp_path)
    assert (tmp_path / "out.wav").stat().st_size > 16_000
