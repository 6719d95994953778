"""Drawing tokens: against a plain reference, and by its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codecbay.errors import GenerationError
from codecbay.lm.sampling import Sampling
from models import noise

few = settings(max_examples=60, deadline=None, derandomize=True)
CARD = 12


def logits_of(seed: int) -> Tensor:
    return 8 * noise(2, 3, CARD, seed=seed)


def reference(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Tokens drawn as AudioCraft draws them: one row after another, top-p in the order of the probabilities."""
    rows, orders = [], []
    for row in torch.softmax(logits / temperature, -1).flatten(0, -2).tolist():
        order = list(range(CARD))
        if top_p > 0:
            order.sort(key=lambda token: -row[token])
            kept: list[int] = []
            while len(kept) < CARD and sum(row[token] for token in kept) <= top_p:
                kept.append(order[len(kept)])
        else:
            kept = sorted(order, key=lambda token: -row[token])[: top_k or CARD]
        rows.append([row[token] if token in kept else 0.0 for token in order])
        orders.append(order)
    drawn = torch.multinomial(torch.tensor(rows), 1)[:, 0].tolist()
    return torch.tensor([order[i] for order, i in zip(orders, drawn, strict=True)]).view(logits.shape[:-1])


@few
@given(
    seed=st.integers(0, 999),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.integers(0, CARD),
    top_p=st.sampled_from([0.0, 0.01, 0.5, 0.9, 1.0]),
)
def test_draws_what_a_plain_implementation_draws(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = logits_of(seed)
    torch.manual_seed(seed)
    expected = reference(logits, temperature, top_k, top_p)
    torch.manual_seed(seed)
    assert torch.equal(Sampling(True, temperature, top_k, top_p)(logits), expected)


@few
@given(seed=st.integers(0, 999), top_k=st.integers(1, CARD))
def test_top_k_draws_among_the_k_likeliest(seed: int, top_k: int) -> None:
    torch.manual_seed(seed)
    logits = logits_of(seed)
    tokens = Sampling(top_k=top_k, temperature=5.0)(logits)
    assert ((logits > logits.gather(-1, tokens[..., None])).sum(-1) < top_k).all()


@few
@given(seed=st.integers(0, 999), top_p=st.floats(0.01, 0.99))
def test_top_p_draws_among_those_that_have_the_probability(seed: int, top_p: float) -> None:
    torch.manual_seed(seed)
    logits = logits_of(seed)
    tokens = Sampling(top_p=top_p)(logits)
    probs = logits.softmax(-1)
    likelier = probs * (probs > probs.gather(-1, tokens[..., None]))
    assert (likelier.sum(-1) <= top_p + 1e-6).all()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(use_sampling=False),
        Sampling(temperature=0.0),
        Sampling(top_k=1, temperature=3.0),
        Sampling(top_p=1e-6),
    ],
    ids=str,
)
def test_greedy_in_four_ways(sampling: Sampling) -> None:
    logits = logits_of(1)
    assert torch.equal(sampling(logits), logits.argmax(-1))


@pytest.mark.parametrize("options", [{}, {"top_k": 0}, {"top_k": CARD}, {"top_k": 10 * CARD}, {"top_p": 1.0}], ids=str)
def test_drawn_as_often_as_likely(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    probs = torch.tensor([0.6, 0.3, 0.1])
    tokens = Sampling(**options)(probs.log().expand(1, 20_000, 3))
    torch.testing.assert_close(tokens.flatten().bincount(minlength=3) / 20_000, probs, atol=0.015, rtol=0)


def test_equal_seeds_draw_equal_tokens() -> None:
    logits = torch.zeros(4, 4, CARD)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(Sampling()(logits))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"temperature": None},
        {"top_k": -1},
        {"top_k": 2.5},
        {"top_k": True},
        {"top_k": "many"},
        {"top_k": None},
        {"top_k": float("nan")},
        {"top_k": float("inf")},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"top_p": "most"},
        {"top_p": None},
    ],
    ids=str,
)
def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(GenerationError, match=next(iter(options))):
        Sampling(**options)
