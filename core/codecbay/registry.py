"""The registry: published codecs and models by name, with what they are known to be."""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from codecbay._resources import builtin_registry
from codecbay.errors import ConfigError, RegistryError, nearest
from codecbay.spec import CodecSpec, facts

SCHEMA_VERSION = 1
ENV = "CODECBAY_REGISTRY"
UNKNOWN = "unknown"  # a licence that the publisher does not state

_TABLES = {"codecs": "codec", "models": "model"}
_TEXTS = ("source", "licence", "backend", "revision", "folder", "sha256", "citation", "same_as", "unsupported")
_MAX_CODEBOOKS = 1024
# SPDX's identifiers have NC as a word of their own; other licences say it in their names.
_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non[- _]?commercial|research[- _](use[- _])?only", re.IGNORECASE)


@dataclass(frozen=True)
class RegistryEntry:
    """A published codec or model.

    Attributes:
        kind: ``codec`` or ``model``.
        name: its name here.
        source: its name where it is published.
        licence: of the weights: SPDX's identifier, or a name; ``unknown`` where the publisher states none.
        aliases: other names for it.
        backend: that builds it, for a codec.
        spec: of the codec.
        revision: of the source, where one is pinned.
        folder: of the source that holds it, where that holds more.
        sha256: of the file at an https source, where it is known.
        citation: where it is described.
        same_as: source of another entry that holds the same codec, in another layout.
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
    folder: str | None = None
    sha256: str | None = None
    citation: str | None = None
    same_as: str | None = None
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
                # Paths are meant from their own file: the same one in two files leads to two places.
                sources = {entry.source} if entry.local_path is None else set()
                for name in {entry.name, *entry.aliases} | sources:
                    other = self._by_name.setdefault((entry.kind, name), entry)
                    if other is not entry:
                        raise RegistryError(
                            f"The {entry.kind} name {name!r} stands twice: as '{other.name}' in {other.origin} "
                            f"and as '{entry.name}' in {entry.origin}. Rename or delete one of them."
                        )

    def entries(self, kind: str) -> Iterator[RegistryEntry]:
        """All codecs, or all models."""
        return (entry for entry in self._entries if entry.kind == kind)

    def find(self, kind: str, name: str) -> RegistryEntry | None:
        """The entry of that name, alias or source, if there is one."""
        return self._by_name.get((kind, name))

    def suggest(self, kind: str, name: str) -> str:
        """A hint to append to a message about an unknown name; empty where nothing is near."""
        family = [entry.name for entry in self.entries(kind) if entry.name.startswith(f"{name}-")]
        if family:
            return f" There are {', '.join(family)}."
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
    named = os.environ.get(ENV)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise RegistryError(f"{ENV} names {path}, which is not there.")
        files.append(path)
    registry = Registry(files)
    for plugin, path in get_plugins().registries:
        try:
            registry = Registry([*files, path])
        except RegistryError as error:  # a plugin's mistake must not take the others' codecs away
            text = f"The registry of the plugin '{plugin.name}' is left out, and all others are used. {error}"
            warnings.warn(text, stacklevel=2)
        else:
            files.append(path)
    return registry


def forbids_commercial_use(licence: str) -> bool:
    """Whether a licence, by its SPDX identifier or its name, is for non-commercial use alone."""
    return _NON_COMMERCIAL.search(licence) is not None


def _read(file: Path | Traversable) -> Iterator[RegistryEntry]:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"{file}: the registry file cannot be read: {error}") from None
    if data.pop("schema_version", None) != SCHEMA_VERSION:
        raise RegistryError(f"{file}: this codecbay reads registry files with schema_version = {SCHEMA_VERSION}.")
    for table, entries in data.items():
        if table not in _TABLES or not isinstance(entries, dict):
            raise RegistryError(f"{file}: '{table}' is no table of entries.{nearest(table, _TABLES)}")
        for name, values in entries.items():
            try:
                yield _entry(_TABLES[table], name, values, str(file))
            except KeyError as error:
                raise RegistryError(f"{file}: the entry '{table}.{name}' lacks {error}.") from None
            except (TypeError, ValueError, ArithmeticError, ConfigError) as error:
                raise RegistryError(f"{file}: the entry '{table}.{name}' is wrong: {error}") from None


def _entry(kind: str, name: str, values: Any, origin: str) -> RegistryEntry:
    _check_keys(values, (*_TEXTS, "aliases", "spec"))
    aliases = values.get("aliases", [])
    wrong = [key for key in _TEXTS if not isinstance(values.get(key, ""), str)]
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        wrong.append("aliases")
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} should be text; aliases are a list of it.")
    texts = {key: values.get(key) for key in _TEXTS}
    texts["source"], texts["licence"] = values["source"], values["licence"]
    spec = _spec(values["spec"], values["licence"]) if "spec" in values else None
    return RegistryEntry(kind=kind, name=name, aliases=tuple(aliases), spec=spec, origin=origin, **texts)


def _spec(values: Any, licence: str) -> CodecSpec:
    own = {field.name for field in fields(CodecSpec)} - {"cardinalities", "frame_rate", "licence"}
    _check_keys(values, own | {"cardinality"})
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    total, size = values["num_codebooks"], values.pop("cardinality")  # of every codebook, or a list
    if type(total) is not int or not 1 <= total <= _MAX_CODEBOOKS:
        raise ValueError(f"num_codebooks is {total!r}, expected 1 to {_MAX_CODEBOOKS}.")
    values.setdefault("allowed_num_codebooks", tuple(range(1, total + 1)))
    return CodecSpec(
        cardinalities=size if isinstance(size, tuple) else (size,) * total,
        frame_rate=Fraction(values["sample_rate"], values["frame_size"]),
        licence=None if licence == UNKNOWN else licence,
        **values,
    )


def _check_keys(values: Any, known: Collection[str]) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"expected a table, found {values!r}.")
    for key in values:
        if key not in known:
            raise ValueError(f"{key!r} is not known.{nearest(key, known)}")
