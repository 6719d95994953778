"""Export packages between AudioCraft's own layout and its safetensors twin."""

from __future__ import annotations

import os
from pathlib import Path

from codecbay.errors import CodecbayError, PackageError
from codecbay.export import codec_fingerprint
from codecbay.factory import open_package, own_text_encoders, resolve_codec
from codecbay.lm.config import read_lm_config
from codecbay.package import CONFIG_FILE, Package, PackageFile
from codecbay.package.config import read_json
from codecbay.package.parts import Parts
from codecbay.package.writing import Contents
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
    read_parts(source).write(Path(out), format=format, overwrite=overwrite)
    return Path(out)


def push_package(
    source: Source | Package,
    repository: str,
    *,
    format: str = "safetensors",
    private: bool = False,
    licence: str | None = None,
) -> str:
    """Share a package on the Hugging Face Hub, with a model card.

    Args:
        source: a package; a codec's alone, or a language model's with its codec.
        repository: ``owner/name``; it is made where there is none.
        format: ``safetensors`` or ``audiocraft``.
        private: keep it private, if it is made now.
        licence: of the weights, for the card; that of the codec's spec, where none is given.

    Returns:
        The address of the commit.

    Raises:
        PackageError: the package cannot be read.
        SourceError: the Hub does not take it.
    """
    return read_parts(source).push(repository, format=format, private=private, licence=licence)


def read_parts(source: Source | Package) -> Parts:
    """What a package is made of, its own text encoders included.

    Raises:
        PackageError: the package cannot be read.
    """
    package = source if isinstance(source, Package) else _opened(source)
    if isinstance(package, PackageFile):
        return Parts({CODEC_FILE: _codec(package)}, (), str(package.header.path))
    codec = None if package.codec is None else _codec(package.codec.fetch(progress=True))
    lm = package.lm.fetch(progress=True)
    config = read_lm_config(lm.header)
    known = lm.header.codec_fingerprint or (None if codec is None else codec.fingerprint)
    files = {LM_FILE: Contents.of(lm, spec=config.spec.to_dict(), fingerprint=known)}
    if codec is not None:
        files[CODEC_FILE] = codec
    return Parts(files, tuple(own_text_encoders(package, config)), package.name)


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
        codec = resolve_codec(source).fetch(progress=True)
        if codec.file is None or codec.backend is None:
            raise
        if codec.file.header.layout != "audiocraft":
            raise PackageError(
                f"{codec.file.header.path}: only AudioCraft's layout is converted and pushed. This is a codec of the "
                f"back-end '{codec.backend.name}'; share its directory as it is."
            ) from None
        return codec.file


def _codec(file: PackageFile) -> Contents:
    if file.header.reference is not None:
        return Contents.of(file, spec={}, fingerprint=None)
    fingerprint = file.header.codec_fingerprint or codec_fingerprint(file)
    return Contents.of(file, spec=resolve_codec(file).spec.to_dict(), fingerprint=fingerprint)
