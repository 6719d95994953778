"""Loading: everything is checked on the way, by several threads, and what fits as it is stored is not copied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codecbay.errors import PackageError, WeightsError
from codecbay.package.weights import assign, load_tensors
from package.conftest import Read
from package.forge import harmless, package, record, saved

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def packed(tensors: dict[str, Tensor]) -> bytes:
    return saved(package("lm", best_state=tensors))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_largest_and_smallest_numbers_are_finite(dtype: torch.dtype, read: Read) -> None:
    facts = torch.finfo(dtype)
    values = torch.tensor([facts.max, facts.min, facts.tiny, -facts.tiny, 0.0, -0.0], dtype=dtype)
    values = torch.cat([values, torch.full((70_000,), facts.max, dtype=dtype)])  # whose sum is not
    assert torch.equal(load_tensors(read(packed({"large": values})))["large"], values)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_nan_is_found(dtype: torch.dtype, sign: int, read: Read) -> None:
    whole = WHOLE[dtype.itemsize]
    infinity = int(torch.tensor(torch.inf, dtype=dtype).view(whole))
    for bits in (infinity + 1, torch.iinfo(whole).max):  # the smallest and the largest
        weight = torch.zeros(33, 65, dtype=dtype)
        weight.view(whole)[-1, -2] = bits if sign > 0 else bits + torch.iinfo(whole).min
        assert weight.isnan().any()
        for layout in (weight, weight.t(), weight[:, 3::2]):
            with pytest.raises(WeightsError, match="'bad' holds NaN or infinity"):
                load_tensors(read(packed({"bad": layout})))


def test_each_of_the_tensors_that_share_a_block_is_looked_at(threads: int, read: Read) -> None:
    whole = torch.randn(6, 5)
    whole[5, 4] = torch.nan
    assert load_tensors(read(packed({"good": whole[:3]})))["good"].isfinite().all()
    with pytest.raises(WeightsError, match="'bad'"):
        load_tensors(read(packed({"good": whole[:3], "bad": whole[3:]})))


def test_the_first_that_is_not_finite_is_named(threads: int, read: Read) -> None:
    tensors = {str(i): torch.full((10_000,), 1.0 if i < 5 else torch.inf) for i in range(40)}
    with pytest.raises(WeightsError, match="'5'"):
        load_tensors(read(packed(tensors)))


def test_a_damaged_tensor_is_not_taken_for_one_that_is_not_finite(threads: int, read: Read) -> None:
    data = packed({"a": torch.ones(5000), "b": torch.full((5000,), 2.0)})
    start = data.index(record(data, "/data/1"))
    header = read(data[:start] + torch.tensor([torch.nan]).numpy().tobytes() + data[start + 4 :])
    with harmless(), pytest.raises(PackageError, match="checksum"):
        load_tensors(header)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(700, 1100, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_weights_are_converted_as_torch_does_and_kept_where_they_are_otherwise(dtype: torch.dtype, read: Read) -> None:
    stored = torch.randn(1100, 700).half()
    tensors = load_tensors(read(packed({"weight": stored.t()})))
    layer = Layer()
    assign(layer, tensors, device=torch.device("cpu"), dtype=dtype)
    assert torch.equal(layer.weight, stored.t().to(dtype))
    assert (layer.weight.data_ptr() == tensors["weight"].data_ptr()) is (dtype == torch.float16)
