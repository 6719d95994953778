"""Discovery of plugins: every one is accounted for, and a broken one is a row in a table, not a crash.

pluggy's own loader stops at the first broken plugin and silently drops the second of two that share a name;
hence this one. Built-in plugins come in through the same entry points as everyone else's.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from codecbay import __version__
from codecbay.errors import CodecbayError, PluginError, nearest
from codecbay.hookspecs import API_VERSION, Backend, Hooks
from codecbay.spec import CodecSpec, facts

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec
    from codecbay.lm.conditioners import Conditioner, ConditionerContext, ConditionerFactory
    from codecbay.package import Header, PackageFile, Section

GROUP = "codecbay.plugins"
ENV = "CODECBAY_PLUGINS"
HOOKS = tuple(name for name in vars(Hooks) if name.startswith("codecbay_"))
OWN_CONDITIONERS = ("t5", "lut", "chroma_stem")  # kinds that codecbay.lm.conditioners brings


@dataclass(frozen=True)
class PluginInfo:
    """One plugin that was found.

    Attributes:
        name: of its entry point.
        module: that the entry point names.
        distribution: that brings it, with its version.
        state: ``loaded``, ``disabled`` (by ``CODECBAY_PLUGINS``) or ``failed``.
        error: why it failed.
        backends: names of the back-ends it brings.
        requires: distributions that its back-ends need.
        registries: registry files it brings.
        conditioners: names of the kinds of conditioners it brings.
    """

    name: str
    module: str
    distribution: str
    state: str
    error: str | None = None
    backends: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    conditioners: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return facts(self)


@dataclass
class Plugins:
    """All plugins that were found, and what the loaded ones bring.

    Attributes:
        infos: of every plugin, sorted by name.
        backends: by name.
        owners: the plugin that brings a back-end, by the back-end's name.
        registries: registry files, with the plugin that brings them.
        conditioners: kinds of conditioners.
    """

    infos: list[PluginInfo] = field(default_factory=list)
    backends: dict[str, Backend] = field(default_factory=dict)
    owners: dict[str, PluginInfo] = field(default_factory=dict)
    registries: list[tuple[PluginInfo, Path]] = field(default_factory=list)
    conditioners: list[ConditionerFactory] = field(default_factory=list)

    @property
    def failures(self) -> list[PluginInfo]:
        """The plugins that failed."""
        return [info for info in self.infos if info.state == "failed"]

    def failure_hint(self) -> str:
        """A sentence that names failed plugins, to append to a message; empty where none failed."""
        if not self.failures:
            return ""
        names = ", ".join(f"{info.name} ({info.error})" for info in self.failures)
        return f" These plugins failed to load: {names}. See 'codecbay plugins'."


def get_plugins() -> Plugins:
    """The plugins of this environment, found once."""
    return _cached(os.environ.get(ENV))


@lru_cache(maxsize=8)
def _cached(allowed: str | None) -> Plugins:
    return load_plugins(entry_points(group=GROUP), allowed)


def load_plugins(points: Iterable[EntryPoint], allowed: str | None = None) -> Plugins:
    """Load plugins, keeping an account of every one.

    Args:
        points: the entry points to load.
        allowed: names to load, separated by commas; all where it is ``None``.
    """
    manager = pluggy.PluginManager("codecbay")
    manager.add_hookspecs(Hooks)
    by_name: dict[str, list[EntryPoint]] = {}
    for point in points:
        found = by_name.setdefault(point.name, [])
        if all((point.value, _distribution(point)) != (p.value, _distribution(p)) for p in found):
            found.append(point)
    wanted = None if allowed is None else {name.strip() for name in allowed.split(",") if name.strip()}
    plugins = Plugins()
    for name in sorted(by_name):
        same = by_name[name]
        if wanted is not None and name not in wanted:
            plugins.infos += [_info(point, "disabled") for point in same]
        elif len(same) > 1:
            both = " and ".join(f"{p.value} of {_distribution(p)}" for p in same)
            error = f"the name is claimed by {both}; uninstall one, or neither is loaded"
            plugins.infos += [_info(point, "failed", error) for point in same]
        else:
            _load(same[0], manager, plugins)
    for name in sorted((wanted or set()) - set(by_name)):
        error = f"{ENV} names it, but no such plugin is installed.{nearest(name, by_name)}"
        plugins.infos.append(PluginInfo(name, "", "", "failed", error))
    return plugins


def _load(point: EntryPoint, manager: pluggy.PluginManager, plugins: Plugins) -> None:
    try:
        module = point.load()
        _check_version(module, point)
        _check_hooks(module)
        manager.register(module, point.name)
        owner = _distribution(point)
        backends = [_Guarded(_checked(b), owner) for b in _collect(manager, module, "codecbay_backends")]
        registries = [_path(path) for path in _collect(manager, module, "codecbay_registry")]
        conditioners = [
            _GuardedKind(_checked_kind(c), owner) for c in _collect(manager, module, "codecbay_conditioners")
        ]
        info = _info(
            point,
            "loaded",
            backends=tuple(backend.name for backend in backends),
            requires=tuple(sorted({name for backend in backends for name in backend.requires})),
            registries=tuple(str(path) for path in registries),
            conditioners=tuple(kind.name for kind in conditioners),
        )
        _check_names(info, plugins)
    except (Exception, SystemExit) as error:  # a plugin is someone else's code: anything can come out of it
        if manager.has_plugin(point.name):
            manager.unregister(name=point.name)
        plugins.infos.append(_info(point, "failed", f"{type(error).__name__}: {error}{_install_hint(error, point)}"))
        return
    plugins.infos.append(info)
    for backend in backends:
        plugins.backends[backend.name] = backend
        plugins.owners[backend.name] = info
    plugins.registries += [(info, path) for path in registries]
    plugins.conditioners += conditioners


def _check_version(module: Any, point: EntryPoint) -> None:
    version = getattr(module, "CODECBAY_API", None)
    if version == API_VERSION:
        return
    if type(version) is not int:
        found = "does not say" if version is None else f"says with CODECBAY_API = {version!r:.40}, which is no number,"
        raise PluginError(f"it {found} for which plugin interface it is written: write CODECBAY_API = {API_VERSION}")
    old = "codecbay" if version > API_VERSION else _package_name(point)
    raise PluginError(
        f"it is written for version {version} of the plugin interface (CODECBAY_API), and codecbay {__version__} has "
        f"version {API_VERSION}. Upgrade the older one: pip install --upgrade {old}"
    )


def _check_hooks(module: Any) -> None:
    """Refuse what would never be called: another name, no marker, arguments; and a plugin without any hook."""
    found = False
    for name in dir(module):
        function = getattr(module, name, None)
        if not inspect.isroutine(function):
            continue
        marked = hasattr(function, "codecbay_impl")
        if name in HOOKS and not marked:
            raise PluginError(f"its {name} lacks the marker @hookimpl")
        if name not in HOOKS and (marked or (name.startswith("codecbay_") and nearest(name, HOOKS))):
            raise PluginError(f"it has an unknown hook '{name}'.{nearest(name, HOOKS)} Hooks are {', '.join(HOOKS)}")
        if marked and inspect.signature(function).parameters:
            raise PluginError(f"its hook {name}{inspect.signature(function)} has arguments, and hooks take none")
        found |= marked
    if not found:
        raise PluginError(f"it implements no hook: mark a function with @hookimpl. Hooks are {', '.join(HOOKS)}")


def _collect(manager: pluggy.PluginManager, module: Any, hook: str) -> list[Any]:
    """What one plugin returns from one hook."""
    for impl in getattr(manager.hook, hook).get_hookimpls():
        if impl.plugin is module:
            function: Callable[[], Iterable[Any]] = impl.function
            try:
                result = function()
                if isinstance(result, Iterable) and not isinstance(result, (str, bytes)):
                    return list(result)
            except Exception as error:
                raise PluginError(f"its {hook} failed: {type(error).__name__}: {error}") from error
            raise PluginError(f"its {hook} returned {result!r:.80}, where a list is expected")
    return []


def _check_names(info: PluginInfo, plugins: Plugins) -> None:
    """Refuse a plugin that brings what another brings by the same name."""
    for field_name, what, own in (
        ("backends", "a back-end", ()),
        ("conditioners", "a kind of conditioners", OWN_CONDITIONERS),
    ):
        names = getattr(info, field_name)
        for i, name in enumerate(names):
            owners = [f"{o.name} ({o.distribution})" for o in plugins.infos if name in getattr(o, field_name)]
            if owners or name in own:
                raise PluginError(f"it brings {what} '{name}', which {[*owners, 'codecbay'][0]} brings already")
            if name in names[:i]:
                raise PluginError(f"it brings {what} '{name}' twice")


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise PluginError(f"a registry file of it ({path!r:.80}) is no path")
    return Path(path)


def _checked(backend: Any) -> Backend:
    problems = _problems(backend, "claims", "spec", "build")
    requires = getattr(backend, "requires", None)
    if not isinstance(requires, (tuple, list)) or not all(isinstance(name, str) for name in requires):
        problems.append("its requires is no tuple of texts")
    if problems:
        raise PluginError(f"a back-end of it ({backend!r:.80}) is none: {', '.join(problems)}")
    result: Backend = backend
    return result


def _checked_kind(kind: Any) -> ConditionerFactory:
    problems = _problems(kind, "build")
    if problems:
        raise PluginError(f"a kind of conditioners of it ({kind!r:.80}) is none: {', '.join(problems)}")
    result: ConditionerFactory = kind
    return result


def _problems(found: Any, *methods: str) -> list[str]:
    problems = []
    if isinstance(found, type):
        problems.append("it is a class, not an instance")
    if not (isinstance(getattr(found, "name", None), str) and found.name):
        problems.append("it has no name")
    return problems + [f"it has no {name}()" for name in methods if not callable(getattr(found, name, None))]


class _Guarded:
    """A back-end whose failures name the plugin they come from."""

    def __init__(self, backend: Backend, distribution: str) -> None:
        self._backend = backend
        self._distribution = distribution
        self.name = backend.name
        self.requires = tuple(backend.requires)

    def claims(self, header: Header) -> bool:
        """Whether the back-end claims a package; one that fails to answer does not."""
        try:
            return bool(self._backend.claims(header))
        except CodecbayError:  # about the package, not about the back-end
            raise
        except Exception as error:
            warnings.warn(str(self._failure("claims", error)), stacklevel=2)
            return False

    def spec(self, header: Header) -> CodecSpec:
        """What the back-end says the codec is."""
        spec = self._call("spec", lambda: self._backend.spec(header))
        if not isinstance(spec, CodecSpec):
            raise self._failure("spec", TypeError(f"it returned {type(spec).__name__}, no CodecSpec"))
        return spec

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec that the back-end builds."""
        codec: Codec = self._call("build", lambda: self._backend.build(file, device=device, dtype=dtype))
        return codec

    def _call(self, method: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except CodecbayError:
            raise
        except Exception as error:
            raise self._failure(method, error) from error

    def _failure(self, method: str, error: Exception) -> PluginError:
        needs = " ".join(self.requires) if isinstance(error, ImportError) else ""
        return PluginError(
            f"The back-end '{self.name}' ({self._distribution}) failed in {method}(): {type(error).__name__}: {error}"
            + (f". Install what it needs: pip install {needs}" if needs else "")
        )


class _GuardedKind:
    """A kind of conditioners whose failures name the plugin they come from."""

    def __init__(self, kind: ConditionerFactory, distribution: str) -> None:
        self._kind = kind
        self._distribution = distribution
        self.name = kind.name

    def build(self, arguments: Section, context: ConditionerContext) -> Conditioner:
        """The conditioner that the plugin builds."""
        try:
            return self._kind.build(arguments, context)
        except CodecbayError:
            raise
        except Exception as error:
            raise PluginError(
                f"The conditioner '{context.name}' of the kind '{self.name}' ({self._distribution}) cannot be built: "
                f"{type(error).__name__}: {error}"
            ) from error


@contextmanager
def named_failure(what: str) -> Iterator[None]:
    """Say what failed, of code that is a plugin's, where anything can come out of it.

    Args:
        what: failed, such as ``The codec 'x' failed in encode``.

    Raises:
        PluginError: it did.
    """
    try:
        yield
    except (CodecbayError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
            raise
        raise PluginError(f"{what}: {type(error).__name__}: {error}") from error


def _info(point: EntryPoint, state: str, error: str | None = None, **more: Any) -> PluginInfo:
    return PluginInfo(point.name, point.value, _distribution(point), state, error, **more)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown distribution"


def _package_name(point: EntryPoint) -> str:
    return point.name if point.dist is None else point.dist.name


def _install_hint(error: BaseException, point: EntryPoint) -> str:
    """What installs a library that a plugin could not import: pip looks at the needs of what is installed, too."""
    missing = isinstance(error, ModuleNotFoundError)
    return f". Install what {point.name} needs: pip install {_package_name(point)}" if missing else ""


def find_backend(header: Header, backends: Mapping[str, Backend]) -> Backend | None:
    """The back-end that claims a package, or ``None``.

    Raises:
        PluginError: two claim it.
    """
    claiming = [backend for backend in backends.values() if backend.claims(header)]
    if len(claiming) > 1:
        names = " and ".join(f"'{backend.name}'" for backend in claiming)
        raise PluginError(
            f"{header.path}: the back-ends {names} both claim this package. Choose the plugins to load with {ENV}."
        )
    return claiming[0] if claiming else None
