"""The tutorial: its files are those of ``codecbay new-plugin``, and following it leads to a codec that conforms."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import projects
from codecbay.cli import main
from pages import PLUGINS, blocks, write_files

PAGE = PLUGINS / "write.md"


def test_it_shows_the_files_that_the_command_writes(tmp_path: Path) -> None:
    (command,) = (b.text for b in blocks(PAGE) if b.text.startswith("codecbay new-plugin"))
    _, *arguments, directory = shlex.split(command)
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*arguments, str(tmp_path / directory)])
    shown = {block.title: block.text for block in blocks(PAGE) if block.title is not None}
    assert {path for path in shown if (tmp_path / directory / path).read_text() != shown[path]} == set()
    untold = {
        str(path.relative_to(tmp_path / directory)) for path in (tmp_path / directory).rglob("*") if path.is_file()
    } - set(shown)
    assert untold == {"README.md", ".gitignore", "src/codecbay_linear/py.typed"}
    assert all(f"`{name}`" in PAGE.read_text() for name in untold)


def test_following_it_leads_to_a_codec_that_conforms(tmp_path: Path) -> None:
    project, target = tmp_path / "codecbay-linear", tmp_path / "installed"
    write_files(PAGE, project)
    (project / "README.md").touch()
    (project / "src" / "codecbay_linear" / "py.typed").touch()
    told = ""
    for block in blocks(PAGE):
        if block.language == "python" and block.title is None:
            (project / "shown.py").write_text(block.text)
            projects.run("shown", target=target, cwd=project)
        elif block.language == "sh" and "new-plugin" not in block.text:
            for command, *arguments in map(shlex.split, block.text.splitlines()):
                if command == "pip":
                    projects.install(project, target)
                else:
                    told += projects.run(command, *arguments, target=target, cwd=project)
    assert "codecbay-linear 0.1.0" in told
    assert "The codec conforms." in told
