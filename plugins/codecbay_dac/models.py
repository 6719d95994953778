"""The two models that read descript's weights: descript's own, and transformers' where that is not installed.

Either is built on the meta device without weight norms: those are folded into the weights, which changes no value.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from codecbay.errors import MissingDependencyError
from codecbay.imports import import_library
from codecbay.package import PackageFile
from codecbay.package.weights import assign, check_tensors
from codecbay_dac.config import DacConfig

INSTALL = "pip install 'codecbay[dac]'"
_NORMED = (".weight_g", ".weight_v")


def build_model(file: PackageFile, config: DacConfig) -> tuple[str, Any]:
    """The model on the CPU in float32, and the library that it is of.

    Raises:
        WeightsError: the tensors are not those that the configuration describes.
        MissingDependencyError: neither library can build it.
    """
    problems = []
    for library, model_of in MODELS.items():
        try:
            model, names = model_of(config)
        except MissingDependencyError as error:
            problems.append(error)
            continue
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        check_tensors(file.header, unfolded({names(name): shape for name, shape in shapes.items()}, model, names))
        folded = fold(file.tensors())
        tensors = {name: folded[names(name)] for name in shapes}
        assign(model, tensors, device=torch.device("cpu"), dtype=torch.float32)
        return library, model
    raise MissingDependencyError("\n".join(map(str, problems))) from problems[0]


def descript_model(config: DacConfig) -> tuple[nn.Module, Callable[[str], str]]:
    """Descript's ``DAC`` on the meta device, without weight norms; and the file's names for its tensors.

    Raises:
        MissingDependencyError: its library cannot be imported.
    """
    with warnings.catch_warnings():
        # It is of 2023: torch deprecates much of what it and its dependencies are made of.
        warnings.simplefilter("ignore")
        library = import_library("dac.model.dac", needed_by="The codec DAC", install=INSTALL)
        with torch.device("meta"):
            model: nn.Module = library.DAC(
                encoder_dim=config.encoder_dim,
                encoder_rates=list(config.encoder_rates),
                latent_dim=config.latent_dim,
                decoder_dim=config.decoder_dim,
                decoder_rates=list(config.decoder_rates),
                n_codebooks=config.n_codebooks,
                codebook_size=config.codebook_size,
                codebook_dim=list(config.codebook_dims),
                sample_rate=config.sample_rate,
            )
        for module in _convolutions(model).values():
            nn.utils.remove_weight_norm(module)
    return model, str


def transformers_model(config: DacConfig) -> tuple[nn.Module, Callable[[str], str]]:
    """Transformers' ``DacModel`` on the meta device; and the file's names for its tensors.

    Raises:
        MissingDependencyError: it cannot be imported, or has no such models.
    """
    library = import_library(
        "transformers.models.dac.modeling_dac", needed_by="The codec DAC", install="pip install transformers"
    )
    size, dims = config.codebook_size, set(config.codebook_dims)
    if size & (size - 1) or len(dims) > 1:
        raise MissingDependencyError(
            "Without descript's library, transformers builds the codec DAC, but only with codebooks of one width, of a "
            f"power of two of entries; found widths {sorted(dims)}, {size} entries. Install it: {INSTALL}"
        )
    options = library.DacConfig(
        encoder_hidden_size=config.encoder_dim,
        downsampling_ratios=list(config.encoder_rates),
        decoder_hidden_size=config.decoder_dim,
        n_codebooks=config.n_codebooks,
        codebook_size=size,
        codebook_dim=config.codebook_dims[0],
        sampling_rate=config.sample_rate,
    )
    # Derived by DacConfig from the values above; descript's arguments are free of each other.
    options.hidden_size = config.latent_dim
    options.upsampling_ratios = list(config.decoder_rates)
    with torch.device("meta"):
        model: nn.Module = library.DacModel(options)
    return model, lambda name: descript_name(name, config)


MODELS: Mapping[str, Callable[[DacConfig], tuple[nn.Module, Callable[[str], str]]]] = {
    "descript-audio-codec": descript_model,
    "transformers": transformers_model,
}


def descript_name(name: str, config: DacConfig) -> str:
    """The name in descript's files of a tensor of transformers' ``DacModel``."""
    part, _, rest = name.partition(".")
    if part == "quantizer":
        return name
    encoder = part == "encoder"
    root = "encoder.block" if encoder else "decoder.model"
    end = len(config.encoder_rates if encoder else config.decoder_rates) + 1
    # Within a block, transformers numbers modules of a kind; descript numbers them all.
    if match := re.fullmatch(r"block\.(\d+)\.res_unit(\d)\.(snake|conv)(\d)\.(.+)", rest):
        block, unit, kind, number, tensor = match.groups()
        place = 2 * (int(number) - 1) + (kind == "conv")
        return f"{root}.{int(block) + 1}.block.{int(unit) + (-1 if encoder else 1)}.block.{place}.{tensor}"
    if match := re.fullmatch(r"block\.(\d+)\.(snake1|conv1|conv_t1)\.(.+)", rest):
        block, kind, tensor = match.groups()
        place = (3 if encoder else 0) + (kind != "snake1")
        return f"{root}.{int(block) + 1}.block.{place}.{tensor}"
    module, _, tensor = rest.partition(".")
    outer = {"conv1": 0, "snake1": end, "conv2": end + 1}
    return f"{root}.{outer[module]}.{tensor}"


def _convolutions(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Conv1d, nn.ConvTranspose1d)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def unfolded(
    shapes: Mapping[str, tuple[int, ...]], model: nn.Module, names: Callable[[str], str]
) -> dict[str, tuple[int, ...]]:
    """Shapes by the file's names, with direction and length in place of each convolution's weight.

    Args:
        shapes: of the folded tensors, by the file's names.
        model: whose convolutions had weight norms.
        names: the file's names for the model's tensors.
    """
    normed = {names(f"{name}.weight") for name in _convolutions(model)}
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name in normed:
            result |= {f"{name}_g": (shape[0], 1, 1), f"{name}_v": shape}
        else:
            result[name] = shape
    return result


def fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in float32, each pair of length ``weight_g`` and direction ``weight_v`` folded into a ``weight``."""
    folded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem = name[: -len(_NORMED[0])]
        if name.endswith(_NORMED[1]):
            folded[f"{stem}.weight"] = torch._weight_norm(tensor.float(), tensors[f"{stem}.weight_g"].float(), 0)
        elif not name.endswith(_NORMED[0]):
            folded[name] = tensor.float()
    return folded
