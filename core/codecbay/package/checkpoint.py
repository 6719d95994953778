"""Training checkpoints of AudioCraft (``checkpoint.th``): the best weights and the configuration in them.

Beside the optimizer's state and much else, such a file holds ``best_state.model`` (or ``fsdp_best_state.model``, after
distributed training) and, in ``xp.cfg``, a pickled OmegaConf object. That is read without running anything: every
object comes as what the pickle says of it, and the configuration is put together from its nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codecbay.errors import ConfigError, PackageError
from codecbay.package.config import MAX_DEPTH, MAX_NODES, Config
from codecbay.package.container import read_container
from codecbay.package.header import Header, header_of, role_of
from codecbay.package.pickles import InertObject
from codecbay.remote import AnyPath

_BEST = ("fsdp_best_state", "best_state")  # the first is there, and not empty, only after distributed training


def read_checkpoint(path: AnyPath) -> Header:
    """The header of the best model in a training checkpoint, read without tensor data and without running anything.

    Raises:
        PackageError: it is none, or holds no best model; the message says what is missing.
        ConfigError: its configuration cannot be read.
    """
    container = read_container(path, inert=True)
    root = container.root
    if not isinstance(root, dict):
        raise PackageError(f"{path}: expected a dictionary with best_state and xp.cfg, found {type(root).__name__}.")
    if isinstance(root.get("xp.cfg"), str):
        raise PackageError(f"{path}: this is an export package already; nothing needs to be exported.")
    if "xp.cfg" not in root:
        found = ", ".join(repr(str(key)[:60]) for key in list(root)[:8]) or "nothing"
        raise PackageError(f"{path}: this is no training checkpoint: the key 'xp.cfg' is missing; found {found}.")
    try:
        config = _Plain()(root["xp.cfg"])
    except ValueError as error:
        raise ConfigError(f"{path}: xp.cfg cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: xp.cfg should be a configuration, found {type(config).__name__}.")
    key = next((key for key in _BEST if root.get(key)), None)
    state = None if key is None else root[key]
    if key is None or not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        found = ", ".join(repr(str(name)[:60]) for name in state) if isinstance(state, dict) else "nothing"
        raise PackageError(
            f"{path}: there is no best model in this checkpoint: 'best_state' (or 'fsdp_best_state') should hold "
            f"'model'; found {found}. AudioCraft writes it once a validation stage has run."
        )
    own = Config(config, f"{path}: xp.cfg")
    return header_of(path, "audiocraft", role_of(own, path), own, path, container, key, "model")


class _Plain:
    """Makes plain data of a pickled OmegaConf object (https://omegaconf.readthedocs.io)."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"it nests deeper than {MAX_DEPTH} levels or has more than {MAX_NODES} values")
        if isinstance(value, InertObject):
            return self._node(value, depth)
        if isinstance(value, dict):
            if not all(isinstance(key, (str, int, float, bool)) for key in value):
                raise ValueError("a mapping has something else than text or a number for a key")
            return {key: self(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item, depth + 1) for item in value]
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        raise ValueError(f"it holds a value of the type {type(value).__name__}")

    def _node(self, node: InertObject, depth: int) -> Any:
        module = node.kind.rpartition(".")[0]
        if module.startswith("omegaconf.") and isinstance(node.state, dict):
            for key in ("_content", "_val"):  # of a container; of a value
                if key in node.state:
                    return self(node.state[key], depth + 1)
        if module == "pathlib" and all(isinstance(part, str) for part in node.args):
            return str(Path(*node.args))
        raise ValueError(f"it holds an object of the type {node.kind[:100] or 'unknown'}")
