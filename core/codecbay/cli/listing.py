"""``codecbay codecs`` and ``codecbay plugins``."""

from __future__ import annotations

import click

from codecbay.cli.common import json_option, print_facts, print_json, print_table
from codecbay.errors import RegistryError
from codecbay.plugins import get_plugins
from codecbay.registry import get_registry
from codecbay.spec import ranges


@click.command()
@click.argument("name", required=False)
@json_option
def codecs(name: str | None, as_json: bool) -> None:
    """List the published codecs that packages may refer to, or show the one called NAME."""
    registry = get_registry()
    entries = list(registry.entries("codec"))
    if name is not None:
        entry = registry.find("codec", name)
        if entry is None:
            raise RegistryError(f"No codec is called {name!r}.{registry.suggest('codec', name)} See 'codecbay codecs'.")
        facts = entry.to_dict()
        if as_json:
            print_json(facts)
        else:
            spec = facts.pop("spec") or {}
            print_facts(facts | spec)
    elif as_json:
        print_json([entry.to_dict() for entry in entries])
    else:
        print_table(
            ["name", "Hz", "frames/s", "codebooks", "card", "channels", "back-end", "licence"],
            [
                (
                    entry.name,
                    *(
                        (
                            spec.sample_rate,
                            f"{float(spec.frame_rate):g}",
                            ranges(spec.allowed_num_codebooks),
                            ranges(tuple(sorted(set(spec.cardinalities)))),
                            spec.channels,
                        )
                        if (spec := entry.spec) is not None
                        else (None,) * 5
                    ),
                    entry.backend,
                    entry.licence,
                )
                for entry in entries
            ],
        )


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
