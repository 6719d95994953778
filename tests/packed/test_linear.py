"""Linear layers over packed weights, against ``F.linear``."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from codecbay.packed import Linear, Projection, keep_scratch, mixed_linear
from codecbay.packed.onednn import computes_in


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@given(
    rows=st.integers(1, 70),
    inputs=st.integers(1, 90),
    outputs=st.integers(1, 90),
    biased=st.booleans(),
    expected_rows=st.sampled_from([1, 8]),
    stored=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    exponent=st.integers(-20, 8),
)
@torch.no_grad()
def test_float32_results_are_those_of_float32(
    rows: int, inputs: int, outputs: int, biased: bool, expected_rows: int, stored: torch.dtype, exponent: int
) -> None:
    weight = numbers(outputs, inputs, scale=2.0**exponent).to(stored)
    bias = numbers(outputs, seed=1, scale=2.0**exponent) if biased else None
    x = numbers(rows, 1, inputs, seed=2)
    projection = Projection()
    projection.rows = expected_rows
    found = projection(x, weight, bias)
    assert found.dtype == torch.float32
    # What bfloat16 holds next to a larger number in its row may be below half precision's smallest.
    allowed = 2**-12 if stored == torch.bfloat16 else 3e-6
    sums = x.abs().sum(-1, keepdim=True) * weight.abs().amax(1) + (0 if bias is None else bias.abs())
    assert (found - exact(x, weight, bias)).abs().le(allowed * sums).all()


@pytest.mark.parametrize(
    "weight",
    [
        numbers(8, 16, scale=1e6),  # beyond half precision
        torch.cat([numbers(4, 16, scale=1e-12), numbers(4, 16)]),  # rows whose numbers half precision does not know
        torch.zeros(8, 16),
    ],
    ids=["large", "tiny rows", "zeros"],
)
@torch.no_grad()
def test_what_half_precision_cannot_hold_is_still_right(weight: Tensor) -> None:
    x = numbers(2, 16, seed=1)
    torch.testing.assert_close(Projection()(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-18)


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@torch.no_grad()
def test_several_weights_are_computed_as_one(activation: str) -> None:
    weights, biases = [numbers(n, 16, seed=n) for n in (4, 6)], [numbers(n, seed=n) for n in (4, 6)]
    x = numbers(2, 3, 16)
    expected = torch.cat([F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)], dim=-1)
    if activation != "none":
        expected = getattr(F, activation)(expected)
    torch.testing.assert_close(Projection()(x, weights, biases, activation), expected)


@pytest.mark.skipif(not computes_in(torch.bfloat16), reason="needs bfloat16 instructions")
@torch.no_grad()
def test_bfloat16_rounds_its_inputs_where_that_is_faster() -> None:
    weight, bias, x = numbers(96, 256).bfloat16(), numbers(96, seed=1).bfloat16(), numbers(8, 256, seed=2)
    expected = exact(x, weight, bias)
    projection = Projection()
    projection.precision = torch.bfloat16
    assert error(projection(x, weight, bias), expected) < 1e-5
    projection.rows = 8
    found = projection(x, weight, bias)
    assert found.dtype == torch.float32
    assert 1e-4 < error(found, expected) < 0.01


@pytest.mark.parametrize("rows", [1, 2, 8, 300])
@torch.no_grad()
def test_8_bits_are_off_by_a_percent(rows: int) -> None:
    weight, bias, x = numbers(96, 256), numbers(96, seed=1), numbers(rows, 256, seed=2)
    projection = Projection()
    projection.precision = torch.int8
    found = projection(x, weight, bias)
    assert 1e-4 < error(found, exact(x, weight, bias)) < 0.03


@torch.no_grad()
def test_8_bit_rows_have_scales_of_their_own() -> None:
    weight, x = torch.cat([numbers(8, 64), numbers(8, 64, seed=1, scale=1e-4)]), numbers(2, 64, seed=2)
    projection = Projection()
    projection.precision = torch.int8
    found, expected = projection(x, weight), exact(x, weight)
    assert error(found[:, 8:], expected[:, 8:]) < 0.03


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30])
def test_8_bit_weights_are_those_of_torch(scale: float) -> None:
    weight = numbers(40, 24, scale=scale)
    weight[3] = 0
    projection = Projection()
    projection.precision = torch.int8
    product = projection.pack(weight)
    assert product is not None
    found = torch.ops.quantized.linear_unpack(product.packed)[0]
    scales, zeros = found.q_per_channel_scales(), torch.zeros(40, dtype=torch.int64)
    torch.testing.assert_close(scales, (weight.abs().amax(1) / 127).clamp(min=2.0**-126).double())
    expected = torch.quantize_per_channel(weight, scales.float(), zeros, 0, torch.qint8)
    assert torch.equal(found.int_repr(), expected.int_repr())


def test_choosing_the_8_bit_engine_leaves_no_trace() -> None:
    before = torch.backends.quantized.engine
    projection = Projection()
    projection.precision = torch.int8
    with torch.no_grad():
        projection(numbers(1, 4), numbers(4, 4))
    assert torch.backends.quantized.engine == before


@pytest.mark.parametrize("rows", [2, 8])
@pytest.mark.parametrize("precision", [torch.float32, torch.int8])
@torch.no_grad()
def test_memory_that_is_used_again_holds_nothing_that_is_needed(rows: int, precision: torch.dtype) -> None:
    weights = [numbers(outputs, 32, seed=outputs) for outputs in (48, 16, 64)]
    projections = [Projection() for _ in weights]
    for projection in projections:
        projection.rows, projection.precision = rows, precision
    with ThreadPoolExecutor(1, initializer=keep_scratch) as pool:
        for _ in pool.map(Projection.pack, projections, weights):
            pass
    x = numbers(rows, 32)
    for projection, weight in zip(projections, weights, strict=True):
        allowed = 0.03 if precision == torch.int8 else 3e-6
        assert error(projection(x, weight), exact(x, weight)) < allowed


def test_changed_weights_are_noticed() -> None:
    layer, x = Linear(8, 4), numbers(2, 8)
    with torch.no_grad():
        for change in (
            lambda: layer.weight.mul_(2),
            lambda: layer.bias.add_(1),
            lambda: layer.load_state_dict({"weight": numbers(4, 8), "bias": numbers(4)}),
            lambda: setattr(layer, "weight", torch.nn.Parameter(numbers(4, 8, seed=3))),
            lambda: layer.to(torch.float16),
        ):
            layer(x)
            change()
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight.float(), layer.bias.float()))


def test_gradients_flow_through_the_ordinary_product() -> None:
    layer, x = Linear(8, 4), numbers(2, 8)
    with torch.no_grad():
        packed = layer(x)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y, packed)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(4, 8))


@pytest.mark.parametrize("outputs", [0, 1, 255, 256, 600])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_in_another_dtype_are_converted_in_parts(stored: torch.dtype, outputs: int) -> None:
    weight, bias = numbers(outputs, 1024).to(stored), numbers(outputs, seed=1).to(stored)
    x = numbers(2, 3, 1024, seed=2)
    for known in (bias, None):
        found = mixed_linear(x, weight, known)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact(x, weight, known), rtol=1e-5, atol=1e-4)


def test_training_drops_the_copy() -> None:
    layer, x = Linear(8, 4), numbers(2, 8)
    with torch.no_grad():
        before = layer(x)
        layer.train()
        layer.weight.data.neg_()  # what torch does not count
        layer.eval()
        torch.testing.assert_close(layer(x) - layer.bias, layer.bias - before)


def test_layers_are_copied_and_pickled_without_their_copies() -> None:
    layer, x = Linear(8, 4), numbers(2, 8)
    with torch.no_grad():
        expected = layer(x)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(other(x), expected)
            other.weight.neg_()
            torch.testing.assert_close(layer(x), expected)


def test_the_state_is_that_of_torch() -> None:
    assert {k: v.shape for k, v in Linear(8, 4).state_dict().items()} == {
        k: v.shape for k, v in torch.nn.Linear(8, 4).state_dict().items()
    }


@torch.inference_mode()
def test_weights_made_in_inference_mode() -> None:
    weight, x = numbers(4, 8), numbers(2, 8)
    torch.testing.assert_close(Projection()(x, weight), F.linear(x, weight))
