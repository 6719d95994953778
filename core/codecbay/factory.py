"""The central factory: the one place where sources, packages, back-ends and the check come together.

Order is everything: files are found, headers read, codec and language model compared; only then is the rest fetched, if
it lies elsewhere; and only when all of it is there is a weight read.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
from codecbay.package import Header, Package, PackageFile, fetch_directory, read_package_file
from codecbay.plugins import find_backend, get_plugins, named_failure
from codecbay.registry import UNKNOWN, RegistryEntry, forbids_commercial_use, get_registry
from codecbay.remote import AnyPath, RemotePath, WebTree
from codecbay.spec import CodecSpec

if TYPE_CHECKING:
    import torch

    from codecbay.codec import Codec
    from codecbay.generation import GenerativeModel

Source = str | os.PathLike[str]
T = TypeVar("T")
D = TypeVar("D", bound="torch.dtype | None")

_log = logging.getLogger(__name__)

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
        registered: the name that a registry has for it, where it lies on this disk.
    """

    name: str
    spec: CodecSpec
    file: PackageFile | None
    backend: Backend | None
    reference: str | None = None
    registered: str | None = None

    def found(self) -> ResolvedCodec:
        """The same with its file, which may lie on the other side of a network, and what builds it.

        Raises:
            SourceError: it cannot be found where it is published.
            PackageError: no back-end builds it.
        """
        if self.file is not None and self.backend is not None:
            return self
        entry = get_registry().find("codec", self.reference or self.name)
        if entry is None:
            raise UnresolvedReferenceError(
                f"The codec '{self.name}' is not known by that name. Give it with codec= (--codec)."
            )
        found = _resolve_file(_codec_file(_published(entry)), self.name)
        return replace(found, reference=self.reference, spec=_with_licence(found.spec, entry))

    def fetch(self, *, progress: bool = False) -> ResolvedCodec:
        """The same with its file on the disk.

        Raises:
            SourceError: it cannot be found or fetched.
            PackageError: it is not what its header promised.
        """
        found = self.found()
        if found.file is None or not found.file.is_remote:
            return found
        local = _resolve_file(found.file.fetch(progress=progress), found.name)
        return replace(local, reference=found.reference, spec=replace(local.spec, licence=found.spec.licence))

    def at_hand(self) -> tuple[PackageFile, Backend]:
        """The file to build it from, fetched if need be, and what builds it.

        Raises:
            SourceError: it cannot be found or fetched.
            PackageError: it is not what its header promised.
        """
        local = self.fetch(progress=True)
        assert local.file is not None
        assert local.backend is not None
        return local.file, local.backend

    def build(self, device: torch.device, dtype: torch.dtype) -> Codec:
        """Build it, with all codebooks; what is not on the disk yet is fetched.

        Raises:
            SourceError: it cannot be found or fetched.
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
        with named_failure(f"The codec '{self.name}' of the back-end '{backend.name}' failed at a second of noise"):
            measure(codec)
        return codec


def open_package(source: Source, revision: str | None = None) -> Package:
    """Find the files of a model package and read their headers; of one that lies elsewhere, nothing else is moved.

    Args:
        source: a directory, or the language model's file; on the disk, on the Hub, or at an https address.
        revision: of a repository on the Hub: a branch, a tag or a commit.

    Raises:
        SourceError: there is no such package.
        PackageError: a file is not what it should be.
    """
    path = _find("model", source, revision)
    paths = sources.find_files(path, sources.LM_TWIN, sources.LM_FILE, sources.ALL_IN_ONE)
    directory = paths[0].parent
    if path.is_dir() and (path / "config.json").is_file():
        _log.warning("%s holds a model in two layouts; AudioCraft's is read (%s).", path, paths[0].name)
    lm = _same(paths[0], paths[1:], sources.LM_FILE, "lm")
    if lm.header.part is not None:
        beside = [paths[0]]
    else:
        beside = [directory / name for name in (sources.CODEC_TWIN, sources.CODEC_FILE)]
    beside = [file for file in beside if file.is_file()]
    codec = _same(beside[0], beside[1:], sources.CODEC_FILE, "codec", "reference") if beside else None
    return Package(os.fspath(source), directory, lm, codec)


def _same(path: AnyPath, others: list[AnyPath], part: str, *roles: str) -> PackageFile:
    """A package file, held against the one that it was converted from, where that lies beside it."""
    file = read_package_file(path, *roles, part=part)
    if file.header.source is None:
        return file
    from codecbay.package.twin import digest

    name, expected = file.header.source
    for other in others:
        if other.name == name and digest(read_package_file(other, *roles).header) != expected:
            raise PackageError(
                f"{path} was converted from a {name} that is not the one beside it, {other}: one of them has changed. "
                "Convert it again, or take away the one that is out of date."
            )
    return file


def _find(kind: str, source: Source, revision: str | None = None) -> AnyPath:
    """Where something lies: on the disk, at an address, where the registry says, or on the Hub by its name there."""
    path = sources.locate(source, revision)
    if path is not None:
        return path
    text = os.fspath(source)
    entry = get_registry().find(kind, text)
    if entry is not None and entry.unsupported:
        raise SourceError(f"The {kind} '{text}' ({entry.source}) is known, but not supported: {entry.unsupported}")
    if entry is not None:
        return _published(entry, revision)
    if sources.is_hub_id(text):
        _log.warning("'%s' is no file here and not in the registry: looking for hf://%s on the Hub.", text, text)
        return sources.hub_path(text, revision)
    raise SourceError(f"{sources.missing(text, kind)}{get_registry().suggest(kind, text)}")


def _published(entry: RegistryEntry, revision: str | None = None) -> AnyPath:
    """Where the registry says that something lies."""
    path = entry.local_path
    if path is not None:
        if not path.exists():
            raise SourceError(f"{path}: there is no such file or directory, where {entry.origin} has '{entry.name}'.")
        return path
    if "://" not in entry.source:
        return sources.hub_path(entry.source, revision or entry.revision, entry.folder or "")
    if entry.source.startswith("https://") and entry.sha256 is not None:
        return RemotePath(*WebTree.of(entry.source, entry.sha256))
    located = sources.locate(entry.source, revision or entry.revision)
    assert located is not None
    return located


def _with_licence(spec: CodecSpec, entry: RegistryEntry) -> CodecSpec:
    return replace(spec, licence=spec.licence or (None if entry.licence == UNKNOWN else entry.licence))


def resolve_codec(source: Source | PackageFile, revision: str | None = None) -> ResolvedCodec:
    """Find a codec and describe it from its header.

    Args:
        source: a directory, a codec's file, an address of either, or the name of a published codec.
        revision: of a repository on the Hub.

    Raises:
        SourceError: there is nothing of that name.
        UnresolvedReferenceError: a package refers to a codec that is not known.
        PackageError: the file is no codec package, or no back-end builds it.
    """
    if isinstance(source, PackageFile):
        return _resolve_file(source, str(source.header.path))
    name = os.fspath(source)
    path = sources.locate(source, revision)
    if path is not None:
        return _resolve_file(_codec_file(path), name)
    known = _by_name(name)
    if known is not None:
        return known
    return _resolve_file(_codec_file(_find("codec", name, revision)), name)


def _codec_file(path: AnyPath) -> PackageFile:
    if sources.is_transformers_codec(path):
        return read_package_file(path, "codec", "reference")
    first, *others = sources.find_files(path, sources.CODEC_TWIN, sources.CODEC_FILE, sources.ALL_IN_ONE)
    return _same(first, others, sources.CODEC_FILE, "codec", "reference")


def _resolve_file(file: PackageFile, name: str) -> ResolvedCodec:
    header = file.header
    if header.reference is not None:
        if not _NAME.fullmatch(header.reference) or ".." in header.reference:
            raise UnresolvedReferenceError(
                f"{header.path}: refers to the codec {header.reference[:100]!r}, which is not the name of a published "
                "codec; paths and addresses inside a package are refused. Give the codec with codec= (--codec)."
            )
        known = _by_name(header.reference)
        if known is None:
            raise UnresolvedReferenceError(
                f"{header.path}: refers to the codec '{header.reference}', which neither the registry nor a plugin "
                f"knows.{get_registry().suggest('codec', header.reference)} Give the codec with codec= (--codec)."
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
    if entry is None or entry.unsupported:
        return None
    if entry.spec is not None and entry.local_path is None:
        return ResolvedCodec(entry.name, entry.spec, None, None, entry.source)
    file = _codec_file(_published(entry))
    if file.header.reference is not None:
        raise SourceError(f"{file.header.path}: refers to a codec, where {entry.origin} has '{entry.name}' itself.")
    found = _resolve_file(file, entry.name)
    found = replace(found, spec=_with_licence(found.spec, entry))
    if entry.local_path is None:
        return replace(found, reference=entry.source)
    return replace(found, registered=entry.name)


def check(
    package: Source | Package,
    codec: Source | Codec | None = None,
    num_codebooks: int | None = None,
    *,
    strict: bool = False,
    revision: str | None = None,
) -> Report:
    """Compare a model with a codec, from their headers alone; of what lies elsewhere, nothing else is moved.

    Args:
        package: the model's package.
        codec: another codec than the package's own: a package, a published codec's name, or a built codec.
        num_codebooks: codebooks that the codec shall use.
        strict: a codec that is known to be another than the model was trained on is an error, and no warning.
        revision: of the model's repository on the Hub.

    Raises:
        PackageError: a package cannot be read.
    """
    opened = package if isinstance(package, Package) else open_package(package, revision)
    return _check(opened, codec, num_codebooks, strict)[0]


def _check(
    package: Package, codec: Source | Codec | ResolvedCodec | None, num_codebooks: int | None, strict: bool
) -> tuple[Report, LMConfig, ResolvedCodec | None]:
    config = read_lm_config(package.lm.header)
    own = _own_codec(package, needed=codec is None)
    resolved: ResolvedCodec | None = None
    built: Codec | None = None
    if codec is None:
        resolved = own
        assert resolved is not None
        spec, name = resolved.spec, resolved.name
    elif isinstance(codec, (str, os.PathLike, ResolvedCodec)):
        resolved = codec if isinstance(codec, ResolvedCodec) else resolve_codec(codec)
        spec, name = resolved.spec, resolved.name
    else:
        from codecbay.stereo import bare

        built = bare(codec)
        spec, name = built.spec, codec.name
    trained_with = config.trained_on
    lm_spec = config.spec
    if own is not None:
        trained_with = own.reference or own.registered or trained_with
    trained_spec = _known_spec(trained_with) if own is None else own.spec
    if trained_spec is not None:
        lm_spec = replace(lm_spec, frame_rate=trained_spec.frame_rate)
    report = compat.compare(
        lm_spec,
        spec,
        lm_name=package.name,
        codec_name=name,
        num_codebooks=num_codebooks,
        trained_with=trained_with,
        own_codec=_trained_on(package, own, trained_with, built or resolved),
        strict=strict,
    )
    return report, config, resolved


def _own_codec(package: Package, *, needed: bool) -> ResolvedCodec | None:
    if package.codec is None:
        if needed:
            raise SourceError(
                f"{package.directory}: the package has no {sources.CODEC_FILE}. Give the codec with codec= (--codec)."
            )
        return None
    try:
        return resolve_codec(package.codec)
    except CodecbayError:
        if needed:
            raise
        return None  # another codec was asked for; what the package's own is then stays unknown


def _trained_on(
    package: Package, own: ResolvedCodec | None, trained_with: str | None, codec: ResolvedCodec | Codec | None
) -> bool | None:
    """Whether ``codec`` is the one that the model was trained on, as far as what is stored tells.

    That is fingerprints; where there are none, names, places and checksums.
    """
    expected = package.lm.header.codec_fingerprint
    if codec is None or not isinstance(codec, ResolvedCodec):
        return None if expected is None or codec is None else expected == codec.fingerprint()
    found = None if codec.file is None else codec.file.header.codec_fingerprint
    if expected is not None and found is not None:
        return expected == found
    if own is not None and own.file is not None and codec.file is not None and own.reference is None:
        ours, theirs = own.file.header, codec.file.header
        if _full_path(ours.path) == _full_path(theirs.path):
            return True
        sums = [{name: header.blocks[t.block].crc for name, t in header.tensors.items()} for header in (ours, theirs)]
        return None if None in (*sums[0].values(), *sums[1].values()) else sums[0] == sums[1]
    name = codec.reference or codec.registered
    return None if trained_with is None or name is None else _same_name(trained_with, name)


def _full_path(path: AnyPath) -> AnyPath:
    return path.resolve() if isinstance(path, Path) else path


def _same_name(one: str, other: str) -> bool | None:
    """Whether two names stand for one codec; ``None`` where nothing tells."""
    entries = [get_registry().find("codec", name) for name in (one, other)]
    if any(entry is not None and entry.local_path is not None for entry in entries):
        return entries[0] is entries[1] or None  # what lies on this disk may be a copy of anything
    found = [
        name if entry is None else entry.same_as or entry.source
        for name, entry in zip((one, other), entries, strict=True)
    ]
    return found[0] == found[1]


def _known_spec(name: str | None) -> CodecSpec | None:
    """The spec of a codec that the registry describes, without a look at a network."""
    entry = None if name is None else get_registry().find("codec", name)
    if entry is None or entry.local_path is None:
        return None if entry is None else entry.spec
    try:
        return resolve_codec(entry.local_path).spec
    except CodecbayError:
        return None


def load_codec(
    source: Source,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    num_codebooks: int | None = None,
    revision: str | None = None,
) -> Codec:
    """Load a codec.

    Args:
        source: a directory, a codec's file, an address of either, or the name of a published codec.
        device: where it shall live; a GPU where there is one, by default.
        dtype: of its parameters; float32 by default.
        num_codebooks: codebooks in use; all by default.
        revision: of a repository on the Hub.

    Raises:
        PackageError: it cannot be found, read or built.
        CodecbayError: it does not allow ``num_codebooks``.
    """
    import torch

    resolved = resolve_codec(source, revision)
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
    strict: bool = False,
    revision: str | None = None,
) -> GenerativeModel:
    """Load a model: check that codec and language model fit, build both, put them together.

    What works but may not be what is wanted is warned of: another codec than the one the model was trained on, and
    weights that are known not to be for commercial use.

    Weights that need no conversion stay mapped to the package's file: do not overwrite it in place while the model
    lives (write beside it and rename), or call ``model.lm.train()`` first, which gives them memory of their own.

    Args:
        source: an export package: a directory, or the language model's file, on the disk, on the Hub
            (``hf://owner/name``) or at an https address; a name from the registry; or ``debug``.
        codec: another codec than the package's own: a package, a published codec's name, or a built codec.
        num_codebooks: codebooks that the codec shall use; by default what the language model needs.
        text_encoder: the T5 encoder, a directory or a name on the Hugging Face Hub; by default the one beside
            the package's files, else the one that the package names, from the Hub.
        device: where the model shall live; a GPU where there is one, by default.
        dtype: of the language model's parameters. By default float16 on a GPU; on a CPU they stay as they are stored,
            and float32 is computed in, as it is there whatever the dtype: shorter ones make the model smaller and
            faster, not its arithmetic coarser; only ``bfloat16`` rounds the inputs of matrix products too, for more
            than one sample. ``int8`` quantizes the weights that are computed with, for the CPU.
        codec_dtype: of the codec's; float32 by default.
        strict: refuse a codec that is known to be another than the model was trained on, rather than to warn of it.
        revision: of the model's repository on the Hub: a branch, a tag or a commit.

    Returns:
        A :class:`~codecbay.generation.MusicGen` or :class:`~codecbay.generation.AudioGen`.

    Raises:
        IncompatibleError: codec and language model do not fit; no weight was read.
        PackageError: something cannot be found, read or built.
    """
    import torch

    from codecbay.debug import DEBUG_MODELS, debug_model
    from codecbay.generation import MODEL_CLASSES, Origin
    from codecbay.lm.build import build_lm

    target = _device(device)
    int8 = dtype == "int8"
    if int8 and target.type != "cpu":
        raise CodecbayError(f"dtype='int8' is for the CPU; on {target} take float16.")
    lm_dtype = _dtype(None if int8 else dtype, None if target.type == "cpu" else torch.float16)
    small_dtype = _dtype(codec_dtype, torch.float32)
    name = os.fspath(source)
    if name in DEBUG_MODELS:  # a directory of that name is './debug'
        return debug_model(name, resolve_codec(DEBUG_MODELS[name].codec).build(target, small_dtype), target)

    package = open_package(source, revision)
    report, config, resolved = _check(package, codec, num_codebooks, strict)
    if not report.ok:
        raise IncompatibleError(report)
    plan = make_plan(package, config, resolved, text_encoder)
    if plan.is_remote:  # what came is what is built, and so what has to fit
        plan = plan.fetch(progress=True)
        package, resolved = plan.package, plan.codec
        report, config, resolved = _check(package, codec if resolved is None else resolved, num_codebooks, strict)
        if not report.ok:
            raise IncompatibleError(report)
    for finding in report.findings:
        if finding.severity == compat.WARNING:
            warnings.warn(finding.text, stacklevel=2)
    entry = None if sources.locate(source) else get_registry().find("model", name)
    _tell_licence("model", name, None if entry is None else entry.licence)
    _tell_licence("codec", report.codec_name, report.codec.licence)
    lm = build_lm(
        package.lm,
        config,
        device=target,
        dtype=lm_dtype,
        find_text_encoder=lambda name: str(plan.text_encoders[name]),
        conditioners=get_plugins().conditioners,
    )
    if int8:
        lm.quantize()
    built: Codec = codec if resolved is None else resolved.build(target, small_dtype)  # type: ignore[assignment]
    model = MODEL_CLASSES[config.kind](package.name, built, lm)
    model.report = report  # which knows more than what codec and language model say
    model.origin = Origin(package.lm, _packable(resolved), tuple(own_text_encoders(package, config)))
    return model


def _packable(codec: ResolvedCodec | None) -> PackageFile | None:
    """What stands for a codec in a package: its own file, or a reference by the name that it is known by."""
    if codec is None or codec.file is None:
        return None
    if codec.reference is None and codec.file.header.layout == "audiocraft":
        return codec.file
    name = codec.reference or codec.registered
    return None if name is None else PackageFile(Header.for_reference(name))


def download(
    source: Source,
    codec: Source | None = None,
    *,
    text_encoder: Source | None = None,
    revision: str | None = None,
) -> list[Path]:
    """Fetch everything that a model is built from, so that it loads without a network.

    Args:
        source: an export package, or a codec alone.
        codec: another codec than the package's own, to fetch too.
        text_encoder: the T5 encoder, a directory or a name on the Hugging Face Hub.
        revision: of the model's repository on the Hub.

    Returns:
        The files and directories on the disk.

    Raises:
        SourceError: something cannot be found or fetched.
    """
    try:
        package = open_package(source, revision)
    except SourceError:
        if codec is not None:
            raise
        file, _ = resolve_codec(source, revision).at_hand()
        return [Path(str(file.header.path))]
    own = _own_codec(package, needed=codec is None)
    config = read_lm_config(package.lm.header)
    plan = make_plan(package, config, own, text_encoder).fetch(progress=True)
    if any(conditioner.model == "chroma_stem" for conditioner in config.conditioners.values()):
        _fetch_demucs()
    found = [plan.package.lm.header.path, *(path for path in plan.text_encoders.values())]
    files = [None if plan.package.codec is None else plan.package.codec.fetch(progress=True)]
    files += [None if plan.codec is None else plan.codec.file]
    files += [None if codec is None else resolve_codec(codec).at_hand()[0]]
    found += [file.header.path for file in files if file is not None]
    return sorted({Path(str(path)) for path in found})


@cache
def _tell_licence(kind: str, name: str, licence: str | None) -> None:
    """Say, once for each codec and model, that its licence forbids commercial use."""
    if licence is not None and forbids_commercial_use(licence):
        warnings.warn(
            f"licence: the weights of the {kind} '{name}' are not for commercial use ({licence}).", stacklevel=3
        )


@dataclass(frozen=True)
class Plan:
    """Everything that a model is built from.

    Attributes:
        package: the model's own files.
        codec: the codec; ``None`` where a built one was given.
        text_encoders: where each T5 encoder lies, by the name that the language model has for it.
    """

    package: Package
    codec: ResolvedCodec | None
    text_encoders: dict[str, AnyPath]

    @property
    def is_remote(self) -> bool:
        """Whether some of it is not on the disk yet."""
        files = [self.package.lm, None if self.codec is None else self.codec.file]
        return any(file is not None and file.is_remote for file in files) or any(
            isinstance(path, RemotePath) for path in self.text_encoders.values()
        )

    def fetch(self, *, progress: bool = False) -> Plan:
        """The same on the disk.

        Raises:
            SourceError: something cannot be fetched; all of it is named.
        """
        problems: list[str] = []
        lm = _tried(problems, lambda: self.package.lm.fetch(progress=progress))
        codec = None if self.codec is None else _tried(problems, lambda: self.codec.fetch(progress=progress))  # type: ignore[union-attr]
        encoders = {
            name: _tried(problems, lambda path=path: _fetch_encoder(path, progress))  # type: ignore[misc]
            for name, path in self.text_encoders.items()
        }
        if problems or lm is None:
            raise _all_of(problems)
        directory = self.package.directory if not self.package.lm.is_remote else lm.header.path.parent
        own = self.package.codec
        if own is not None and own.is_remote and self.codec is not None and self.codec.file is own:
            own = codec.file if codec is not None else None
        package = replace(self.package, lm=lm, directory=directory, codec=own)
        return Plan(package, codec, {name: path for name, path in encoders.items() if path is not None})


def make_plan(package: Package, config: LMConfig, codec: ResolvedCodec | None, text_encoder: Source | None) -> Plan:
    """Find everything that a model is built from, before anything of it is fetched or built.

    Raises:
        UnresolvedReferenceError: something cannot be found; all of it is named.
    """
    problems: list[str] = []
    found = None if codec is None else _tried(problems, codec.found)
    encoders: dict[str, AnyPath] = {}
    for entry in config.conditioners.values():
        if entry.model == "t5":
            name = str(entry.arguments.take("name", ""))
            path = _tried(problems, lambda name=name: _find_text_encoder(name, package, text_encoder))  # type: ignore[misc]
            if path is not None:
                encoders[name] = path
    if problems:
        raise _all_of(problems)
    return Plan(package, found, encoders)


def _tried(problems: list[str], call: Callable[[], T]) -> T | None:
    try:
        return call()
    except CodecbayError as error:
        problems.append(str(error))
        return None


def _all_of(problems: list[str]) -> UnresolvedReferenceError:
    if len(problems) == 1:
        return UnresolvedReferenceError(problems[0])
    return UnresolvedReferenceError("\n".join([f"{len(problems)} things are missing:", *(f"- {p}" for p in problems)]))


def _find_text_encoder(name: str, package: Package, wanted: Source | None) -> AnyPath:
    if wanted is not None:
        path = sources.locate(wanted)
        if path is not None:
            return path
        if _NAME.fullmatch(os.fspath(wanted)):
            return sources.hub_path(os.fspath(wanted))
        raise UnresolvedReferenceError(
            f"The text encoder '{os.fspath(wanted)[:200]}' is neither a directory nor a name on the Hub."
        )
    known = _NAME.fullmatch(name) is not None and ".." not in name
    if known and (package.directory / name).is_dir():
        return package.directory / name
    if known and _T5_NAMES.fullmatch(name):
        return sources.hub_path(name)
    raise UnresolvedReferenceError(
        f"The language model needs the text encoder {name[:100]!r}, which is not beside its files in "
        f"{package.directory}. Name it with text_encoder= (--text-encoder)."
    )


def _fetch_demucs() -> None:
    """Have demucs fetch what a melody is taken out of a mix with; without demucs, the whole mix serves."""
    from codecbay.lm.chroma import load_demucs

    try:
        load_demucs()
    except ImportError:
        _log.warning("demucs is not installed: melodies will be taken from the whole mix (pip install demucs).")
    except Exception as error:  # it fetches by itself, and fails in its own ways
        raise SourceError(f"demucs cannot fetch the model that takes melodies out of a mix: {error}") from None


def own_text_encoders(package: Package, config: LMConfig) -> list[Path]:
    """The directories of the T5 encoders that lie beside a package's files, on the disk."""
    names = {str(entry.arguments.take("name", "")) for entry in config.conditioners.values() if entry.model == "t5"}
    found = [package.directory / name for name in sorted(names) if _NAME.fullmatch(name) and ".." not in name]
    return [Path(str(_fetch_encoder(path, True))) for path in found if path.is_dir()]


def _fetch_encoder(path: AnyPath, progress: bool) -> AnyPath:
    return fetch_directory(path, progress=progress) if isinstance(path, RemotePath) else path


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


def _dtype(dtype: str | torch.dtype | None, default: D) -> torch.dtype | D:
    import torch

    if dtype is None or dtype == "auto":
        return default
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    found = names.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise CodecbayError(f"dtype={dtype!r} is not one of {', '.join(names)}.")
    return found
