"""Configurations, read as untrusted data: ``xp.cfg``, the YAML text inside a package, and ``config.json``.

YAML is parsed under limits of size, depth and aliases, no YAML tag is honoured, and interpolations
(``${sample_rate}``) are looked up within the text alone: neither the environment nor a resolver is reached.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from codecbay.errors import ConfigError, nearest
from codecbay.remote.paths import AnyPath

MAX_TEXT = 1 << 20  # characters; the largest published configuration has under 20 000
MAX_DEPTH = 50
MAX_ALIASES = 64
MAX_NODES = 50_000
MAX_EXPANDED = 20_000  # values that interpolation may visit, so that doubling cannot explode
MAX_NUMBER = 64  # characters; what is longer is text, however many digits it has
MAX_SIZE = 1 << 24  # no size of a model is larger
MAX_RATE = 1 << 12
MAX_BLOCKS = 16

_REQUIRED: Any = object()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, with numbers such as ``1e-4`` read as OmegaConf reads them: as floats."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)|\.[0-9_]+(?:[eE][-+]?[0-9]+)?)$"),
    list("-+0123456789."),
)
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}


def parse_yaml(text: str) -> Any:
    """The plain data that ``text`` holds.

    Raises:
        ConfigError: the text is too large, nests or aliases too much, uses tags, or is no YAML.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"The configuration has {len(text)} characters; at most {MAX_TEXT} are read.")
    loader = None
    try:
        loader = _Loader(text)
        return _build(loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration is not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # numbers that are none, such as 0o8; text that is not Unicode
        raise ConfigError(f"The configuration holds a value that cannot be read: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def read_json(path: AnyPath) -> Config:
    """The configuration in a JSON file.

    Raises:
        ConfigError: it cannot be read, is too large, or no mapping.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(MAX_TEXT + 1)
        if len(text) > MAX_TEXT:
            raise ValueError(f"it has more than {MAX_TEXT} characters")
        root = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {str(error)[:200]}") from None
    if not isinstance(root, dict):
        raise ConfigError(f"{path}: expected a mapping of names to values, found {_kind(root)}.")
    return Config(root, str(path))


@dataclass
class _Frame:
    """A mapping or list under construction."""

    container: Any
    anchor: str | None = None
    key: Any = None
    has_key: bool = False

    def put(self, value: Any) -> None:
        if isinstance(self.container, list):
            self.container.append(value)
        elif self.has_key:
            self.container[self.key] = value
            self.has_key = False
        else:
            if not isinstance(value, (str, int, float)) and value is not None:
                raise ConfigError("The configuration has a mapping or list for a key.")
            if value == "<<":
                raise ConfigError("The configuration merges mappings with '<<', which is not supported.")
            if value in self.container:
                raise ConfigError(f"The configuration has the key {str(value)[:100]!r} twice in one mapping.")
            self.key, self.has_key = value, True


def _build(loader: Any) -> Any:
    # Built from events and without recursion: nesting cannot overflow the stack, a bomb is met while it is small.
    root = _Frame([])
    stack = [root]
    anchors: dict[str, Any] = {}
    aliases = nodes = 0
    while loader.check_event():
        event = loader.get_event()
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if nodes > MAX_NODES:
                raise ConfigError(f"The configuration has more than {MAX_NODES} values.")
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                raise ConfigError(f"The configuration has more than {MAX_ALIASES} aliases.")
            if event.anchor not in anchors:
                raise ConfigError(
                    f"The configuration uses the alias {str(event.anchor)[:100]!r} before it is complete."
                )
            stack[-1].put(anchors[event.anchor])
        elif isinstance(event, yaml.ScalarEvent):
            value = _scalar(loader, event)
            if event.anchor:
                anchors[event.anchor] = value
            stack[-1].put(value)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            _refuse_tag(event.tag)
            if len(stack) > MAX_DEPTH:
                raise ConfigError(f"The configuration nests deeper than {MAX_DEPTH} levels.")
            container: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            stack.append(_Frame(container, event.anchor))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            frame = stack.pop()
            if frame.anchor:  # only now, so that no value can contain itself
                anchors[frame.anchor] = frame.container
            stack[-1].put(frame.container)
    if len(root.container) > 1:
        raise ConfigError("The configuration holds more than one YAML document.")
    return root.container[0] if root.container else None


def _scalar(loader: Any, event: yaml.ScalarEvent) -> Any:
    _refuse_tag(event.tag)
    if len(event.value) > MAX_NUMBER:
        return event.value
    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    if tag not in _PLAIN:  # text; or a date, or the '=' and '<<' of old YAML: kept as it was written
        return event.value
    return loader.construct_object(yaml.ScalarNode(tag, event.value))


def _refuse_tag(tag: str | None) -> None:
    if tag not in (None, "!"):
        raise ConfigError(f"The configuration uses the YAML tag {tag[:100]!r}; tags are refused.")


# ${a.b}: a path of keys, absolute or (with leading dots) relative. ${name:...} would call a resolver.
_INTERPOLATION = re.compile(r"\$\{([^${}]*)\}")
_MAX_STRING = 1 << 16


class Config(Mapping[str, Any]):
    """A configuration whose interpolations are resolved where a value is asked for, and only then."""

    def __init__(self, root: dict[str, Any], where: str = "xp.cfg", text: str | None = None) -> None:
        self._root = root
        self._text = text
        self.where = where

    @classmethod
    def parse(cls, text: str, where: str = "xp.cfg") -> Config:
        """Read a configuration.

        Args:
            text: the YAML text.
            where: how messages name it.

        Raises:
            ConfigError: see :func:`parse_yaml`; or the text is not a mapping.
        """
        try:
            root = parse_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if not isinstance(root, dict) or not all(isinstance(key, str) for key in root):
            raise ConfigError(f"{where}: expected a mapping of names to values, found {_kind(root)}.")
        return cls(root, where, text)

    def to_yaml(self) -> str:
        """The YAML text that it was read from, or that OmegaConf makes of it; interpolations stand as they are."""
        if self._text is not None:
            return self._text
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(self._root))

    def __getitem__(self, path: str) -> Any:
        """The resolved value at a dotted path; ``KeyError`` where there is none."""
        return _Resolver(self._root, self.where).at(path.split("."))

    def get(self, path: str, default: Any = None) -> Any:
        """The resolved value at a dotted path, or ``default``."""
        try:
            return self[path]
        except KeyError:
            return default

    def __contains__(self, path: object) -> bool:
        try:
            self[str(path)]
        except KeyError:
            return False
        except ConfigError:  # it is there, though it cannot be resolved
            return True
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._root)

    def __len__(self) -> int:
        return len(self._root)

    def section(self, path: str, *, optional: bool = False) -> Section:
        """The mapping at ``path``, to take typed values from.

        Raises:
            ConfigError: there is none, or it is no mapping.
        """
        if not optional and path not in self:
            raise ConfigError(f"{self.where}: the section '{path}' is missing.{nearest(path, self._root)}")
        return self.top().take_section(path, None)

    def top(self) -> Section:
        """The whole configuration as a section; only what is taken from it is resolved."""
        return Section(self, "", self.where)


class _Resolver:
    """Looks values up, replacing interpolations, within a budget of visited values."""

    def __init__(self, root: dict[str, Any], where: str) -> None:
        self._root = root
        self._where = where
        self._budget = MAX_EXPANDED
        self._active: set[tuple[str, ...]] = set()
        self._depth = 0

    def at(self, path: list[str]) -> Any:
        node: Any = self._root
        for depth, key in enumerate(path):
            if isinstance(node, str):  # an interpolation that stands for a whole mapping
                node = self._resolve(node, path[:depth])
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and len(key) < 9 and int(key) < len(node):
                node = node[int(key)]
            else:
                raise KeyError(".".join(path))
        return self._resolve(node, path)

    def _resolve(self, value: Any, path: list[str]) -> Any:
        self._budget -= 1
        if self._budget < 0 or self._depth > 2 * MAX_DEPTH:
            raise ConfigError(f"{self._where}: interpolation makes the configuration too large.")
        self._depth += 1
        try:
            if isinstance(value, dict):
                return {key: self._resolve(child, [*path, str(key)]) for key, child in value.items()}
            if isinstance(value, list):
                return [self._resolve(child, [*path, str(i)]) for i, child in enumerate(value)]
            return self._interpolate(value, path) if isinstance(value, str) and "${" in value else value
        finally:
            self._depth -= 1

    def _interpolate(self, text: str, path: list[str]) -> Any:
        place = tuple(path)
        if place in self._active:
            raise ConfigError(f"{self._where}: {_name(path)} refers to itself through {text[:80]!r}.")
        self._active.add(place)
        while match := _INTERPOLATION.search(text):
            self._budget -= 1
            found = self._look_up(match.group(1).strip(), path)
            if match.span() == (0, len(text)):
                break
            if isinstance(found, (dict, list)):
                raise ConfigError(f"{self._where}: {text[:80]!r} puts {_kind(found)} inside a text.")
            if "${" in str(found) or len(text) > _MAX_STRING or self._budget < 0:
                raise ConfigError(f"{self._where}: {text[:80]!r} does not come to an end.")
            text = text[: match.start()] + str(found) + text[match.end() :]
        else:
            found = text
        self._active.discard(place)
        return found

    def _look_up(self, inner: str, path: list[str]) -> Any:
        if ":" in inner:
            raise ConfigError(
                f"{self._where}: {_name(path)} needs {f'${{{inner[:60]}}}'!r}, but nothing outside the "
                "configuration (environment, resolvers) is ever looked up. Write the value itself."
            )
        keys = inner.replace("[", ".").replace("]", "")
        dots = len(keys) - len(keys.lstrip("."))
        target = (path[:-dots] if dots else []) + keys.lstrip(".").split(".")
        try:
            return self.at(target)
        except KeyError:
            raise ConfigError(f"{self._where}: {_name(path)} refers to {inner[:60]!r}, which is not there.") from None


def _name(path: list[str]) -> str:
    return repr(".".join(path)[:100])


class Section:
    """Takes typed values out of a mapping, one by one, and complains about what is left."""

    def __init__(self, values: Mapping[str, Any], path: str, where: str) -> None:
        self._values = values
        self._path = path
        self._where = where
        self._taken: set[str] = set()

    def name(self, key: str) -> str:
        """The full dotted name of ``key``."""
        return f"{self._path}.{key}" if self._path else key

    def error(self, key: str, problem: str) -> ConfigError:
        """An error that names ``key`` and its place."""
        return ConfigError(f"{self._where}: {self.name(key)[:100]!r} {problem}")

    def has(self, key: str) -> bool:
        """Whether ``key`` is there and not null."""
        return self._values.get(key) is not None

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        """The raw value."""
        self._taken.add(key)
        value = self._values.get(key, _REQUIRED)
        if value is _REQUIRED or value == "???":
            if default is _REQUIRED:
                raise self.error(key, "is missing." + nearest(key, self._values))
            return default
        return value

    def take_int(self, key: str, default: Any = _REQUIRED, *, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number between ``low`` and ``high``."""
        return self._int(key, self.take(key, default), low, high)

    def take_optional_int(self, key: str, *, low: int = 1, high: int = MAX_SIZE) -> int | None:
        """A whole number, or ``None`` where there is none."""
        value = self.take(key, None)
        return None if value is None else self._int(key, value, low, high)

    def _int(self, key: str, value: Any, low: int, high: int) -> int:
        if type(value) is not int:
            raise self.error(key, f"should be a whole number, found {_kind(value)}.")
        if not low <= value <= high:
            raise self.error(key, f"is {str(value)[:40]}, expected {low} to {high}.")
        return value

    def take_float(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        low: float = -1e12,
        high: float = 1e12,
        above: float = -math.inf,
    ) -> float:
        """A finite number between ``low`` and ``high``, and greater than ``above``."""
        return self._float(key, self.take(key, default), low, high, above)

    def take_optional_float(self, key: str, *, low: float = -1e12, high: float = 1e12) -> float | None:
        """A finite number, or ``None`` where there is none."""
        value = self.take(key, None)
        return None if value is None else self._float(key, value, low, high, -math.inf)

    def _float(self, key: str, value: Any, low: float, high: float, above: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"should be a number, found {_kind(value)}.")
        if not low <= value <= high or value <= above:
            bound = f"more than {above:g} and at most" if above > low else f"{low:g} to"
            raise self.error(key, f"is {str(value)[:40]}, expected {bound} {high:g}.")
        return float(value)

    def take_bool(self, key: str, default: Any = _REQUIRED) -> bool:
        """``true`` or ``false``."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"should be true or false, found {_kind(value)}.")
        return value

    def take_str(self, key: str, default: Any = _REQUIRED, *, choices: tuple[str, ...] = ()) -> str:
        """A text, one of ``choices`` where they are given."""
        value = self.take(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"should be a text, found {_kind(value)}.")
        if choices and value not in choices:
            raise self.error(key, f"is {value[:60]!r}, expected one of {', '.join(choices)}.{nearest(value, choices)}")
        return value

    def take_ints(self, key: str, default: Any = _REQUIRED, *, low: int = 1, high: int = MAX_SIZE) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(self._int(key, value, low, high) for value in self._list(key, self.take(key, default)))

    def take_rates(self, key: str, default: Any = _REQUIRED, *, low: int = 2) -> tuple[int, ...]:
        """How much each block of a network shortens or lengthens a signal: 1 to 16 whole numbers."""
        rates = self.take_ints(key, default, low=low, high=MAX_RATE)
        if not 1 <= len(rates) <= MAX_BLOCKS:
            raise self.error(key, f"has {len(rates)} rates, expected 1 to {MAX_BLOCKS}.")
        return rates

    def take_strs(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """A list of texts."""
        values = self._list(key, self.take(key, default))
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, "should be a list of texts.")
        return tuple(values)

    def _list(self, key: str, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise self.error(key, f"should be a list, found {_kind(value)}.")
        return value

    def take_mapping(self, key: str, default: Any = _REQUIRED) -> dict[str, Any]:
        """A mapping of names to values; null counts as an empty one."""
        value = self.take(key, default)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(key, f"should be a mapping, found {_kind(value)}.")
        if not all(isinstance(name, str) for name in value):
            raise self.error(key, "should map names to values, but not all of its keys are texts.")
        return value

    def take_section(self, key: str, default: Any = _REQUIRED) -> Section:
        """A mapping, to take typed values from."""
        return Section(self.take_mapping(key, default), self.name(key), self._where)

    def rest(self) -> list[str]:
        """The keys that nothing took yet."""
        return [key for key in self._values if key not in self._taken]

    def finish(self) -> None:
        """Complain about keys that nothing took.

        Raises:
            ConfigError: there are some: they would change the model, and nothing here knows how.
        """
        unknown = self.rest()
        if unknown:
            raise self.error(unknown[0], "is not known." + nearest(unknown[0], self._taken))


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    text = names.get(type(value), type(value).__name__)
    return (
        f"{text} ({value[:60]!r})"
        if isinstance(value, str)
        else f"{text} ({value})"
        if isinstance(value, (bool, float))
        else text
    )
