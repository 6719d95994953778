"""Building the language model of a package."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from codecbay.lm.conditioners import (
    ConditionerContext,
    ConditionerFactory,
    ConditioningProvider,
    T5Conditioner,
    build_conditioner,
)
from codecbay.lm.config import LMConfig
from codecbay.lm.model import LMModel
from codecbay.package import PackageFile
from codecbay.package.weights import assign, check_tensors

TextEncoderFinder = Callable[[str], str]


def build_lm(
    file: PackageFile,
    config: LMConfig,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    find_text_encoder: TextEncoderFinder,
    conditioners: Sequence[ConditionerFactory] = (),
) -> LMModel:
    """Build a language model, on the meta device first, and give it the tensors of its package.

    Args:
        file: the package file.
        config: read from its header.
        device: where the model shall live.
        dtype: of its parameters; ``None`` leaves matrices as they are stored, where that takes less memory than
            float32, which is computed in.
        find_text_encoder: from a T5 model's name to a directory or a name that can be loaded.
        conditioners: kinds of conditioners that plugins bring.

    Raises:
        ConfigError: a conditioner is configured wrongly.
        WeightsError: the tensors are not those that the configuration describes.
        UnresolvedReferenceError: the text encoder cannot be found.
    """
    header = file.header
    modules = {}
    for name, entry in config.conditioners.items():
        prefix = f"condition_provider.conditioners.{name}."
        context = ConditionerContext(
            name=name,
            output_dim=config.transformer.dim,
            max_duration=config.max_duration,
            tensor_shapes={
                key.removeprefix(prefix): info.shape for key, info in header.tensors.items() if key.startswith(prefix)
            },
            text_encoder=find_text_encoder(str(entry.arguments.take("name", ""))) if entry.model == "t5" else None,
        )
        modules[name] = build_conditioner(entry, context, conditioners)
    provider = ConditioningProvider(modules)
    with torch.device("meta"):
        model = LMModel(config, provider)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_tensors(header, expected)
    tensors = file.tensors()
    as_stored = () if dtype is not None else {name for name in expected if _is_short_matrix(name, tensors[name])}
    assign(model, tensors, device=device, dtype=dtype or torch.float32, as_stored=as_stored)
    for conditioner in modules.values():
        if isinstance(conditioner, T5Conditioner) and conditioner.finetune:
            conditioner.t5.tie_weights()  # assigning them one by one has parted what is one tensor
    return model.eval()


def _is_short_matrix(name: str, tensor: torch.Tensor) -> bool:
    # Norms and biases take next to nothing, and conditioners compute in the type of their weights.
    conditioner = name.startswith("condition_provider.")
    return not conditioner and tensor.dim() == 2 and tensor.dtype in (torch.float16, torch.bfloat16)
