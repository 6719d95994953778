"""``codecbay codecs`` and ``codecbay plugins``."""

from __future__ import annotations

from typing import Any

import click

from codecbay.cli.common import json_option, print_facts, print_json, print_table
from codecbay.errors import RegistryError
from codecbay.factory import check, open_package
from codecbay.plugins import get_plugins
from codecbay.registry import RegistryEntry, get_registry
from codecbay.spec import ranges


@click.command()
@click.argument("name", required=False)
@click.option("--sample-rate", type=int, help="Only codecs of this sample rate, in Hz.")
@click.option("--fits", metavar="PACKAGE", help="Only codecs that could serve the language model of this package.")
@json_option
def codecs(name: str | None, sample_rate: int | None, fits: str | None, as_json: bool) -> None:
    """List the published codecs that are known by name, or show the one called NAME."""
    registry = get_registry()
    if name is not None:
        entry = registry.find("codec", name)
        if entry is None:
            raise RegistryError(f"No codec is called {name!r}.{registry.suggest('codec', name)} See 'codecbay codecs'.")
        facts = entry.to_dict()
        if not as_json:
            facts |= facts.pop("spec") or {}
        (print_json if as_json else print_facts)(facts)
        return
    package = None if fits is None else open_package(fits)
    entries = [
        entry
        for entry in registry.entries("codec")
        if (sample_rate is None or (entry.spec is not None and entry.spec.sample_rate == sample_rate))
        and (package is None or check(package, entry.name).ok)
    ]
    if as_json:
        print_json([entry.to_dict() for entry in entries])
    else:
        columns = ["name", "Hz", "frames/s", "codebooks", "card", "channels", "back-end", "licence"]
        print_table(columns, [_row(entry) for entry in entries])


def _row(entry: RegistryEntry) -> list[Any]:
    spec = entry.spec
    if spec is None:
        return [entry.name, *[None] * 5, entry.backend, entry.licence]
    return [
        entry.name,
        spec.sample_rate,
        f"{float(spec.frame_rate):g}",
        ranges(spec.allowed_num_codebooks),
        ranges(tuple(sorted(set(spec.cardinalities)))),
        spec.channels,
        entry.backend,
        entry.licence,
    ]


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List every plugin that was found, with its distribution, its state, and why it failed where it did."""
    infos = get_plugins().infos
    if as_json:
        print_json([info.to_dict() for info in infos])
    else:
        print_table(
            ["name", "distribution", "state", "back-ends", "cause"],
            [(i.name, i.distribution, i.state, ", ".join(i.backends), i.error) for i in infos],
        )
