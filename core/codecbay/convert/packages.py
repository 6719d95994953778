"""Export packages between AudioCraft's own layout and its safetensors twin."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from codecbay.errors import CodecbayError, nearest
from codecbay.export import codec_fingerprint
from codecbay.factory import open_package, own_text_encoders, resolve_codec
from codecbay.files import written_directory
from codecbay.lm.config import read_lm_config
from codecbay.package import CONFIG_FILE, Package, PackageFile
from codecbay.package.config import read_json
from codecbay.package.writing import WRITERS, Contents
from codecbay.sources import CODEC_FILE, LM_FILE, is_transformers_codec, locate

Source = str | os.PathLike[str]


def convert_package(source: Source | Package, out: Source, *, format: str, overwrite: bool = False) -> Path:
    """Write a package in another layout; weights and configuration stay what they are, to the last bit.

    Args:
        source: a package; a codec's alone, or a language model's with its codec.
        out: the directory to write.
        format: ``safetensors`` or ``audiocraft``.
        overwrite: take the place of a directory that is there.

    Returns:
        The directory.

    Raises:
        PackageError: the package cannot be read.
        OutputError: the directory cannot be written, or is there already.
    """
    if format not in WRITERS:
        raise CodecbayError(f"format={format!r} is not one of {', '.join(WRITERS)}.{nearest(format, WRITERS)}")
    parts, beside = read_parts(source)
    with written_directory(Path(out), overwrite=overwrite) as directory:
        convert_parts(parts, beside, directory, format)
    return Path(out)


def convert_parts(parts: Mapping[str, Contents], beside: Iterable[Path], directory: Path, format: str) -> None:
    """Write the files of a package, and copies of the directories that belong beside them."""
    ending, write = WRITERS[format]
    for name, contents in parts.items():
        write(contents, (directory / name).with_suffix(ending))
    for folder in beside:
        shutil.copytree(folder, directory / folder.name)


def read_parts(source: Source | Package) -> tuple[dict[str, Contents], list[Path]]:
    """What the files of a package are made of, by their names in AudioCraft's layout; and its own text encoders.

    Raises:
        PackageError: the package cannot be read.
    """
    package = source if isinstance(source, Package) else _opened(source)
    if isinstance(package, PackageFile):
        return {CODEC_FILE: _codec(package)}, []
    codec = None if package.codec is None else _codec(package.codec.fetch(progress=True))
    lm = package.lm.fetch(progress=True)
    config = read_lm_config(lm.header)
    known = lm.header.codec_fingerprint or (None if codec is None else codec.fingerprint)
    parts = {LM_FILE: Contents.of(lm, spec=config.spec.to_dict(), fingerprint=known)}
    return (parts if codec is None else {**parts, CODEC_FILE: codec}), own_text_encoders(package, config)


def is_transformers_model(source: Source) -> bool:
    """Whether there is a MusicGen in the transformers library's layout, and no export package."""
    path = locate(source)
    if path is None or not is_transformers_codec(path):
        return False
    return str(read_json(path / CONFIG_FILE).get("model_type")).startswith("musicgen")


def _opened(source: Source) -> Package | PackageFile:
    """A model's package; or, where that is what is there, a codec's."""
    try:
        return open_package(source)
    except CodecbayError:
        file = resolve_codec(source).fetch(progress=True).file
        if file is None or file.header.layout != "audiocraft":
            raise
        return file


def _codec(file: PackageFile) -> Contents:
    if file.header.reference is not None:
        return Contents.of(file, spec={}, fingerprint=None)
    fingerprint = file.header.codec_fingerprint or codec_fingerprint(file)
    return Contents.of(file, spec=resolve_codec(file).spec.to_dict(), fingerprint=fingerprint)
