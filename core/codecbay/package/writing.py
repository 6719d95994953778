"""Package files, written: in AudioCraft's own layout, or as its safetensors twin (:mod:`codecbay.package.twin`)."""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codecbay.package.files import PackageFile, read_package_file
from codecbay.package.layouts import TWIN_FORMAT
from codecbay.package.twin import digest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Contents:
    """What a package file is made of.

    Attributes:
        tensors: by name.
        config: the text of ``xp.cfg``; ``None`` for a reference.
        reference: the name of a published codec, for a reference.
        version: of the program that exported the package first.
        fingerprint: of the codec, or of the one that the language model was trained on, where it is known.
        spec: what the check compares, for whoever reads a twin without codecbay.
        source: name and digest of the file that this was read from.
    """

    tensors: Mapping[str, Tensor]
    config: str | None = None
    reference: str | None = None
    version: str = field(default_factory=lambda: f"codecbay-{version('codecbay')}")
    fingerprint: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    source: tuple[str, str] | None = None

    @classmethod
    def of(cls, file: PackageFile, *, spec: Mapping[str, Any], fingerprint: str | None) -> Contents:
        """What a file in AudioCraft's layout holds, read.

        Raises:
            PackageError: its tensors cannot be read.
        """
        header = file.header
        facts: dict[str, Any] = {} if header.version is None else {"version": header.version}
        if header.container == "safetensors":
            source = header.source
        else:
            source = (header.part or header.path.name, digest(header))
        if header.reference is not None:
            return cls({}, reference=header.reference, source=source, spec=spec, **facts)
        text = header.config.to_yaml()
        return cls(file.tensors(progress=True), text, fingerprint=fingerprint, spec=spec, source=source, **facts)


def write_bin(contents: Contents, path: Path) -> None:
    """Write a file as AudioCraft's exports do: ``torch.save`` of a dictionary.

    Raises:
        OSError: the file cannot be written.
        PackageError: what was written cannot be read again.
    """
    import torch

    from codecbay.package.weights import compact

    root: dict[str, Any]
    if contents.reference is not None:
        root = {"pretrained": contents.reference, "exported": True, "version": contents.version}
    else:
        tensors = OrderedDict(compact(contents.tensors))
        root = {"best_state": tensors, "xp.cfg": contents.config, "version": contents.version, "exported": True}
        if contents.fingerprint is not None:
            root["codec_fingerprint"] = contents.fingerprint
    with path.open("wb") as stream:  # opened here: torch's own errors do not tell of a full disk
        torch.save(root, stream)
    read_package_file(path)


def write_twin(contents: Contents, path: Path) -> None:
    """Write a safetensors twin.

    Raises:
        OSError: the file cannot be written.
        PackageError: what was written cannot be read again.
    """
    from codecbay.package.weights import compact

    tensors = compact(contents.tensors)
    facts = {
        "format": TWIN_FORMAT,
        "version": contents.version,
        "spec": json.dumps(dict(contents.spec)),
        "checksums": json.dumps({name: zlib.crc32(_bytes(tensor)) for name, tensor in tensors.items()}),
    }
    if contents.source is not None:
        name, of_source = contents.source
        facts["source"] = json.dumps({"file": name, "digest": of_source})
    for key, value in (
        ("xp.cfg", contents.config),
        ("pretrained", contents.reference),
        ("codec_fingerprint", contents.fingerprint),
    ):
        if value is not None:
            facts[key] = value
    write_safetensors(tensors, path, facts)
    read_package_file(path)


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, facts: dict[str, str]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, facts)
    except SafetensorError as error:  # a full disk, for one
        raise OSError(str(error)) from None
    path.chmod(0o644)  # the library leaves it to its owner alone


def _bytes(tensor: Tensor) -> bytes:
    import torch

    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().data  # type: ignore[return-value]


WRITERS: dict[str, tuple[str, Callable[[Contents, Path], None]]] = {
    "audiocraft": (".bin", write_bin),
    "safetensors": (".safetensors", write_twin),
}
