"""The registry: published codecs and models by name, with what they are known to be."""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from codecbay._resources import builtin_registry
from codecbay.errors import RegistryError, nearest
from codecbay.spec import CodecSpec, facts

SCHEMA_VERSION = 1
ENV = "CODECBAY_REGISTRY"


@dataclass(frozen=True)
class RegistryEntry:
    """A published codec or model.

    Attributes:
        kind: ``codec`` or ``model``.
        name: its name here.
        source: its name where it is published.
        licence: of the weights.
        aliases: other names for it.
        backend: that builds it, for a codec.
        spec: of the codec.
        revision: of the source, where one is pinned.
        citation: where it is described.
        unsupported: why it cannot be loaded, for what is listed all the same.
        origin: the file that says so.
    """

    kind: str
    name: str
    source: str
    licence: str
    aliases: tuple[str, ...]
    backend: str | None
    spec: CodecSpec | None
    origin: str
    revision: str | None = None
    citation: str | None = None
    unsupported: str | None = None

    @property
    def local_path(self) -> Path | None:
        """Where the codec or model lies, if its source is a path; relative ones are meant from the registry file."""
        if not self.source.startswith(("/", "./", "../", "~")):
            return None
        return Path(self.origin).parent / Path(self.source).expanduser()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return facts(self)


class Registry:
    """Entries by name, alias and source.

    Args:
        files: registry files, read in order.

    Raises:
        RegistryError: a file is wrong, or two entries share a name.
    """

    def __init__(self, files: Iterable[Path | Traversable]) -> None:
        self._entries: list[RegistryEntry] = []
        self._by_name: dict[tuple[str, str], RegistryEntry] = {}
        for file in files:
            for entry in _read(file):
                self._entries.append(entry)
                for name in {entry.name, entry.source, *entry.aliases}:
                    other = self._by_name.setdefault((entry.kind, name), entry)
                    if other is not entry:
                        raise RegistryError(
                            f"The {entry.kind} name {name!r} stands twice: as '{other.name}' in {other.origin} "
                            f"and as '{entry.name}' in {entry.origin}."
                        )

    def entries(self, kind: str) -> Iterator[RegistryEntry]:
        """All codecs, or all models."""
        return (entry for entry in self._entries if entry.kind == kind)

    def find(self, kind: str, name: str) -> RegistryEntry | None:
        """The entry of that name, alias or source, if there is one."""
        return self._by_name.get((kind, name))

    def suggest(self, kind: str, name: str) -> str:
        """A hint to append to a message about an unknown name; empty where nothing is near."""
        return nearest(name, [known for kind_, known in self._by_name if kind_ == kind])


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """The registry of this environment: what ships with codecbay, what plugins add, and the user's own files.

    Those are ``~/.config/codecbay/registry.toml`` and the file that ``CODECBAY_REGISTRY`` names.
    """
    from codecbay.plugins import get_plugins

    own = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "codecbay" / "registry.toml"
    files = [builtin_registry()]
    files += [own] if own.is_file() else []
    files += [Path(os.environ[ENV]).expanduser()] if os.environ.get(ENV) else []
    for plugin, path in get_plugins().registries:
        try:
            Registry([*files, path])
        except RegistryError as error:  # a plugin's mistake must not take the others' codecs away
            warnings.warn(f"The registry of the plugin '{plugin.name}' is left out. {error}", stacklevel=2)
        else:
            files.append(path)
    return Registry(files)


def _read(file: Path | Traversable) -> Iterator[RegistryEntry]:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"{file}: the registry file cannot be read: {error}") from None
    if data.get("schema_version") != SCHEMA_VERSION:
        raise RegistryError(
            f"{file}: schema_version is {data.get('schema_version')!r}, this codecbay reads {SCHEMA_VERSION}."
        )
    for kind, table in (("codec", "codecs"), ("model", "models")):
        for name, fields in data.get(table, {}).items():
            try:
                yield _entry(kind, name, fields, str(file))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise RegistryError(f"{file}: the entry '{table}.{name}' is wrong: {error!r}.") from None


def _entry(kind: str, name: str, fields: dict[str, Any], origin: str) -> RegistryEntry:
    fields = dict(fields)
    spec = fields.pop("spec", None)
    licence = fields.pop("licence")
    entry = RegistryEntry(
        kind=kind,
        name=name,
        source=fields.pop("source"),
        licence=licence,
        aliases=tuple(fields.pop("aliases", ())),
        backend=fields.pop("backend", None),
        spec=None if spec is None else _spec(spec, licence),
        origin=origin,
        **{key: fields.pop(key, None) for key in ("revision", "citation", "unsupported")},
    )
    if fields:
        raise ValueError(f"unknown key {next(iter(fields))!r}")
    return entry


def _spec(fields: dict[str, Any], licence: str) -> CodecSpec:
    total = fields["num_codebooks"]
    cardinality = fields["cardinality"]  # of every codebook, or a list
    return CodecSpec(
        sample_rate=fields["sample_rate"],
        channels=fields["channels"],
        cardinalities=tuple(cardinality) if isinstance(cardinality, list) else (cardinality,) * total,
        frame_size=fields["frame_size"],
        frame_rate=Fraction(fields["sample_rate"], fields["frame_size"]),
        num_codebooks=total,
        allowed_num_codebooks=tuple(fields.get("allowed_num_codebooks", range(1, total + 1))),
        has_scale=fields.get("has_scale", False),
        decoded_sample_rate=fields.get("decoded_sample_rate"),
        causal=fields.get("causal", False),
        licence=licence,
    )
