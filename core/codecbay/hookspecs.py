"""The hooks that plugins implement. Hooks return data; who said what is remembered by :mod:`codecbay.plugins`.

A plugin is a module, registered under the entry-point group ``codecbay.plugins``, that declares
``CODECBAY_API = 1`` and implements at least one of these hooks with :data:`hookimpl`. See ``docs/plugins/hooks.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec
    from codecbay.lm.conditioners import ConditionerFactory
    from codecbay.package import Header, PackageFile
    from codecbay.spec import CodecSpec

API_VERSION = 1

hookspec = pluggy.HookspecMarker("codecbay")
hookimpl = pluggy.HookimplMarker("codecbay")


class Backend(Protocol):
    """Turns codec packages of one kind into codecs.

    Attributes:
        name: of the kind, such as ``encodec``; unique among all plugins.
        requires: distributions it needs beyond those of codecbay, for listings and hints.
    """

    name: str
    requires: tuple[str, ...]

    def claims(self, header: Header) -> bool:
        """Whether this back-end builds the package; answered from the header alone, without torch.

        Every back-end is asked about every codec package, of any layout, and about references, which have nothing but
        a name. At most one may claim it. What it raises counts as no, with a warning.
        """
        ...

    def spec(self, header: Header) -> CodecSpec:
        """What the codec is, with all its codebooks in use; from the header alone, without torch.

        Only asked about packages that :meth:`claims` claimed.

        Raises:
            PackageError: the header contradicts itself.
        """
        ...

    def build(self, file: PackageFile, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """The codec, in evaluation mode, with all its codebooks in use.

        Args:
            file: a package that :meth:`claims` claimed.
            device: where it shall live.
            dtype: of its parameters.

        Raises:
            PackageError: the package does not hold what its header promises.
            MissingDependencyError: a library is not there.
        """
        ...


class Hooks:
    """All hooks, for :class:`pluggy.PluginManager`. Each is called once, when plugins are loaded."""

    @hookspec
    def codecbay_backends(self) -> Iterable[Backend]:  # type: ignore[empty-body]
        """The codec back-ends that the plugin brings."""

    @hookspec
    def codecbay_registry(self) -> Iterable[Path]:  # type: ignore[empty-body]
        """More registry files, in the format of ``registry.toml``."""

    @hookspec
    def codecbay_conditioners(self) -> Iterable[ConditionerFactory]:  # type: ignore[empty-body]
        """Kinds of conditioners for language models, beside the built-in ones."""
