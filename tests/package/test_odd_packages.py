"""Packages that are odd but right: each loads, and is the model that the golden package is."""

from __future__ import annotations

import datetime
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import codecbay
from codecbay.errors import UnsafePickleError
from package.forge import (
    config_text,
    configured,
    directory,
    harmless,
    legacy,
    package,
    record,
    rezipped,
    saved,
    tensors,
    with_pickle,
)

METADATA: dict[str, Any] = {
    "epoch": 3,
    "loss": 0.5,
    "seed": 1 << 100,
    "note": "of a training run",
    "none": None,
    "history": [1, "a", (2, 3), {"a": {1: 2}}],
    "size": torch.Size([1, 2]),
    "raw": b"abc",
    "numpy": [np.float64(2.5), np.int64(3), np.bool_(True), np.float32(1.0), np.dtype("f4")],
}
TEXT = config_text("lm")


def text(change: Callable[[str], str]) -> bytes:
    return saved(package("lm", xp_cfg=change(TEXT)))


def state(change: Callable[[Any], Any], role: str = "lm") -> dict[str, Any]:
    return package(role, best_state={name: change(value) for name, value in tensors(role).items()})


def metadata_of_numpy_1(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def first_release(role: str) -> dict[str, Any]:
    return {key: package(role)[key] for key in ("best_state", "xp.cfg")}


embeddings = torch.cat([tensors("lm")[f"emb.{i}.weight"] for i in range(4)])
SHARED = {f"emb__{i}__weight": embeddings[65 * i : 65 * (i + 1)] for i in range(4)}

LANGUAGE_MODELS = {
    "first release": saved(first_release("lm")),
    "old container": legacy(package("lm")),
    "old container, protocol 4": legacy(package("lm"), pickle_protocol=4),
    **{f"protocol {p}": saved(package("lm", **METADATA), pickle_protocol=p) for p in (2, 3, 4, 5)},
    "numpy 1": rezipped(saved(package("lm", **METADATA)), metadata_of_numpy_1),
    "OrderedDict": saved(OrderedDict(package("lm"))),
    "plain dictionaries": saved(package("lm", best_state=dict(tensors("lm")))),
    "parameters": saved(state(nn.Parameter)),
    "double precision": saved(state(torch.Tensor.double)),
    "not contiguous": saved(state(lambda x: torch.stack([x, x], -1)[..., 0])),
    "shared memory": saved(package("lm", best_state=tensors("lm", **SHARED))),
    "shared memory, old container": legacy(package("lm", best_state=tensors("lm", **SHARED))),
    "pickle of another protocol in the archive": with_pickle(
        record(saved(package("lm"), pickle_protocol=5), "data.pkl")
    ),
    "byte order mark": text(lambda t: "\ufeff" + t),
    "line ends of Windows": text(lambda t: t.replace("\n", "\r\n")),
    "JSON": text(lambda t: json.dumps(yaml.safe_load(t))),
    "document marks": text(lambda t: f"---\n{t}...\n"),
    "other sections": text(lambda t: t + "\nother: {a: [1, {b: 2020-01-01}], b: '${oc.env:USER}', c: '${now:%Y}'}\n"),
    "no lm_model": text(lambda t: t.replace("lm_model: transformer_lm\n", "")),
    "reference": text(lambda t: t.replace("  dim: 32\n", "  dim: ${sizes[0].dim}\n") + "sizes: [{dim: 32}]\n"),
    "reference to a section": text(lambda t: t.replace("transformer_lm:\n", "transformer_lm: ${base}\nbase:\n")),
    "sections of training gone": saved(configured("lm", {"tokens": None, "metrics": ...})),
}
CODECS = {
    "first release": saved(first_release("codec")),
    "old container": legacy(package("codec")),
    "parameters": saved(state(nn.Parameter, "codec")),
    "defaults": saved(configured("codec", {"seanet.last_kernel_size": ..., "seanet.causal": ..., "rvq.decay": ...})),
    "null for what is empty": saved(configured("codec", {"seanet.norm_params": None, "seanet.encoder": None})),
}


def same(module: nn.Module, reference: nn.Module) -> bool:
    found, expected = module.state_dict(), reference.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory: pytest.TempPathFactory, text_encoder: Path) -> codecbay.GenerativeModel:
    return codecbay.load(directory(tmp_path_factory.mktemp("golden")), text_encoder=text_encoder, device="cpu")


@pytest.mark.parametrize("data", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)
def test_an_odd_language_model_loads(
    data: bytes, golden_model: codecbay.GenerativeModel, text_encoder: Path, tmp_path: Path
) -> None:
    path = directory(tmp_path, lm=data)
    with harmless():
        model = codecbay.load(path, text_encoder=text_encoder, device="cpu")
    assert same(model.lm, golden_model.lm)


@pytest.mark.parametrize("data", CODECS.values(), ids=CODECS)
def test_an_odd_codec_loads(data: bytes, golden_model: codecbay.GenerativeModel, tmp_path: Path) -> None:
    path = directory(tmp_path, codec=data)
    with harmless():
        codec = codecbay.load_codec(path, device="cpu")
    assert same(codec, golden_model.compression_model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("write", [saved, legacy])
def test_weights_of_half_precision_load(
    dtype: torch.dtype, write: Callable[[Any], bytes], text_encoder: Path, tmp_path: Path
) -> None:
    half = state(lambda x: x.to(dtype))
    path = directory(tmp_path, lm=write(half), codec=write(state(lambda x: x.to(dtype), "codec")))
    model = codecbay.load(path, text_encoder=text_encoder, device="cpu")
    weights = model.lm.state_dict()
    assert all(torch.equal(weights[name], value.float()) for name, value in half["best_state"].items())


@pytest.mark.parametrize("value", [datetime.datetime(2023, 6, 8), {1, 2}, np.ones(3), Path("x"), 1j], ids=repr)
def test_metadata_that_would_run_code_is_refused(value: Any, tmp_path: Path) -> None:
    path = directory(tmp_path, lm=saved(package("lm", metadata=value)))
    with harmless(), pytest.raises(UnsafePickleError, match="nothing was run"):
        codecbay.check(path)
