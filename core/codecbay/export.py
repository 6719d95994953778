"""Export packages from AudioCraft's training checkpoints, in AudioCraft's own layout: its loaders read them too.

A package is a file that ``torch.save`` wrote, with the keys ``best_state`` (tensors), ``xp.cfg`` (YAML text),
``version`` and ``exported``; or a reference, with ``pretrained`` in place of the first two. Beside them, packages
written here hold ``codec_fingerprint``: of the codec itself, or of the codec that a language model was trained on.
"""

from __future__ import annotations

import os
from pathlib import Path

from codecbay.errors import PackageError, SourceError
from codecbay.factory import resolve_codec
from codecbay.files import make_parents, written_whole
from codecbay.lm.config import read_lm_config
from codecbay.package import Header, PackageFile
from codecbay.package.checkpoint import read_checkpoint
from codecbay.package.writing import Contents, write_bin
from codecbay.registry import get_registry
from codecbay.sources import CODEC_FILE, LM_FILE

Source = str | os.PathLike[str]
NAMES = {"lm": "a language model", "codec": "a codec"}
AUDIOCRAFT_NAMES = ("dac_44khz", "dac_24khz")  # of codecs that AudioCraft does not take from the Hub


def export_lm(checkpoint: Source, out: Source, *, codec: Source | None = None, overwrite: bool = False) -> Path:
    """Write the best language model of a training checkpoint as an export package.

    Args:
        checkpoint: of AudioCraft's trainer, ``checkpoint.th``.
        out: the file to write, or a directory to write ``state_dict.bin`` into.
        codec: the codec that the model was trained on, a package; by default the one beside ``out``. Its fingerprint is
            recorded, so that the check can tell it from others.
        overwrite: take the place of a file that is there.

    Returns:
        The file.

    Raises:
        PackageError: the checkpoint or the codec cannot be read, or is not what it should be.
        OutputError: the file cannot be written, or is there already.
    """
    path = _target(out, LM_FILE)
    header = _read(checkpoint, "lm")
    read_lm_config(header)
    beside = path.parent / CODEC_FILE
    source = beside if codec is None and beside.is_file() else codec
    return _write(path, header, None if source is None else codec_fingerprint(source), overwrite)


def export_codec(checkpoint: Source, out: Source, *, overwrite: bool = False) -> Path:
    """Write the best codec of a training checkpoint as an export package.

    Args:
        checkpoint: of AudioCraft's trainer, ``checkpoint.th``.
        out: the file to write, or a directory to write ``compression_state_dict.bin`` into.
        overwrite: take the place of a file that is there.

    Returns:
        The file.

    Raises:
        PackageError: the checkpoint cannot be read, or is not what it should be; it is built to find out.
        OutputError: the file cannot be written, or is there already.
    """
    path = _target(out, CODEC_FILE)
    header = _read(checkpoint, "codec")
    return _write(path, header, _built_fingerprint(PackageFile(header)), overwrite)


def export_pretrained_codec(source: Source, out: Source, *, overwrite: bool = False) -> Path:
    """Write the codec of a package: a reference where it is published, a copy where it is a file.

    Of a file in another layout than AudioCraft's, a reference is written, too, if a registry has a name for it: the
    package is then good wherever that name is known.

    Args:
        source: the name of a codec, or a package that holds one, such as :func:`export_codec` writes.
        out: the file to write, or a directory to write ``compression_state_dict.bin`` into.
        overwrite: take the place of a file that is there.

    Returns:
        The file.

    Raises:
        SourceError: there is no such package, and no codec is published by that name.
        PackageError: it cannot be read, or is no codec in AudioCraft's layout.
        OutputError: the file cannot be written, or is there already.
    """
    path = _target(out, CODEC_FILE)
    resolved = resolve_codec(source)
    if resolved.reference is not None:
        return _save(path, Contents({}, reference=_known_as(resolved.reference)), overwrite)
    file = resolved.file
    if file is None or file.header.layout != "audiocraft":
        if resolved.registered is not None:
            return _save(path, Contents({}, reference=resolved.registered), overwrite)
        raise PackageError(
            f"{os.fspath(source)}: only a codec in AudioCraft's layout can become a part of an export package. "
            "Of any other, a reference can be written: give the name that a registry file has for it."
        )
    return _write(path, file.header, _built_fingerprint(file), overwrite)


def codec_fingerprint(source: Source | PackageFile) -> str | None:
    """The fingerprint of a codec package; ``None`` for a reference to a codec that is not at hand.

    Raises:
        PackageError: there is no such package, or it cannot be built.
    """
    file = resolve_codec(source).file
    return None if file is None else file.header.codec_fingerprint or _built_fingerprint(file)


def _read(checkpoint: Source, role: str) -> Header:
    path = Path(checkpoint)
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file. Give AudioCraft's training checkpoint, checkpoint.th.")
    header = read_checkpoint(path)
    if header.role != role:
        call = {"lm": "export_lm", "codec": "export_codec"}[header.role]
        raise PackageError(f"{path}: this is the checkpoint of {NAMES[header.role]}, not of {NAMES[role]}. Use {call}.")
    return header


def _target(out: Source, name: str) -> Path:
    path = Path(out)
    return path / name if path.is_dir() or os.fspath(out).endswith(os.sep) else path


def _known_as(reference: str) -> str:
    """The name by which AudioCraft knows a published codec, where it does; else where it is published."""
    entry = get_registry().find("codec", reference)
    if entry is None:
        return reference
    return next((name for name in entry.aliases if name in AUDIOCRAFT_NAMES), entry.source)


def _built_fingerprint(file: PackageFile) -> str:
    import torch

    return resolve_codec(file).build(torch.device("cpu"), torch.float32).fingerprint()


def _write(path: Path, header: Header, fingerprint: str | None, overwrite: bool) -> Path:
    return _save(path, Contents.of(PackageFile(header), spec={}, fingerprint=fingerprint), overwrite)


def _save(path: Path, contents: Contents, overwrite: bool) -> Path:
    make_parents(path)
    with written_whole(path, overwrite=overwrite) as temporary:
        write_bin(contents, temporary)
    return path
