"""The safetensors twin of a package file: the same tensors and configuration, in a file that holds no pickle.

It is a safetensors file (https://github.com/huggingface/safetensors#format) whose metadata hold what an export package
has beside its tensors (``xp.cfg``, ``version``, ``codec_fingerprint``; or ``pretrained``, for a reference), and

- ``format``: ``codecbay.package.1``;
- ``checksums``: the CRC-32 of each tensor's bytes, as JSON, because safetensors has none;
- ``spec``: what the check compares, as JSON, for whoever reads the file without codecbay;
- ``source``: what the file was converted from: its name and digest, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codecbay.package.files import PackageFile
from codecbay.package.header import Header
from codecbay.package.layouts import TWIN_FORMAT


def digest(header: Header) -> str:
    """A hash of what a package file holds: its configuration, and of each tensor the name, shape, dtype and checksum.

    Known from the header alone where the file has checksums; else its tensors are read.
    """
    checksums = {key: block.crc for key, block in header.blocks.items()}
    if None in checksums.values():
        with header.weights.open("rb") as stream:
            for key, block in header.blocks.items():
                stream.seek(block.offset)
                checksums[key] = zlib.crc32(stream.read(block.size))
    tensors = [
        [name, info.dtype, info.shape, info.stride, info.offset, checksums[info.block]]
        for name, info in sorted(header.tensors.items())
    ]
    facts = [header.reference, header.config.to_yaml(), tensors]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def write_twin(file: PackageFile, path: Path, *, spec: Mapping[str, Any], fingerprint: str | None) -> None:
    """Write the twin of a package file in AudioCraft's layout.

    Args:
        file: of the package.
        path: to write to.
        spec: what the check compares.
        fingerprint: of the codec, or of the one that the language model was trained on, where it is known.

    Raises:
        PackageError: the package's tensors cannot be read.
    """
    from safetensors.torch import save_file

    from codecbay.package.weights import compact

    header = file.header
    tensors = compact(file.tensors())
    facts = {
        "format": TWIN_FORMAT,
        "source": json.dumps({"file": header.path.name, "digest": digest(header)}),
        "spec": json.dumps(dict(spec)),
        "checksums": json.dumps({name: zlib.crc32(_bytes(tensor)) for name, tensor in tensors.items()}),
    }
    if header.reference is None:
        facts["xp.cfg"] = header.config.to_yaml()
    else:
        facts["pretrained"] = header.reference
    for name, value in (("version", header.version), ("codec_fingerprint", fingerprint)):
        if value is not None:
            facts[name] = value
    save_file(tensors, path, facts)


def _bytes(tensor: Any) -> memoryview:
    import torch

    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
