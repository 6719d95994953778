"""MusicGen between AudioCraft's export packages and the directories that the transformers library loads.

Either way all files are found, and their headers read and compared, before anything else: what the other side cannot
express is refused in one list. Only then are weights read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codecbay import sources
from codecbay.convert import encodec, language_model, names, t5
from codecbay.convert.encodec import Encodec
from codecbay.convert.language_model import LanguageModel
from codecbay.convert.tensors import Tensors, read_directory
from codecbay.convert.writing import copy_tokenizer, find_tokenizer, write_json, write_model
from codecbay.errors import (
    ConfigError,
    IncompatibleError,
    PackageError,
    SourceError,
    UnresolvedReferenceError,
    WeightsError,
)
from codecbay.export import codec_fingerprint
from codecbay.factory import Plan, ResolvedCodec, check, make_plan, open_package, resolve_codec
from codecbay.files import written_directory
from codecbay.lm.config import read_lm_config
from codecbay.package import Config, Header, Package
from codecbay.package.config import read_json
from codecbay.package.layouts import CONFIG_FILE
from codecbay.package.writing import Contents, write_bin
from codecbay.remote import AnyPath

Source = str | os.PathLike[str]

_GENERATION_FILE = "generation_config.json"
_FEATURES_FILE, _PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
_TEXT, _AUDIO = "text_encoder.", "audio_encoder."
_TEXT_PROJECTION = "enc_to_dec_proj.weight"
_POSITIONS = "decoder.model.decoder.embed_positions.weights"  # in older files; they are computed
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_UNNAMED = "text-encoder"


@dataclass(frozen=True)
class _Codec:
    """A codec, in whichever layout it was found."""

    config: Encodec
    tensors: Tensors
    audiocraft: bool

    def check(self) -> None:
        """Compare its tensors with those that its configuration describes.

        Raises:
            WeightsError: they are others.
        """
        shapes = names.audiocraft_shapes if self.audiocraft else names.transformers_shapes
        self.tensors.check(shapes(encodec.pairs(self.config)))

    def load(self) -> dict[str, Tensor]:
        """Its tensors by transformers' names."""
        tensors = self.tensors.load()
        return names.to_transformers(encodec.pairs(self.config), tensors) if self.audiocraft else tensors


@dataclass(frozen=True)
class _TextEncoder:
    """A T5 encoder, whose weights may lie in the language model's file."""

    config: dict[str, Any]
    tensors: Tensors
    tokenizer: list[AnyPath]


# ----------------------------------------------------------------------------------------------- to transformers


