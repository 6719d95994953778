"""The safetensors twin of a package file: the same tensors and configuration, in a file that holds no pickle.

It is a safetensors file (https://github.com/huggingface/safetensors#format) whose metadata hold what an export package
has beside its tensors (``xp.cfg``, ``version``, ``codec_fingerprint``; or ``pretrained``, for a reference), and

- ``format``: ``codecbay.package.1``;
- ``checksums``: the CRC-32 of each tensor's bytes, as JSON, because safetensors has none;
- ``spec``: what the check compares, as JSON, for whoever reads the file without codecbay;
- ``source``: what the file was converted from, if it was: its name and digest, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import zlib

from codecbay.package.header import Header


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
