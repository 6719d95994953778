"""Building a model of the transformers library from a package, strictly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from codecbay.errors import ConfigError, WeightsError
from codecbay.imports import harmless_torchaudio, import_library
from codecbay.package import Header, PackageFile
from codecbay_transformers.chunked import ChunkedCodec
from codecbay_transformers.codec import TransformersCodec
from codecbay_transformers.families import Description
from codecbay_transformers.packing import pack_model

_FAMILIES = {  # by which the library names its classes
    "encodec": "Encodec",
    "dac": "Dac",
    "mimi": "Mimi",
    "xcodec": "Xcodec",
    "xcodec2": "Xcodec2",
    "neucodec": "NeuCodec",
    "higgs_audio_v2_tokenizer": "HiggsAudioV2Tokenizer",
}
_SHOWN = 5  # names listed of a kind of mismatch


def load(file: PackageFile, description: Description, *, device: torch.device, dtype: torch.dtype) -> TransformersCodec:
    """Build a codec and give it the tensors of its package.

    Raises:
        MissingDependencyError: transformers is not installed, or too old to have the family.
        ConfigError: the library does not accept the configuration.
        WeightsError: the tensors are not those that the configuration describes.
    """
    kind = description.model_type
    # The file itself: transformers' own front door is shut to what imports torchaudio, where there is none.
    library = import_library(
        f"transformers.models.{kind}.modeling_{kind}",
        needed_by=f"A codec of the kind '{kind}'",
        install="pip install --upgrade transformers",
    )
    with harmless_torchaudio(), _quiet():
        model = _model(library, file, description)
    pack_model(model)
    codec_class = TransformersCodec if description.chunk is None else ChunkedCodec
    codec = codec_class(description, model, str(file.header.path))
    codec.requires_grad_(False)
    codec.fingerprint()  # before dtype rounds the codebooks: the codec is the same one in any precision
    _convert(codec.model, device, dtype)
    return codec.eval()


def _model(library: ModuleType, file: PackageFile, description: Description) -> nn.Module:
    header, family = file.header, _FAMILIES[description.model_type]
    model_name = f"{family}Model"
    model_class: Any = getattr(library, model_name)
    try:
        config = getattr(library, f"{family}Config")(**description.arguments)
        with torch.device("meta"):
            empty: nn.Module = model_class(config)
    except Exception as error:  # validation, arithmetic and torch's own: whatever wrong sizes lead to
        raise ConfigError(f"{header.config.where}: {model_name} cannot be built from it: {_one_line(error)}") from error
    _check_size(header, empty)
    names = empty.state_dict().keys()
    tensors = {
        name: tensor for name, tensor in file.tensors().items() if name in names or name not in description.unused
    }
    model: nn.Module
    try:
        model, found = _strict(model_class).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # what the library makes of tensors that do not fit has no type of its own
        raise WeightsError(f"{header.path}: {model_name} cannot take the tensors: {_one_line(error)}") from error
    problems = [
        f"{what}: {_names(found[key])}."
        for what, key in (
            ("missing", "missing_keys"),
            ("unexpected", "unexpected_keys"),
            ("of another shape", "mismatched_keys"),
            ("not readable", "error_msgs"),
        )
        if found.get(key)
    ]
    if problems:
        raise WeightsError(f"{header.path}: the tensors do not fit the configuration. " + " ".join(problems))
    return model


def _strict(model_class: Any) -> Any:
    """The class, without the names that the library overlooks when a package has too many tensors."""

    def post_init(self: Any) -> None:
        model_class.post_init(self)
        self._keys_to_ignore_on_load_unexpected = set()

    # By name and module the library knows which names of tensors were others once.
    members = {"post_init": post_init, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), members)


def _check_size(header: Header, empty: nn.Module) -> None:
    """Nothing much larger than what the package holds is allocated."""
    needed = sum(tensor.numel() for tensor in empty.state_dict().values())
    held = sum(info.numel for info in header.tensors.values())
    if needed > 2 * held + (1 << 20):
        raise WeightsError(
            f"{header.path}: the configuration describes {needed} numbers in its tensors, but the package holds {held}."
        )


def _names(found: Any) -> str:
    names = sorted(f"'{item if isinstance(item, str) else item[0]}'" for item in found)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _convert(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a model; what is computed from the configuration, such as rotary frequencies, keeps its precision."""
    stored = model.state_dict().keys()
    computed = {name: buffer for name, buffer in model.named_buffers() if name not in stored}
    # Mimi derives its codebooks from sums and counts, which a short format may not hold, and remembers the outcome.
    tables: list[Any] = [module for module in model.modules() if hasattr(module, "embed_sum")]
    sums = [(table.embed, table.embed_sum, table.cluster_usage) for table in tables]
    model.to(device=device, dtype=dtype)
    for name, buffer in computed.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, buffer.to(device))
    for table, (embed, total, usage) in zip(tables, sums, strict=True):
        table._embed = embed.to(device=device, dtype=dtype)
        table.embed_sum, table.cluster_usage = total.to(device), usage.to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and its table of mismatches: errors say it."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
