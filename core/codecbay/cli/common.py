"""What several commands share: options, and printing facts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from codecbay.errors import AudioError
from codecbay.spec import ranges

SOUNDS = (".wav", ".flac", ".ogg")

json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
device_option = click.option("--device", help="cpu, cuda, cuda:1 …; a GPU where there is one, by default.")
num_codebooks_option = click.option("--num-codebooks", type=click.IntRange(min=1), help="Codebooks the codec uses.")


def check_output(path: Path, *endings: str) -> Path:
    """``path`` itself, refused now where it cannot be written, and not after minutes of work.

    Raises:
        AudioError: its ending is another, or its directory does not exist.
    """
    if path.suffix.lower() not in endings:
        raise AudioError(f"{path}: give a file name that ends in {' or '.join(endings)}.")
    if not path.parent.is_dir():
        raise AudioError(f"{path}: the directory {path.parent} does not exist.")
    return path


def shown(value: Any) -> str:
    """A fact in few words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} ({inner})" for key, inner in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        if len(set(value)) == 1 and len(value) > 1:
            return f"{value[0]} x {len(value)}"
        return ranges(tuple(value))
    return str(value)


def print_json(facts: Any) -> None:
    """Facts as JSON on standard output."""
    click.echo(json.dumps(facts, indent=2, default=str))


def print_facts(facts: dict[str, Any]) -> None:
    """Facts as aligned lines."""
    told = {name: shown(value) for name, value in facts.items() if value not in (None, [], ())}
    width = max(map(len, told))
    for name, value in told.items():
        click.echo(f"{name:<{width}}  {value}")


def print_table(columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Facts as aligned columns."""
    cells = [columns, *([" ".join(str(v).split()) if v is not None else "" for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
