"""``codecbay codecs`` and ``codecbay plugins``."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution, requires
from typing import Any

import click

from codecbay.cli.common import json_option, print_facts, print_json, print_table
from codecbay.errors import CodecbayError, RegistryError
from codecbay.factory import check, open_package, resolve_codec
from codecbay.package import Package
from codecbay.plugins import get_plugins
from codecbay.registry import RegistryEntry, get_registry
from codecbay.spec import ranges

# Of a requirement, such as "snac>=1; extra == 'snac'": the distribution and the extra.
_EXTRA = re.compile(r"""([\w.-]+).*;.*\bextra\s*==\s*['"]([\w.-]+)['"]""")


@click.command()
@click.argument("name", required=False)
@click.option("--sample-rate", type=int, help="Only codecs of this sample rate, in Hz.")
@click.option("--fits", metavar="PACKAGE", help="Only codecs that could serve the language model of this package.")
@json_option
def codecs(name: str | None, sample_rate: int | None, fits: str | None, as_json: bool) -> None:
    """List the published codecs that are known by name, or show the one called NAME.

    Nothing is downloaded. The column 'here' says whether what a codec needs is there: its plugin, the plugin's library,
    and of a codec on the disk its files.
    """
    registry = get_registry()
    if name is not None:
        entry = registry.find("codec", name)
        if entry is None:
            raise RegistryError(f"No codec is called {name!r}.{registry.suggest('codec', name)} See 'codecbay codecs'.")
        facts = _facts(_described(entry))
        if not as_json:
            spec = facts.pop("spec") or {}
            facts |= {key: value for key, value in spec.items() if key != "licence"}
        (print_json if as_json else print_facts)(facts)
        return
    package = None if fits is None else open_package(fits)
    entries = [
        entry
        for entry in map(_described, registry.entries("codec"))
        if (sample_rate is None or sample_rate in _rates(entry)) and (package is None or _fits(entry, package))
    ]
    if as_json:
        print_json([_facts(entry) for entry in entries])
    elif not entries:
        click.echo("None of the known codecs.")
    else:
        columns = ["name", "Hz", "frames/s", "codebooks", "card", "channels", "back-end", "here", "licence"]
        print_table(columns, [_row(entry) for entry in entries])


def _rates(entry: RegistryEntry) -> list[int]:
    """The sample rate of what is encoded and, where it is another, of what is decoded."""
    return [] if entry.spec is None else list(dict.fromkeys((entry.spec.sample_rate, entry.spec.output_rate)))


def _described(entry: RegistryEntry) -> RegistryEntry:
    """The entry, with what the header says where its codec lies on this disk."""
    if entry.local_path is None:
        return entry
    try:
        found = resolve_codec(entry.local_path)
    except CodecbayError:
        return entry
    return replace(entry, spec=found.spec, backend=found.backend.name if found.backend else entry.backend)


def _fits(entry: RegistryEntry, package: Package) -> bool:
    try:
        resolve_codec(entry.name)
    except CodecbayError:  # nothing is known of it but its name
        return False
    return check(package, entry.name).ok


def _facts(entry: RegistryEntry) -> dict[str, Any]:
    here, install = _here(entry)
    return {**entry.to_dict(), "here": here, "install": install}


def _row(entry: RegistryEntry) -> list[Any]:
    spec = entry.spec
    about: list[Any] = [None] * 5
    if spec is not None:
        about = [
            " to ".join(map(str, _rates(entry))),
            f"{float(spec.frame_rate):g}",
            ranges(spec.allowed_num_codebooks),
            ranges(tuple(sorted(set(spec.cardinalities)))),
            spec.channels,
        ]
    return [entry.name, *about, entry.backend, _here(entry)[0], entry.licence]


def _here(entry: RegistryEntry) -> tuple[str, str | None]:
    """Whether what builds the codec is installed, and the command that installs it where it is not."""
    path, plugins = entry.local_path, get_plugins()
    if path is not None and not path.exists():
        return f"not there: {path}", None
    if path is None and entry.backend is None:
        return "back-end not told", None
    backend = plugins.backends.get(entry.backend or "")
    if backend is None:
        return "no plugin", None
    missing = [name for name in backend.requires if not _is_installed(name)]
    if not missing:
        return "yes", None
    owner = plugins.owners[backend.name].distribution.partition(" ")[0]
    wanted = dict.fromkeys(_to_install(name, owner) for name in missing)  # one extra may bring several
    return f"needs {', '.join(missing)}", f"pip install {' '.join(wanted)}"


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _to_install(name: str, owner: str) -> str:
    """What brings a distribution: the smallest extra of the plugin's own that does, else the distribution itself."""
    extras: dict[str, set[str]] = {}
    for requirement in (requires(owner) or []) if _is_installed(owner) else []:
        match = _EXTRA.match(requirement)
        if match is not None:
            extras.setdefault(match[2], set()).add(match[1].lower().replace("_", "-"))
    found = [extra for extra, names in extras.items() if name.lower().replace("_", "-") in names]
    return f"'{owner}[{min(found, key=lambda extra: len(extras[extra]))}]'" if found else name


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
