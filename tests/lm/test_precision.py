"""What ``dtype`` does to a language model, and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import codecbay
from codecbay.errors import CodecbayError
from codecbay.generation import MusicGen
from models import TEXT_ENCODER, package

DTYPES = ["float16", "bfloat16", "int8"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose language model is stored in half precision, as published ones are."""
    directory = tmp_path_factory.mktemp("half")
    whole = package("musicgen-mono")
    content = torch.load(whole / "state_dict.bin", weights_only=False)
    content["best_state"] = {name: tensor.half() for name, tensor in content["best_state"].items()}
    torch.save(content, directory / "state_dict.bin")
    (directory / "compression_state_dict.bin").write_bytes((whole / "compression_state_dict.bin").read_bytes())
    return directory


def load(source: Path, **options: Any) -> MusicGen:
    model = codecbay.load(source, text_encoder=TEXT_ENCODER, device="cpu", **options)
    assert isinstance(model, MusicGen)
    model.set_generation_params(use_sampling=False, duration=0.5)
    return model


def tokens(model: MusicGen) -> Tensor:
    found: Tensor = model.generate(["calm piano", "drums"], return_tokens=True)[1]
    return found


@torch.no_grad()
def logits(model: MusicGen) -> Tensor:
    codes = torch.randint(0, model.lm.card, (2, model.lm.n_q, 40), generator=torch.Generator().manual_seed(0))
    return model.compute_predictions(codes, ["calm piano", "drums"]).logits


def test_matrices_stay_as_they_are_stored(half: Path) -> None:
    lm: Any = load(half).lm
    assert lm.dtype == lm.arithmetic == torch.float32
    assert lm.transformer.layers[0].linear1.weight.dtype == torch.float16
    assert lm.emb[0].weight.dtype == torch.float16
    assert lm.transformer.layers[0].norm1.weight.dtype == torch.float32


def test_stored_and_converted_matrices_give_the_same(half: Path) -> None:
    stored, converted = load(half), load(half, dtype="float32")
    assert {p.dtype for p in converted.lm.parameters()} == {torch.float32}
    assert torch.equal(tokens(stored), tokens(converted))
    torch.testing.assert_close(logits(stored), logits(converted), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [("float16", 0.0, 1e-3), ("bfloat16", 1e-4, 2e-2), ("int8", 1e-4, 5e-2)]
)
def test_short_weights_cost_little(half: Path, dtype: str, least: float, most: float) -> None:
    exact, found = logits(load(half)), logits(load(half, dtype=dtype))
    assert found.dtype == torch.float32
    difference = (found - exact).norm() / exact.norm()
    assert least <= difference < most


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_by_step_is_as_in_one_go(half: Path, dtype: str) -> None:
    model = load(half, dtype=dtype)
    generated = tokens(model)
    with torch.no_grad():
        found = model.compute_predictions(generated, ["calm piano", "drums"])
    assert torch.isfinite(found.logits).all()
    assert generated.shape[:2] == (2, model.lm.n_q)


def test_quantizing_leaves_the_parameters(half: Path, tmp_path: Path) -> None:
    model = load(half, dtype="int8")
    tokens(model)
    exact = load(half)
    for name, tensor in exact.lm.state_dict().items():
        assert torch.equal(model.lm.state_dict()[name], tensor), name
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(load(tmp_path / "saved")), logits(exact), rtol=0, atol=0)


def test_training_gives_matrices_the_precision_of_the_rest(half: Path) -> None:
    model = load(half, dtype="int8")
    before = tokens(model)
    lm: Any = model.lm.train()
    assert {p.dtype for p in lm.parameters()} == {torch.float32}
    model.compute_predictions(torch.zeros(1, lm.n_q, 8, dtype=torch.long), ["drums"]).logits.sum().backward()
    assert lm.transformer.layers[0].linear1.weight.grad is not None
    lm.eval()
    assert torch.equal(tokens(model), before)


def test_gradients_reach_matrices_that_are_stored_short(half: Path) -> None:
    model = load(half)
    lm: Any = model.lm
    model.compute_predictions(torch.zeros(1, lm.n_q, 8, dtype=torch.long), ["drums"]).logits.sum().backward()
    assert lm.transformer.layers[0].linear1.weight.grad.dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_8_bits_are_for_the_cpu(half: Path) -> None:
    with pytest.raises(CodecbayError, match="int8"):
        codecbay.load(half, text_encoder=TEXT_ENCODER, device="cuda", dtype="int8")