def to_transformers(
    package: Source | Package,
    out: Source,
    *,
    text_encoder: Source | None = None,
    codec: Source | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a directory that transformers loads: ``MusicgenForConditionalGeneration`` or, for a model of
    melodies, ``MusicgenMelodyForConditionalGeneration``, with their processor.

    Weights keep their type. A text encoder as wide as the model is widened by channels that are always zero, because
    transformers projects its output only where the widths differ.

    Args:
        package: an export package.
        out: the directory to write.
        text_encoder: the T5 encoder, a directory or a name on the Hugging Face Hub; by default the one beside the
            package's files, else the one that the package names, from the Hub.
        codec: an EnCodec, as a package or in transformers' layout; by default the package's own.
        revision: of the model's repository on the Hub: a branch, a tag or a commit.
        overwrite: take the place of a directory that is there.

    Returns:
        The directory.

    Raises:
        ConfigError: transformers cannot express the model; the message lists all that keeps it from it.
        UnresolvedReferenceError: the codec or the text encoder cannot be found.
        IncompatibleError: the codec does not fit.
        PackageError: a package cannot be read, or its tensors are not those that it describes.
        OutputError: the directory cannot be written, or is there already.
    """
    package = package if isinstance(package, Package) else open_package(package, revision)
    try:
        resolved = _resolve_codec(package, codec)
    except PackageError:
        _describe(package, None)  # what another codec would not mend comes first
        raise
    _describe(package, resolved)
    report = check(package, codec)
    if not report.ok:
        raise IncompatibleError(report)
    plan = make_plan(package, read_lm_config(package.lm.header), resolved, text_encoder)
    if plan.is_remote:
        _Parts.read(plan)
        plan = plan.fetch(progress=True)
    parts = _Parts.read(plan)
    described, tensors = parts.convert()
    with written_directory(Path(out), overwrite=overwrite) as directory:
        write_model(directory, described, tensors)
        model, under = parts.model, parts.codec.config
        write_json(directory / _GENERATION_FILE, language_model.generation_config(model, under.frame_rate))
        write_json(directory / _FEATURES_FILE, language_model.preprocessor_config(model, under))
        copy_tokenizer(parts.text.tokenizer, directory)
    return Path(out)


def _resolve_codec(package: Package, wanted: Source | None) -> ResolvedCodec:
    if wanted is not None:
        return resolve_codec(wanted).found()
    if package.codec is None:
        raise SourceError(
            f"{package.directory}: the package has no {sources.CODEC_FILE}. Give the codec with codec= (--codec)."
        )
    return resolve_codec(package.codec).found()


def _describe(package: Package, resolved: ResolvedCodec | None) -> tuple[LanguageModel, _Codec | None]:
    """Language model and codec, from their headers.

    Raises:
        ConfigError: transformers cannot express them.
    """
    header = package.lm.header
    model, obstacles = language_model.read_audiocraft(read_lm_config(header), header)
    codec = None
    if resolved is not None and resolved.file is not None:
        codec, more = _read_codec(resolved.file.header)
        obstacles += more
    if obstacles:
        raise _refusal(package.name, "transformers", obstacles)
    return model, codec


def _refusal(where: object, side: str, obstacles: Sequence[str]) -> ConfigError:
    return ConfigError("\n  ".join([f"{where}: {side} cannot express this model.", *obstacles]))


def _read_codec(header: Header) -> tuple[_Codec | None, list[str]]:
    """A codec, and what of it transformers cannot express; none where it is no EnCodec."""
    if header.layout == "audiocraft" and header.config.get("compression_model") == "encodec":
        config, obstacles = encodec.read_audiocraft(header.config)
        return _Codec(config, Tensors.of(header), True), obstacles
    if header.layout == "transformers" and header.config.get("model_type") == "encodec":
        config, obstacles = encodec.read_transformers(header.config.top())
        return _Codec(config, Tensors.of(header).renamed(encodec.canonical), False), obstacles
    return None, [f"{header.path} is no EnCodec: transformers has MusicGen over EnCodec only"]


@dataclass(frozen=True)
class _Parts:
    """Everything that makes a model, as its headers tell."""

    header: Header
    model: LanguageModel
    tensors: Tensors
    codec: _Codec
    text: _TextEncoder
    text_name: str

    @classmethod
    def read(cls, plan: Plan) -> _Parts:
        """From everything that was found.

        Raises:
            ConfigError: transformers cannot express the model.
            UnresolvedReferenceError: the text encoder is not the one that the model was trained with.
            WeightsError: tensors are not those that the configurations describe.
        """
        header = plan.package.lm.header
        model, codec = _describe(plan.package, plan.codec)
        assert codec is not None
        arguments = read_lm_config(header).conditioners[language_model.DESCRIPTION].arguments
        name = arguments.take_str("name")
        own = Tensors.of(header).under(language_model.FINETUNED_T5) if arguments.take_bool("finetune", False) else None
        parts = cls(
            header,
            model,
            Tensors.of(header).without(language_model.FINETUNED_T5),
            codec,
            _read_text_encoder(plan.text_encoders[name], model.text_width, own),
            name if _is_safe(name) else _UNNAMED,
        )
        parts.tensors.check(names.audiocraft_shapes(language_model.pairs(model)) | parts.window)
        parts.text.tensors.check(t5.shapes(parts.text.config))
        parts.codec.check()
        return parts

    @property
    def window(self) -> names.Shapes:
        """The tensor that transformers computes, where the package stores it."""
        chroma = self.model.chroma
        return {language_model.WINDOW: (chroma.n_fft,)} if chroma is not None and chroma.stored_window else {}

    def convert(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Configuration and tensors as transformers has them.

        Raises:
            WeightsError: a tensor holds NaN or infinity, or is not what transformers computes in its place.
        """
        loaded = self.tensors.load()
        for name in self.window:
            _check_window(self.header, loaded[name])
        model, config, encoder = self.model, self.text.config, self.text.tensors.load()
        tensors = names.to_transformers(language_model.pairs(model), loaded)
        if model.text_width == model.dim:
            config, encoder = t5.widened(config, encoder)
            tensors[_TEXT_PROJECTION] = F.pad(tensors[_TEXT_PROJECTION], (0, config["d_model"] - model.dim))
        tensors |= {_TEXT + name: tensor for name, tensor in encoder.items()}
        tensors |= {_AUDIO + name: tensor for name, tensor in self.codec.load().items()}
        described = {
            **language_model.transformers_config(model),
            "text_encoder": {"_name_or_path": self.text_name, **config},
            "audio_encoder": encodec.transformers_config(self.codec.config, model.codec_codebooks),
        }
        return described, tensors


def _is_safe(name: object) -> bool:
    """Whether something may be the name of a directory beside a package's files."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and ".." not in name and not name.endswith(".bin")


def _read_text_encoder(directory: AnyPath, width: int, own: Tensors | None) -> _TextEncoder:
    """A text encoder, with its own weights or with those that were trained along with a model.

    Raises:
        UnresolvedReferenceError: there is none, or one of another width.
    """
    if not (directory / CONFIG_FILE).is_file():
        raise UnresolvedReferenceError(
            f"{directory}: there is no {CONFIG_FILE}, as the directory of a text encoder has. Give it with "
            "text_encoder= (--text-encoder)."
        )
    config = read_json(directory / CONFIG_FILE)
    settings = t5.read_config(config.top())
    if settings["d_model"] != width:
        raise UnresolvedReferenceError(
            f"The text encoder '{directory}' is {settings['d_model']} wide, but the language model was trained with "
            f"one of width {width}. Give another with text_encoder= (--text-encoder)."
        )
    tensors = read_directory(directory, config) if own is None else own
    tensors = tensors.renamed(lambda name: t5.encoder_name(name, twin=t5.EMBEDDING in tensors.names))
    return _TextEncoder(settings, tensors, find_tokenizer(directory))


def _check_window(header: Header, window: Tensor) -> None:
    if not torch.allclose(window.float(), torch.hann_window(len(window)), atol=1e-3):
        raise WeightsError(
            f"{header.path}: the tensor '{language_model.WINDOW}' is no Hann window, and transformers has no other."
        )


# --------------------------------------------------------------------------------------------- from transformers


def from_transformers(directory: Source, out: Source, *, revision: str | None = None, overwrite: bool = False) -> Path:
    """Write a MusicGen of transformers' as an export package, its text encoder in a directory beside the files.

    Weights keep their type.

    Args:
        directory: that transformers saved a ``MusicgenForConditionalGeneration`` or
            ``MusicgenMelodyForConditionalGeneration`` in, with its processor; on the disk or on the Hub.
        out: the directory to write.
        revision: of a repository on the Hub: a branch, a tag or a commit.
        overwrite: take the place of a directory that is there.

    Returns:
        The directory.

    Raises:
        SourceError: there is no such directory.
        ConfigError: AudioCraft cannot express the model; the message lists all that keeps it from it.
        PackageError: a file cannot be read, or its tensors are not those that the configuration describes.
        OutputError: the directory cannot be written, or is there already.
    """
    path = sources.locate(directory, revision)
    if path is None:
        raise sources.missing(directory)
    config = read_json(path / CONFIG_FILE)
    settings = t5.read_config(config.section("text_encoder"))
    codec, more = encodec.read_transformers(config.section("audio_encoder"))
    model, obstacles = language_model.read_transformers(
        config,
        _optional(path / _GENERATION_FILE),
        _features(path),
        text_width=settings["d_model"],
        frame_rate=codec.frame_rate,
    )
    obstacles += [*more, *_misfits(model, codec)]
    if obstacles:
        raise _refusal(path, "AudioCraft", obstacles)
    tokenizer = find_tokenizer(path)
    stored = read_directory(path, config)
    tensors = stored.renamed(lambda name: _canonical(name, stored.names))
    pairs, codec_pairs = language_model.pairs(model), encodec.pairs(codec)
    tensors.check(
        names.transformers_shapes(pairs)
        | {_AUDIO + name: shape for name, shape in names.transformers_shapes(codec_pairs).items()}
        | {_TEXT + name: shape for name, shape in t5.shapes(settings).items()}
    )

    loaded = tensors.fetch(progress=True).load()
    result = names.to_audiocraft(pairs, loaded)
    text_tensors = _under(_TEXT, loaded)
    projection = f"{language_model.TEXT_PROJECTION}.weight"
    if not model.text_projection:
        some = result["out_norm.bias"]
        result[projection] = torch.eye(model.dim, dtype=some.dtype)
        result[f"{language_model.TEXT_PROJECTION}.bias"] = torch.zeros_like(some)
    elif model.text_width == model.dim * t5.WIDENING:
        narrow = t5.narrowed(settings, text_tensors)
        if narrow is not None:
            settings, text_tensors = narrow
            result[projection] = result[projection][:, : model.dim]
    if model.chroma is not None and model.chroma.stored_window:
        result[language_model.WINDOW] = torch.hann_window(model.chroma.n_fft).to(result["out_norm.bias"])
    name = config.get("text_encoder._name_or_path")
    with written_directory(Path(out), overwrite=overwrite) as target:
        text = target / (str(name) if _is_safe(name) else _UNNAMED)
        text.mkdir(parents=True)
        write_model(
            text, {"architectures": [f"{settings['model_type'].upper()}EncoderModel"], **settings}, text_tensors
        )
        copy_tokenizer(tokenizer, text)
        file = target / sources.CODEC_FILE
        codec_tensors = names.to_audiocraft(codec_pairs, _under(_AUDIO, loaded))
        written = Contents(codec_tensors, Config(encodec.audiocraft_config(codec)).to_yaml())
        write_bin(written, file)
        fingerprint = codec_fingerprint(file)  # of what is built from it
        write_bin(replace(written, fingerprint=fingerprint), file)
        described = Config(language_model.audiocraft_config(model, codec, str(text.relative_to(target))))
        of_codec = model.codec_fingerprint or fingerprint
        write_bin(Contents(result, described.to_yaml(), fingerprint=of_codec), target / sources.LM_FILE)
        check(target)  # what cannot be read again is not put in place
    return Path(out)


def _optional(path: AnyPath) -> Config:
    return read_json(path) if path.is_file() else Config({}, str(path))


def _features(path: AnyPath) -> Config:
    """How the model takes in audio; newer processors keep that in a file of their own."""
    whole = _optional(path / _PROCESSOR_FILE)
    if "feature_extractor" in whole:
        return Config(whole.top().take_mapping("feature_extractor"), f"{whole.where}: feature_extractor")
    return _optional(path / _FEATURES_FILE)


def _misfits(model: LanguageModel, codec: Encodec) -> list[str]:
    """What keeps language model and codec apart; transformers does not compare them."""
    found = []
    if model.card != codec.bins:
        found.append(f"decoder.vocab_size is {model.card}, but audio_encoder.codebook_size {codec.bins}")
    if model.codec_codebooks > codec.num_codebooks:
        found.append(
            f"decoder.num_codebooks is {model.n_q}, which needs {model.codec_codebooks} of a codec, but "
            f"audio_encoder.target_bandwidths leave it {codec.num_codebooks}"
        )
    if model.stereo and codec.channels != 1:
        found.append(
            f"decoder.audio_channels is 2, over two mono streams, but audio_encoder.audio_channels {codec.channels}"
        )
    return found


def _canonical(name: str, others: Container[str]) -> str | None:
    """What a tensor of a whole model is called here; ``None`` where it is not needed."""
    if name.startswith(_TEXT):
        found = t5.encoder_name(name.removeprefix(_TEXT), twin=_TEXT + t5.EMBEDDING in others)
        return None if found is None else _TEXT + found
    if name.startswith(_AUDIO):
        return _AUDIO + encodec.canonical(name.removeprefix(_AUDIO))
    return None if name == _POSITIONS else name


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
