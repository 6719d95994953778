"""The central factory: the one place where sources, packages, back-ends and the check come together.

Order is everything: files are found, headers read, codec and language model compared; only then is a weight read.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from codecbay import compat, sources
from codecbay.compat import Report
from codecbay.errors import (
    CodecbayError,
    IncompatibleError,
    PackageError,
    PluginError,
    SourceError,
    UnresolvedReferenceError,
)
from codecbay.hookspecs import Backend
from codecbay.lm.config import LMConfig, read_lm_config
from codecbay.package import Header, Package, PackageFile, read_package_file
from codecbay.plugins import find_backend, get_plugins
from codecbay.registry import UNKNOWN, RegistryEntry, forbids_commercial_use, get_registry
from codecbay.remote import AnyPath
from codecbay.spec import CodecSpec

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec
    from codecbay.generation import GenerativeModel

Source = str | os.PathLike[str]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_T5_NAMES = re.compile(r"(google/|google-t5/)?(flan-)?t5-[\w.-]+")  # may come from the Hub without being asked for


@dataclass(frozen=True)
class ResolvedCodec:
    """A codec that was found, and described, but not built.

    Attributes:
        name: what it was asked for by.
        spec: what it is.
        file: its package file, where it has one.
        backend: that builds it; ``None`` where it is only known by name.
        reference: the name it is published by, for a reference.
    """

    name: str
    spec: CodecSpec
    file: PackageFile | None
    backend: Backend | None
    reference: str | None = None

    def at_hand(self) -> tuple[PackageFile, Backend]:
        """The file to build it from, and what builds it.

        Raises:
            UnresolvedReferenceError: it is published, but not at hand.
        """
        if self.file is None or self.backend is None:
            raise UnresolvedReferenceError(
                f"{_published('codec', self.name, str(self.reference))} with codec=.{get_plugins().failure_hint()}"
            )
        return self.file, self.backend

    def build(self, device: torch.device, dtype: torch.dtype) -> Codec:
        """Build it, with all codebooks.

        Raises:
            UnresolvedReferenceError: it is published, but not at hand.
            PackageError: its package is not what its header promises.
        """
        file, backend = self.at_hand()
        from codecbay.codec import Codec, measure

        codec = backend.build(file, device=device, dtype=dtype)
        if not isinstance(codec, Codec):
            raise PluginError(f"The back-end '{backend.name}' built {type(codec).__name__}, which is no Codec.")
        codec.name = self.name
        if codec.spec.licence is None:
            codec._spec = replace(codec.spec, licence=self.spec.licence)  # which the registry may know
        measure(codec)
        return codec


def open_package(source: Source) -> Package:
    """Find the files of a model package and read their headers.

    Args:
        source: a directory, or the language model's file.

    Raises:
        SourceError: there is no such package.
        PackageError: a file is not what it should be.
    """
    path = _find_model(source)
    lm_path = sources.find_file(path, sources.LM_FILE)
    lm = read_package_file(lm_path, "lm")
    codec_path = lm_path.parent / sources.CODEC_FILE
    codec = read_package_file(codec_path, "codec", "reference") if codec_path.is_file() else None
    return Package(os.fspath(source), lm_path.parent, lm, codec)


def _find_model(source: Source) -> Path:
    path = sources.local_path(source)
    if path is not None:
        return path
    text = os.fspath(source)
    entry = get_registry().find("model", text)
    if entry is not None and entry.local_path is not None and not entry.unsupported:
        return _place(entry.local_path, entry)
    raise _not_at_hand("model", text)


def _not_at_hand(kind: str, name: str) -> SourceError:
    """The error for a name that leads to no file, with what the registry knows of it."""
    entry = get_registry().find(kind, name)
    if entry is None:
        return SourceError(f"{sources.missing(name)}{get_registry().suggest(kind, name)}")
    if entry.unsupported:
        return SourceError(f"The {kind} '{name}' ({entry.source}) is known, but not supported: {entry.unsupported}")
    return SourceError(f"{_published(kind, name, entry.source)}.")


def _place(path: Path, entry: RegistryEntry) -> Path:
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or directory, where {entry.origin} has '{entry.name}'.")
    return path


def _published(kind: str, name: str, source: str) -> str:
    """The start of a message: where something is published, and what to do as long as only local files are read."""
    how = "" if "://" in source else f" ('hf download {source} --local-dir DIR')"
    return (
        f"The {kind} '{name}' is published as '{source}', and only local files are read so far. Download it{how} "
        "and give the file or directory"
    )


def resolve_codec(source: Source | PackageFile) -> ResolvedCodec:
    """Find a codec and describe it from its header.

    Args:
        source: a directory, a codec's file, or the name of a published codec.

    Raises:
        SourceError: there is nothing of that name.
        UnresolvedReferenceError: a package refers to a codec that is not known.
        PackageError: the file is no codec package, or no back-end builds it.
    """
    if isinstance(source, PackageFile):
        return _resolve_file(source, str(source.header.path))
    name = os.fspath(source)
    path = sources.local_path(source)
    if path is not None:
        return _resolve_file(_codec_file(path), name)
    known = _by_name(name)
    if known is None:
        raise _not_at_hand("codec", name)
    return known


def _codec_file(path: Path) -> PackageFile:
    own = path if sources.is_transformers_codec(path) else sources.find_file(path, sources.CODEC_FILE)
    return read_package_file(own, "codec", "reference")


def _resolve_file(file: PackageFile, name: str) -> ResolvedCodec:
    header = file.header
    if header.reference is not None:
        if not _NAME.fullmatch(header.reference) or ".." in header.reference:
            raise UnresolvedReferenceError(
                f"{header.path}: refers to the codec {header.reference[:100]!r}, which is not the name of a published "
                "codec; paths and addresses inside a package are refused. Give the codec with codec=."
            )
        known = _by_name(header.reference)
        if known is None:
            raise UnresolvedReferenceError(
                f"{header.path}: refers to the codec '{header.reference}', which neither the registry nor a plugin "
                f"knows.{get_registry().suggest('codec', header.reference)} Give the codec with codec=."
                f"{get_plugins().failure_hint()}"
            )
        return known
    backend = find_backend(header, get_plugins().backends)
    if backend is None:
        kind = header.config.get("compression_model" if header.layout == "audiocraft" else "model_type")
        raise PackageError(
            f"{header.path}: no plugin builds this codec ({header.layout} layout, {str(kind)[:60]!r}). "
            f"See 'codecbay plugins'.{get_plugins().failure_hint()}"
        )
    return ResolvedCodec(name, backend.spec(header), file, backend)


def _by_name(name: str) -> ResolvedCodec | None:
    """A codec that a plugin or the registry knows by name."""
    header = Header.for_reference(name)
    backend = find_backend(header, get_plugins().backends)
    if backend is not None:
        return ResolvedCodec(name, backend.spec(header), PackageFile(header), backend, name)
    entry = get_registry().find("codec", name)
    if entry is not None and entry.local_path is not None:
        file = _codec_file(_place(entry.local_path, entry))
        if file.header.reference is not None:
            raise SourceError(f"{file.header.path}: refers to a codec, where {entry.origin} has '{entry.name}' itself.")
        found = _resolve_file(file, entry.name)
        licence = found.spec.licence or (None if entry.licence == UNKNOWN else entry.licence)
        return replace(found, spec=replace(found.spec, licence=licence))
    if entry is not None and entry.spec is not None:
        return ResolvedCodec(entry.name, entry.spec, None, None, entry.source)
    return None


def check(package: Source | Package, codec: Source | Codec | None = None, num_codebooks: int | None = None) -> Report:
    """Compare a model with a codec, from their headers alone.

    Args:
        package: the model's package.
        codec: another codec than the package's own: a package, a published codec's name, or a built codec.
        num_codebooks: codebooks that the codec shall use.

    Raises:
        PackageError: a package cannot be read.
    """
    return _check(_opened(package), codec, num_codebooks)[0]


def _opened(package: Source | Package) -> Package:
    return package if isinstance(package, Package) else open_package(package)


def _check(
    package: Package, codec: Source | Codec | None, num_codebooks: int | None
) -> tuple[Report, LMConfig, ResolvedCodec | None]:
    config = read_lm_config(package.lm.header)
    own = _own_codec(package, needed=codec is None)
    resolved: ResolvedCodec | None = None
    if codec is None:
        resolved = own
        assert resolved is not None
        spec, name = resolved.spec, resolved.name
    elif isinstance(codec, (str, os.PathLike)):
        resolved = resolve_codec(codec)
        spec, name = resolved.spec, resolved.name
    else:
        from codecbay.stereo import bare

        spec, name = bare(codec).spec, codec.name
    trained_with = config.trained_on
    lm_spec = config.spec
    if own is not None:
        trained_with = own.reference or trained_with
        lm_spec = replace(lm_spec, frame_rate=own.spec.frame_rate)
    report = compat.compare(
        lm_spec,
        spec,
        lm_name=package.name,
        codec_name=name,
        num_codebooks=num_codebooks,
        trained_with=trained_with,
        own_codec=_trained_on(own, trained_with, resolved),
    )
    return report, config, resolved


def _own_codec(package: Package, *, needed: bool) -> ResolvedCodec | None:
    if package.codec is None:
        if needed:
            raise SourceError(
                f"{package.directory}: the package has no {sources.CODEC_FILE}. Give the codec with codec=."
            )
        return None
    try:
        return resolve_codec(package.codec)
    except CodecbayError:
        if needed:
            raise
        return None  # another codec was asked for; what the package's own is then stays unknown


def _trained_on(own: ResolvedCodec | None, trained_with: str | None, codec: ResolvedCodec | None) -> bool | None:
    """Whether ``codec`` is the one that the model was trained on, as far as names, files and checksums tell."""
    if codec is None:
        return None
    if own is not None and own.file is not None and codec.file is not None and own.reference is None:
        ours, theirs = own.file.header, codec.file.header
        if _full_path(ours.path) == _full_path(theirs.path):
            return True
        sums = [{name: header.blocks[t.block].crc for name, t in header.tensors.items()} for header in (ours, theirs)]
        return None if None in (*sums[0].values(), *sums[1].values()) else sums[0] == sums[1]
    if trained_with is not None and codec.reference is not None:
        return _full_name(trained_with) == _full_name(codec.reference)
    return None


def _full_path(path: AnyPath) -> AnyPath:
    return path.resolve() if isinstance(path, Path) else path


def _full_name(name: str) -> str:
    entry = get_registry().find("codec", name)
    return name if entry is None else entry.same_as or entry.source


def load_codec(
    source: Source,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    num_codebooks: int | None = None,
) -> Codec:
    """Load a codec.

    Args:
        source: a directory, a codec's file, or the name of a published codec.
        device: where it shall live; a GPU where there is one, by default.
        dtype: of its parameters; float32 by default.
        num_codebooks: codebooks in use; all by default.

    Raises:
        PackageError: it cannot be found, read or built.
        CodecbayError: it does not allow ``num_codebooks``.
    """
    import torch

    resolved = resolve_codec(source)
    if num_codebooks is not None:
        resolved.spec.with_num_codebooks(num_codebooks)  # before a weight is read
    target = _device(device)
    codec = resolved.build(target, _dtype(dtype, torch.float32))
    if num_codebooks is not None:
        codec.set_num_codebooks(num_codebooks)
    return codec


def load(
    source: Source,
    codec: Source | Codec | None = None,
    *,
    num_codebooks: int | None = None,
    text_encoder: Source | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    codec_dtype: str | torch.dtype | None = None,
) -> GenerativeModel:
    """Load a model: check that codec and language model fit, build both, put them together.

    What works but may not be what is wanted is warned of: another codec than the one the model was trained on, and
    weights that are known not to be for commercial use.

    Weights that need no conversion stay mapped to the package's file: do not overwrite it in place while the model
    lives (write beside it and rename), or call ``model.lm.train()`` first, which gives them memory of their own.

    Args:
        source: an export package: a directory, or the language model's file; or ``debug``.
        codec: another codec than the package's own: a package, a published codec's name, or a built codec.
        num_codebooks: codebooks that the codec shall use; by default what the language model needs.
        text_encoder: the T5 encoder, a directory or a name on the Hugging Face Hub; by default the one beside
            the package's files, else the one that the package names, from the Hub.
        device: where the model shall live; a GPU where there is one, by default.
        dtype: of the language model's parameters; by default float16 on a GPU, else float32.
        codec_dtype: of the codec's; float32 by default.

    Returns:
        A :class:`~codecbay.generation.MusicGen` or :class:`~codecbay.generation.AudioGen`.

    Raises:
        IncompatibleError: codec and language model do not fit; no weight was read.
        PackageError: something cannot be found, read or built.
    """
    import torch

    from codecbay.debug import DEBUG_MODELS, debug_model
    from codecbay.generation import MODEL_CLASSES
    from codecbay.lm.build import build_lm

    target = _device(device)
    lm_dtype = _dtype(dtype, torch.float16 if target.type == "cuda" else torch.float32)
    small_dtype = _dtype(codec_dtype, torch.float32)
    name = os.fspath(source)
    if name in DEBUG_MODELS:  # a directory of that name is './debug'
        return debug_model(name, resolve_codec(DEBUG_MODELS[name].codec).build(target, small_dtype), target)

    package = open_package(source)
    report, config, resolved = _check(package, codec, num_codebooks)
    if not report.ok:
        raise IncompatibleError(report)
    if resolved is not None:
        resolved.at_hand()  # before a weight is read
    for finding in report.findings:
        if finding.severity == compat.WARNING:
            warnings.warn(finding.text, stacklevel=2)
    entry = None if sources.local_path(source) else get_registry().find("model", name)
    _tell_licence("model", name, None if entry is None else entry.licence)
    _tell_licence("codec", report.codec_name, report.codec.licence)
    lm = build_lm(
        package.lm,
        config,
        device=target,
        dtype=lm_dtype,
        find_text_encoder=lambda name: _find_text_encoder(name, package, text_encoder),
        conditioners=get_plugins().conditioners,
    )
    built: Codec = codec if resolved is None else resolved.build(target, small_dtype)  # type: ignore[assignment]
    model = MODEL_CLASSES[config.kind](package.name, built, lm)
    model.report = report  # which knows more than what codec and language model say
    return model


@cache
def _tell_licence(kind: str, name: str, licence: str | None) -> None:
    """Say, once for each codec and model, that its licence forbids commercial use."""
    if licence is not None and forbids_commercial_use(licence):
        warnings.warn(
            f"licence: the weights of the {kind} '{name}' are not for commercial use ({licence}).", stacklevel=3
        )


def _find_text_encoder(name: str, package: Package, wanted: Source | None) -> str:
    if wanted is not None:
        text = os.fspath(wanted)
        if sources.local_path(text) is not None or _NAME.fullmatch(text):
            return text
        raise UnresolvedReferenceError(f"The text encoder '{text[:200]}' is neither a directory nor a name on the Hub.")
    known = _NAME.fullmatch(name) is not None and ".." not in name
    if known and (package.directory / name).is_dir():
        return str(package.directory / name)
    if known and _T5_NAMES.fullmatch(name):
        return name
    raise UnresolvedReferenceError(
        f"The language model needs the text encoder {name[:100]!r}, which is not beside its files in "
        f"{package.directory}. Name it with text_encoder= (--text-encoder)."
    )


def _device(device: str | torch.device | None) -> torch.device:
    import torch

    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.empty(0, device=device).device
        if found.type == "meta":
            raise RuntimeError("nothing can be computed there")
        return found
    except (RuntimeError, AssertionError, TypeError) as error:  # what torch says of devices that are not there
        raise CodecbayError(f"device={str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None


def _dtype(dtype: str | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    import torch

    if dtype is None or dtype == "auto":
        return default
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    found = names.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise CodecbayError(f"dtype={dtype!r} is not one of {', '.join(names)}.")
    return found
