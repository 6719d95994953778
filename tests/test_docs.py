"""What the documents show works as they show it."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest

from codecbay.cli import _COMMANDS, main
from pages import anchors, blocks, links

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


@pytest.mark.filterwarnings("ignore:provenance:UserWarning")
def test_the_first_python_block_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    names: dict[str, object] = {}
    exec(compile(block.group(1), "README.md", "exec"), names)
    assert list(names["audio"].shape) == [1, 1, 4 * 32000]  # type: ignore[attr-defined]


def test_the_readme_shows_every_command_and_every_option_it_shows_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for name in _COMMANDS:
        shown = re.findall(rf"^codecbay {name}\b.*$", README, re.MULTILINE)
        assert shown
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = capsys.readouterr().out
        assert set(re.findall(r"\s(--?[a-z-]+)", shown[0])) <= set(re.findall(r"--?[a-z-]+", text))


def test_the_commands_of_the_page_on_packages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "packages.md").read_text()
    shown = re.findall(r"^codecbay .*$", page, re.MULTILINE)
    assert len(shown) >= 7
    for line in shown:
        command = line.split()[1:3] if line.split()[1] == "export" else line.split()[1:2]
        with pytest.raises(SystemExit) as done:
            main([*command, "--help"])
        assert done.value.code == 0
        assert set(re.findall(r"\s(--[a-z-]+)", line)) <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


@pytest.mark.filterwarnings("ignore:provenance:UserWarning")
def test_the_example_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "swap_codec.py"), run_name="__main__")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.wav", "swapped.wav"]


@pytest.mark.filterwarnings("ignore:provenance:UserWarning")
def test_the_example_configuration_assembles() -> None:
    import codecbay

    model = codecbay.assemble(ROOT / "examples" / "assembly.yaml")
    assert model.duration == 4.0
    assert model.compression_model.name.endswith("tiny-codec")


def test_every_folder_and_room_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "core" / "codecbay").iterdir():
        if not path.name.startswith("_") and path.suffix in (".py", ""):
            assert f"`{path.stem}" in text, path
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for folder in {line.split("/")[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}:
        assert f"{folder}/" in text, folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


def test_every_page_for_authors_of_plugins_is_in_their_index() -> None:
    index = ROOT / "docs" / "plugins" / "README.md"
    assert {target for target, _ in links(index)} >= {page for page in PAGES if page.parent == index.parent} - {index}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    for block in blocks(page):
        if block.language == "sh":
            assert set(re.findall(r"(?<![\w/])codecbay ([a-z-]+)", block.text)) <= set(_COMMANDS)


def test_a_registry_file_is_written_as_shown_to_users(tmp_path: Path) -> None:
    from codecbay.registry import Registry

    (block,) = (b for b in blocks(ROOT / "docs" / "plugins" / "install.md") if b.language == "toml")
    (tmp_path / "registry.toml").write_text(block.text)
    (entry,) = Registry([tmp_path / "registry.toml"]).entries("codec")
    assert entry.local_path == Path.home() / "experiments" / "dac-12" / "package"
