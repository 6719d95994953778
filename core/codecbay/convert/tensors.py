"""The tensors of a model, over one file or several, by the names that a converter knows them by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from codecbay.convert.names import Shapes
from codecbay.errors import ConfigError, PackageError, WeightsError
from codecbay.package import Config, Header
from codecbay.package.config import read_json
from codecbay.package.container import read_container
from codecbay.package.header import header_of
from codecbay.package.layouts import WEIGHT_FILES
from codecbay.package.safetensors_file import read_safetensors
from codecbay.package.weights import check_tensors, load_tensors
from codecbay.remote import AnyPath, RemotePath

_SHARD = re.compile(r"[\w-][\w.-]{0,200}\.(safetensors|bin)")
_MAX_SHARDS = 1000


@dataclass(frozen=True)
class Tensors:
    """Tensors that lie in files.

    Attributes:
        headers: of the files.
        names: which tensor of which file goes by a name.
    """

    headers: tuple[Header, ...]
    names: Mapping[str, tuple[int, str]]

    @classmethod
    def of(cls, *headers: Header) -> Tensors:
        """All tensors of some files, by the names they have there.

        Raises:
            WeightsError: two files have a tensor of the same name.
        """
        names: dict[str, tuple[int, str]] = {}
        for i, header in enumerate(headers):
            for name in header.tensors:
                if name in names:
                    raise WeightsError(f"{header.weights}: the tensor '{name}' is in another file, too.")
                names[name] = (i, name)
        return cls(headers, names)

    def renamed(self, rename: Callable[[str], str | None]) -> Tensors:
        """The same by other names, without those for which ``rename`` has none.

        Raises:
            WeightsError: two tensors come to the same name.
        """
        names: dict[str, tuple[int, str]] = {}
        for old, place in self.names.items():
            new = rename(old)
            if new is None:
                continue
            if new in names:
                raise WeightsError(f"{self.headers[0].path}: '{old}' and '{names[new][1]}' are the same tensor.")
            names[new] = place
        return Tensors(self.headers, names)

    def under(self, prefix: str) -> Tensors:
        """Those whose names start so, by the rest of their names."""
        return self.renamed(lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None)

    def without(self, prefix: str) -> Tensors:
        """Those whose names do not start so."""
        return self.renamed(lambda name: None if name.startswith(prefix) else name)

    def check(self, expected: Shapes) -> None:
        """Compare them with those that a configuration describes.

        Raises:
            WeightsError: some are missing, unexpected, of another shape, or not floating point; all are named.
        """
        found = {name: self.headers[i].tensors[stored] for name, (i, stored) in self.names.items()}
        check_tensors(replace(self.headers[0], tensors=found), expected)

    def fetch(self, *, progress: bool = False) -> Tensors:
        """The same on the disk.

        Raises:
            SourceError: a file cannot be fetched.
            PackageError: it is not what its header promised.
        """
        return Tensors(tuple(_fetched(header, progress) for header in self.headers), self.names)

    def load(self) -> dict[str, Tensor]:
        """The tensors, on the CPU, memory-mapped.

        Raises:
            PackageError: a file cannot be read.
            WeightsError: a tensor holds NaN or infinity.
        """
        loaded = [load_tensors(header) for header in self.headers]
        return {name: loaded[i][stored] for name, (i, stored) in self.names.items()}


def _fetched(header: Header, progress: bool) -> Header:
    if not isinstance(header.weights, RemotePath):
        return header
    local = _read_file(header.weights.fetch(progress=progress), header.config)
    if local.tensors != header.tensors:
        raise PackageError(f"{header.weights}: this file changed while it was fetched. Try again.")
    return local


def read_directory(path: AnyPath, config: Config) -> Tensors:
    """The tensors of a directory that transformers saved a model in, in one file or in shards.

    Raises:
        PackageError: there are none, or a file is damaged.
    """
    return Tensors.of(*(_read_file(file, config) for file in _weight_files(path)))


def _read_file(file: AnyPath, config: Config) -> Header:
    container = read_safetensors(file) if file.suffix == ".safetensors" else read_container(file)
    if not isinstance(container.root, dict) or not all(isinstance(key, str) for key in container.root):
        raise PackageError(f"{file}: expected a dictionary of tensors, found {type(container.root).__name__}.")
    return header_of(file, "transformers", "codec", config, file, container)


def _weight_files(path: AnyPath) -> Iterator[AnyPath]:
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            yield path / name
            return
        index = path / f"{name}.index.json"
        if index.is_file():
            yield from _shards(path, index)
            return
    raise PackageError(f"{path}: there are no weights: neither {' nor '.join(WEIGHT_FILES)}, whole or in shards.")


def _shards(path: AnyPath, index: AnyPath) -> list[AnyPath]:
    places: dict[str, Any] = read_json(index).top().take_mapping("weight_map")
    files = sorted({str(file) for file in places.values()})
    if not 1 <= len(files) <= _MAX_SHARDS:
        raise ConfigError(f"{index}: 'weight_map' names {len(files)} files, expected 1 to {_MAX_SHARDS}.")
    for file in files:
        if not _SHARD.fullmatch(file):
            raise ConfigError(f"{index}: {file[:100]!r} is no name of a file of weights in the same directory.")
        if not (path / file).is_file():
            raise PackageError(f"{path / file}: this file is missing, which {index.name} names.")
    return [path / file for file in files]
