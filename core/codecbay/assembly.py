"""Assembling a model from a configuration: YAML text in a file, or the same as a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codecbay.errors import AssemblyError, nearest
from codecbay.factory import load

if TYPE_CHECKING:
    from codecbay.generation import GenerativeModel

_KEYS: dict[str, tuple[type, ...]] = {
    "lm": (str,),
    "codec": (str, dict),
    "text_encoder": (str,),
    "device": (str,),
    "dtype": (str,),
    "codec_dtype": (str,),
    "generation": (dict,),
}
_CODEC_KEYS: dict[str, tuple[type, ...]] = {"source": (str,), "num_codebooks": (int,)}
_GENERATION_KEYS: dict[str, tuple[type, ...]] = {
    "use_sampling": (bool,),
    "top_k": (int,),
    "top_p": (int, float),
    "temperature": (int, float),
    "duration": (int, float),
    "cfg_coef": (int, float),
    "two_step_cfg": (bool,),
    "extend_stride": (int, float),
}


def assemble(config: str | os.PathLike[str] | Mapping[str, Any]) -> GenerativeModel:
    """Load a model as a configuration says.

    Args:
        config: a YAML file, or a mapping (OmegaConf's too). Keys: ``lm``, ``codec`` (a source, or a mapping
            with ``source`` and ``num_codebooks``), ``text_encoder``, ``device``, ``dtype``, ``codec_dtype``,
            ``generation`` (arguments of ``set_generation_params``). Paths in a file are relative to it.

    Raises:
        AssemblyError: keys are unknown or missing, or values of the wrong kind; all are listed.
        CodecbayError: see :func:`codecbay.load`.
    """
    values, directory = _read(config)
    problems = _problems(values)
    if problems:
        raise AssemblyError("The assembly configuration is wrong:\n" + "\n".join(f"  {p}" for p in problems))
    codec = values.get("codec")
    codec = codec if isinstance(codec, dict) else {"source": codec}
    model = load(
        _relative(values["lm"], directory) or "",
        _relative(codec.get("source"), directory),
        num_codebooks=codec.get("num_codebooks"),
        text_encoder=_relative(values.get("text_encoder"), directory),
        device=values.get("device"),
        dtype=values.get("dtype"),
        codec_dtype=values.get("codec_dtype"),
    )
    model.set_generation_params(**(values.get("generation") or {}))
    return model


def _read(config: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    directory = Path()
    try:
        if isinstance(config, (str, os.PathLike)):
            path = Path(config)
            directory = path.parent
            loaded: Any = OmegaConf.load(path)
        else:
            loaded = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
        values = OmegaConf.to_container(loaded, resolve=True, throw_on_missing=True)
    except (OSError, YAMLError, OmegaConfBaseException, ValueError, UnicodeDecodeError) as error:
        raise AssemblyError(f"The assembly configuration cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise AssemblyError("The assembly configuration should be a mapping with the key 'lm'.")
    return {str(key): value for key, value in values.items()}, directory


def _problems(values: dict[str, Any]) -> list[str]:
    problems = [] if values.get("lm") else ["'lm' is missing: the package to load."]
    problems += _kind_problems("", values, _KEYS)
    for name, keys in (("codec", _CODEC_KEYS), ("generation", _GENERATION_KEYS)):
        if isinstance(values.get(name), dict):
            problems += _kind_problems(f"{name}.", values[name], keys)
    return problems


def _kind_problems(prefix: str, values: dict[str, Any], known: dict[str, tuple[type, ...]]) -> list[str]:
    problems = []
    for key, value in values.items():
        if key not in known:
            problems.append(f"'{prefix}{key}' is not known.{nearest(str(key), known)}")
        elif value is not None and (
            not isinstance(value, known[key]) or (isinstance(value, bool) and bool not in known[key])
        ):
            names = " or ".join("mapping" if kind is dict else kind.__name__ for kind in known[key])
            problems.append(f"'{prefix}{key}' should be {names}, found {value!r}.")
    return problems


def _relative(source: str | None, directory: Path) -> str | None:
    """A path that stands in a file is meant from there; a name stays a name."""
    if source is None or Path(source).is_absolute():
        return source
    beside = directory / source
    return str(beside) if beside.exists() else source
