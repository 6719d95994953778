"""What several commands share: options, and printing facts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
device_option = click.option("--device", help="cpu, cuda, cuda:1 …; a GPU where there is one, by default.")
num_codebooks_option = click.option("--num-codebooks", type=click.IntRange(min=1), help="Codebooks the codec uses.")


def print_json(facts: Any) -> None:
    """Facts as JSON on standard output."""
    click.echo(json.dumps(facts, indent=2, default=str))


def print_facts(facts: dict[str, Any]) -> None:
    """Facts as aligned lines."""
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def print_table(columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Facts as aligned columns."""
    cells = [columns, *([" ".join(str(v).split()) if v is not None else "" for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
