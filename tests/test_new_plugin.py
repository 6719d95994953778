"""``codecbay new-plugin``: what it writes can be installed, is found, keeps every promise, and is clean."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

import projects
from codecbay.cli import main
from codecbay.cli.new_plugin import _TEMPLATES
from codecbay.testing import CHECKS

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "core" / "codecbay" / "templates" / "plugin"
LONGEST = "a" * 40


def new_plugin(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit:
        main(["new-plugin", *arguments])
    return int(exit.value.code or 0)


def test_the_project_is_installed_found_and_conforms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project, target = tmp_path / "project", tmp_path / "target"
    assert new_plugin("My.own_codec", str(project), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert {key: facts[key] for key in ("name", "distribution", "module", "directory")} == {
        "name": "my-own-codec",
        "distribution": "codecbay-my-own-codec",
        "module": "codecbay_my_own_codec",
        "directory": str(project),
    }
    written = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert written == set(facts["files"])
    projects.install(project, target)
    told = projects.run("pytest", target=target, cwd=project)
    assert re.search(rf"= {len(CHECKS)} passed in", told)
    (info,) = (
        i for i in json.loads(projects.run("codecbay", "plugins", "--json", target=target)) if "my-" in i["name"]
    )
    assert info["state"] == "loaded"
    assert info["distribution"] == "codecbay-my-own-codec 0.1.0"
    assert info["backends"] == ["my-own-codec"]
    package = str(project / "tests" / "package")
    report = json.loads(projects.run("codecbay", "conformance", package, "--json", target=target))
    assert {check["status"] for check in report["checks"]} == {"passed"}


@pytest.mark.parametrize("name", ["q", "x-codec", LONGEST])
def test_the_project_is_clean_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert new_plugin(name, str(tmp_path / "project")) == 0
    projects.run("ruff", "check", "--no-cache", ".", cwd=tmp_path / "project")
    projects.run("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path / "project")
    for path in (tmp_path / "project").rglob("*"):
        assert "NAME" not in path.name + (path.read_text() if path.is_file() else "")


def test_what_to_do_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_plugin("linear", str(tmp_path / "a plugin")) == 0
    told = capsys.readouterr().out
    assert f"  cd '{tmp_path}/a plugin'\n  pip install -e \".[test]\"\n  pytest\n" in told
    assert "src/codecbay_linear/codec.py" in told
    assert str(ROOT / "docs" / "plugins" / "write.md") in told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is no name"),
        ("3d", "letter first"),
        ("tone-", "letter or digit last"),
        ("to ne", "is no name"),
        ("../tone", "is no name"),
        ("töne", "is no name"),
        ("a" * 41, "up to 40"),
        ("codecbay_tone", "Write 'tone'"),
    ],
)
def test_a_name_that_is_none_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert new_plugin(name, str(tmp_path / "project")) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_plugin("EnCodec", str(tmp_path / "project")) == 1
    error = capsys.readouterr().err
    assert re.search(r"There is a plugin 'encodec' already, of codecbay \d.*such as 'my-encodec'", error)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("all of it")
    (tmp_path / "file").write_text("all of it")
    monkeypatch.chdir(tmp_path)
    for name in ("full", "file", "."):
        assert new_plugin("tone", name) == 1
        assert "there already" in capsys.readouterr().err
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "file",
        "full",
        "full/thesis.tex",
    ]


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert new_plugin("tone", str(tmp_path / "empty")) == 0
    assert (tmp_path / "empty" / "pyproject.toml").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_it_is_written_whole_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text, written = Path.write_text, []

    def full_disk(path: Path, *arguments: object, **options: object) -> int:
        written.append(path)
        if len(written) == len(_TEMPLATES):
            raise OSError(28, "No space left on device")
        return write_text(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full_disk)
    assert new_plugin("tone", str(tmp_path / "project")) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_template_is_written() -> None:
    caches = shutil.ignore_patterns(".*", "__pycache__")
    there = {
        str(path.relative_to(TEMPLATES))
        for path in TEMPLATES.rglob("*")
        if path.is_file() and not any(caches("", list(path.relative_to(TEMPLATES).parts)))
    }
    assert there == {template.replace(".git", "git") for template in _TEMPLATES}


def test_the_templates_ship_with_codecbay(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as packed:
        in_wheel = set(packed.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for template in _TEMPLATES:
        path = f"codecbay/templates/plugin/{template.replace('.git', 'git')}"
        assert path in in_wheel
        assert f"core/{path}" in in_sdist
    assert not any("_cache" in path for path in in_wheel)
    assert "examples/codecbay-dct/src/codecbay_dct/dct-32khz/model.safetensors" in in_sdist
