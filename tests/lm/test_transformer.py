"""The transformer: step by step as in one go, and ready to be trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codecbay.lm.conditioners import ConditioningAttributes
from codecbay.lm.model import LMModel
from codecbay.lm.transformer import DecodingState
from codecbay.package import read_package_file
from models import TRANSFORMERS, load_model, package

STEPS = 14

# Where AudioCraft's own streaming agrees with its full forward pass. With memory-efficient attention its rotary
# positions do not, nor does a first chunk longer than past_context; the golden tests hold us to what it computes.
STREAMING = [*TRANSFORMERS, "t5-finetune"]


def attributes(*texts: str | None) -> list[ConditioningAttributes]:
    return [ConditioningAttributes(text={"description": text}) for text in texts]


def sequence(lm: LMModel, batch: int = 2, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, lm.card + 1, (batch, lm.n_q, steps), generator=generator)


def begun(lm: LMModel, steps: Tensor, conditions: Any) -> DecodingState:
    capacity = steps.shape[-1] + lm.fuser.prefix_length(conditions)
    return DecodingState(lm.config.transformer, len(steps), capacity, lm.device, lm.dtype)


def in_chunks(
    lm: LMModel, steps: Tensor, conditions: Any, sizes: list[int], state: DecodingState | None = None
) -> Tensor:
    """Logits for every step, decoded chunk by chunk."""
    state = state or begun(lm, steps, conditions)
    chunks = steps.split(sizes, dim=-1)
    return torch.cat([lm(chunk, condition_tensors=conditions, state=state) for chunk in chunks], dim=2)


@pytest.mark.parametrize("first", [1, 6])
@pytest.mark.parametrize("name", STREAMING)
@torch.no_grad()
def test_step_by_step_is_as_in_one_go(name: str, first: int) -> None:
    lm: LMModel = load_model(name).lm
    conditions = lm.condition_provider(attributes("calm piano", None)) if lm.condition_provider.conditioners else {}
    steps = sequence(lm)
    whole = lm(steps, condition_tensors=conditions)
    parts = in_chunks(lm, steps, conditions, [first, *[1] * (STEPS - first)])
    assert whole.shape == (2, lm.n_q, STEPS, lm.card)
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("texts", "rows"), [(("calm", None, None), 1), ((None, "calm", None), 2), ((None, None), 1), ((None, "calm"), 2)]
)
@torch.no_grad()
def test_the_last_rows_attend_to_nothing_where_they_have_no_conditions(
    texts: tuple[str | None, ...], rows: int
) -> None:
    lm: LMModel = load_model("musicgen-mono").lm
    conditions = lm.condition_provider(attributes(*texts))
    steps = sequence(lm, len(texts))
    state = begun(lm, steps, conditions)
    found = in_chunks(lm, steps, conditions, [1] * STEPS, state)
    torch.testing.assert_close(found, lm(steps, condition_tensors=conditions), rtol=0, atol=2e-5)
    assert [len(keys) for keys, _ in filter(None, state.cross)] == [rows] * lm.config.transformer.num_layers


@torch.no_grad()
def test_the_last_step_alone() -> None:
    lm: LMModel = load_model("musicgen-mono").lm
    conditions = lm.condition_provider(attributes("calm piano", None))
    steps = sequence(lm)
    torch.testing.assert_close(
        lm(steps, condition_tensors=conditions, last_only=True), lm(steps, condition_tensors=conditions)[:, :, -1:]
    )


@pytest.mark.parametrize("name", ["musicgen-mono", "past8-rope", "rope-memeff-prepend"])
@torch.no_grad()
def test_no_step_sees_those_after_it(name: str) -> None:
    lm: LMModel = load_model(name).lm
    conditions = lm.condition_provider(attributes("calm piano", None))
    steps = sequence(lm)
    other = steps.clone()
    other[..., 9:] = lm.card - other[..., 9:]
    before, after = (lm(x, condition_tensors=conditions) for x in (steps, other))
    torch.testing.assert_close(before[:, :, :9], after[:, :, :9])
    assert not torch.allclose(before[:, :, 9:], after[:, :, 9:])


@torch.no_grad()
def test_past_context_limits_what_a_layer_sees() -> None:
    lm: LMModel = load_model("past8-rope").lm
    steps = sequence(lm, steps=40)
    other = steps.clone()
    other[..., 0] = lm.card - other[..., 0]
    conditions = lm.condition_provider(attributes("calm piano", None))
    before, after = (lm(x, condition_tensors=conditions) for x in (steps, other))
    reach = 8 * lm.config.transformer.num_layers
    torch.testing.assert_close(before[:, :, reach + 1 :], after[:, :, reach + 1 :])
    assert not torch.allclose(before[:, :, :reach], after[:, :, :reach])


@pytest.mark.parametrize(
    "name", ["musicgen-mono", "musicgen-stereo", "musicgen-melody", "audiogen", *STREAMING, "xpos-past8-prepend"]
)
def test_the_state_dict_is_that_of_the_package(name: str) -> None:
    stored = read_package_file(package(name) / "state_dict.bin", "lm").header.tensors
    state = load_model(name).lm.state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        key: tuple(info.shape) for key, info in stored.items()
    }


def trainable(name: str, **config: Any) -> LMModel:
    """A model in training mode that drops no conditions, nor words of them."""
    lm: Any = load_model(name).lm.train()
    lm.config = replace(lm.config, cfg_dropout=0.0, **config)
    lm.condition_provider.conditioners["description"].word_dropout = 0.0
    return lm  # type: ignore[no-any-return]


def loss_of(lm: LMModel, codes: Tensor, conditions: list[ConditioningAttributes]) -> Tensor:
    output = lm.compute_predictions(codes, conditions)
    return F.cross_entropy(output.logits[output.mask], codes[output.mask])


@pytest.mark.parametrize("name", ["qknorm-cross", "postnorm-layerscale", "mha-biases-float32", "t5-finetune"])
def test_gradients_reach_every_parameter(name: str) -> None:
    lm = trainable(name)
    loss_of(lm, sequence(lm).clamp(max=lm.card - 1), attributes("calm piano", "loud drums")).backward()
    gradients = {name: parameter.grad for name, parameter in lm.named_parameters()}
    assert gradients
    without = [name for name, grad in gradients.items() if grad is None or not grad.abs().sum() > 0]
    assert not without
    assert any("description.t5." in key for key in gradients) == (name == "t5-finetune")


def test_training_lowers_the_loss() -> None:
    lm = trainable("qknorm-cross")
    codes = sequence(lm).clamp(max=lm.card - 1)
    conditions = attributes("calm piano", "loud drums")
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = loss_of(lm, codes, conditions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_checkpointing_changes_memory_but_not_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        lm = trainable("qknorm-rope")
        lm.transformer.config = replace(lm.transformer.config, checkpointing=checkpointing)
        codes = sequence(lm).clamp(max=lm.card - 1)
        loss_of(lm, codes, attributes("calm", None)).backward()
        gradients.append([p.grad for p in lm.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    "dropout",
    [{"cfg_dropout": 1.0}, {"cfg_dropout": 0.0, "attribute_dropout": {"text": {"description": 1.0}}}],
    ids=str,
)
@torch.no_grad()
def test_training_drops_conditions_and_evaluation_does_not(dropout: dict[str, Any]) -> None:
    lm: LMModel = load_model("musicgen-mono").lm
    lm.config = replace(lm.config, **dropout)
    steps = sequence(lm)
    with_text, without = (lm(steps, attributes(text, text)) for text in ("calm piano", None))
    assert not torch.allclose(with_text, without)
    lm.train()
    torch.testing.assert_close(lm(steps, attributes("calm piano", "calm piano")), without)


@torch.no_grad()
def test_half_of_the_conditions_are_dropped_at_a_probability_of_a_half() -> None:
    lm: LMModel = load_model("lut-sum").lm.train()
    lm.config = replace(lm.config, cfg_dropout=0.5)
    steps = sequence(lm, steps=1)
    lm.eval()
    without = lm(steps, attributes(None, None))
    lm.train()
    dropped = [torch.allclose(lm(steps, attributes("a", "b")), without) for _ in range(60)]
    assert 15 < sum(dropped) < 45
