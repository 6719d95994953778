"""``codecbay new-plugin``: a project to start a plugin from. Its files are in ``templates/plugin``."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import click

from codecbay._resources import plugin_page
from codecbay.cli.common import json_option, print_json
from codecbay.errors import OutputError, PluginError
from codecbay.files import written_directory
from codecbay.plugins import get_plugins

_PREFIX = "codecbay-"
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9._-]{0,38}[A-Za-z0-9])?")
_TEMPLATES = (
    "pyproject.toml",
    "README.md",
    ".gitignore",  # stored without the dot: git would heed it
    "src/codecbay_name/__init__.py",
    "src/codecbay_name/backend.py",
    "src/codecbay_name/codec.py",
    "src/codecbay_name/py.typed",
    "tests/test_conformance.py",
)


def _normalized(_: click.Context, __: click.Parameter, value: str) -> str:
    """A name as package indexes normalize it (https://peps.python.org/pep-0503/#normalized-names)."""
    if not _NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value[:60]!r} is no name for a plugin. Use up to 40 letters, digits, '-', '_' and '.', "
            "with a letter first, and a letter or digit last."
        )
    name = re.sub(r"[-_.]+", "-", value).lower()
    if name.startswith(_PREFIX):
        raise click.BadParameter(
            f"{value!r} has the prefix that every plugin gets. Write {name.removeprefix(_PREFIX)!r}."
        )
    return name


@click.command()
@click.argument("name", callback=_normalized)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def new_plugin(name: str, directory: Path, as_json: bool) -> None:
    """Write a plugin for the codec NAME to the directory DIR, which must not exist or be empty.

    It is a project that can be installed, and passes its own tests.
    """
    _check_free(name)
    paths = _write(name, directory)
    distribution, module = f"{_PREFIX}{name}", f"codecbay_{name.replace('-', '_')}"
    if as_json:
        print_json(
            {
                "name": name,
                "distribution": distribution,
                "module": module,
                "directory": str(directory),
                "files": paths,
            }
        )
        return
    click.echo(f"The plugin '{name}' is written: {directory}, {len(paths)} files. Next:\n")
    for step in (f"cd {shlex.quote(str(directory))}", 'pip install -e ".[test]"', "pytest", "codecbay plugins"):
        click.echo(f"  {step}")
    click.echo(f"\nThen put your codec into src/{module}/codec.py. See {plugin_page('write.md')}")


def _check_free(name: str) -> None:
    plugins = get_plugins()
    owners = {info.name: info.distribution for info in plugins.infos if info.module}
    owners |= {backend: info.distribution for backend, info in plugins.owners.items()}
    if name in owners:
        raise PluginError(
            f"There is a plugin '{name}' already, of {owners[name]}, and of two by one name neither is loaded. "
            f"Choose another name, such as 'my-{name}'."
        )


def _write(name: str, directory: Path) -> list[str]:
    """Write all files, or none; their paths within ``directory``."""
    words, folder, paths = _words(name), files("codecbay") / "templates" / "plugin", []
    target = directory.resolve()
    if target == Path.cwd() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise OutputError(f"{directory}: this is there already. Name a directory that does not exist yet.")
    with written_directory(target) as project:
        for template in _TEMPLATES:
            path = _filled(template, words)
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            text = folder.joinpath(template.replace(".git", "git")).read_text(encoding="utf-8")
            (project / path).write_text(_filled(text, words), encoding="utf-8")
            paths.append(path)
    return paths


def _words(name: str) -> dict[str, str]:
    """What stands in templates for the name, the longest first."""
    stem = "".join(part.capitalize() for part in name.split("-"))
    return {
        "codecbay_name": f"codecbay_{name.replace('-', '_')}",
        **{f"NAME{kind}": (stem.removesuffix("Codec") or stem) + kind for kind in ("Backend", "Codec", "Config")},
        "NAME": name,
    }


def _filled(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
