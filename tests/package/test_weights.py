"""Weights: the very tensors that were saved, finite and undamaged, or an error that names the one that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codecbay.errors import PackageError, PluginError, WeightsError
from codecbay.package import read_package_file
from codecbay.package.weights import assign, check_tensors, load_tensors
from package.conftest import Read
from package.forge import golden, harmless, legacy, package, record, rezipped, saved, tensors

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").rglob("*state_dict.bin"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_tensors_are_those_that_torch_reads(path: Path) -> None:
    expected = torch.load(path, weights_only=True)["best_state"]
    found = read_package_file(path).tensors()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


ODD = {
    **{str(dtype): torch.randn(3, 5, dtype=dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)},
    "parameter": nn.Parameter(torch.randn(3, 5)),
    "transposed": torch.randn(5, 3).t(),
    "strided": torch.randn(3, 10)[:, ::2],
    "sliced": torch.randn(6, 5)[3:],
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 5),
    "one": torch.ones(1, 1, 1),
}


def written_by_zip(content: Any, **options: Any) -> bytes:
    """Without the padding that aligns tensors."""
    return rezipped(saved(content, **options), lambda name, data: ("odd" + name, data))


@pytest.mark.parametrize("write", [saved, legacy, written_by_zip])
@pytest.mark.parametrize("protocol", [2, 5])
def test_tensors_may_be_of_any_float_and_layout(write: Callable[..., bytes], protocol: int, read: Read) -> None:
    found = load_tensors(read(write(package("lm", best_state=ODD), pickle_protocol=protocol)))
    for name, expected in ODD.items():
        assert found[name].dtype == expected.dtype
        assert not isinstance(found[name], nn.Parameter)
        assert torch.equal(found[name], expected)


@pytest.mark.parametrize("write", [saved, legacy])
def test_tensors_that_share_memory_still_do(write: Callable[..., bytes], read: Read) -> None:
    whole = torch.randn(6, 5)
    found = load_tensors(read(write(package("lm", best_state={"whole": whole, "part": whole[3:]}))))
    assert found["part"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()
    assert torch.equal(found["part"], whole[3:])


def test_what_is_done_to_a_tensor_is_not_done_to_the_file(read: Read, tmp_path: Path) -> None:
    data = golden("lm")
    for tensor in load_tensors(read(data)).values():
        tensor.zero_()
    assert (tmp_path / "file.bin").read_bytes() == data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_not_finite_is_refused(value: float, dtype: torch.dtype, read: Read) -> None:
    weight = torch.zeros(40, 50, dtype=dtype)
    weight[17, 23] = value
    with pytest.raises(WeightsError, match="'bad' holds NaN or infinity"):
        load_tensors(read(saved(package("lm", best_state={"good": torch.ones(3), "bad": weight}))))


def test_a_changed_tensor_is_found_by_its_checksum(read: Read) -> None:
    data, block = golden("codec"), record(golden("codec"), "/data/7")
    start = data.index(block)
    header = read(data[:start] + bytes([block[0] ^ 1]) + data[start + 1 :])
    with harmless(), pytest.raises(PackageError, match="checksum"):
        load_tensors(header)


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(golden("lm")[:-5000])])
def test_a_file_that_changes_after_its_header_was_read(change: Any, read: Read, tmp_path: Path) -> None:
    header = read(golden("lm"))
    change(tmp_path / "file.bin")
    with harmless(), pytest.raises(PackageError):
        load_tensors(header)


def test_torch_itself_reads_what_torch_wrote(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    load = torch.load

    def watched(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", watched)
    load_tensors(read(golden("lm")))
    assert [(options["weights_only"], options["mmap"]) for options in calls] == [(True, True)]


@pytest.mark.parametrize(
    "change",
    [
        {"emb__0__weight": None},
        {"emb__0__weight": tensors("lm")["emb.0.weight"].clone().t()},
        {"emb__0__weight": tensors("lm")["emb.0.weight"].double()},
        {"emb__0__weight": tensors("lm")["emb.0.weight"].flatten()},
    ],
    ids=["gone", "other strides", "another dtype", "another shape"],
)
def test_a_file_that_says_two_things_is_refused(
    change: dict[str, Any], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read(golden("lm"))
    other = package("lm", best_state=tensors("lm", **change))
    monkeypatch.setattr(torch, "load", lambda *args, **options: other)
    with pytest.raises(PackageError, match=r"'emb\.0\.weight' is not what the header says"):
        load_tensors(header)


# --------------------------------------------------------------------------------------- against the configuration

NAME = "emb__0__weight"
WEIGHT: Tensor = tensors("lm")["emb.0.weight"]
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({NAME: None}, "missing: emb.0.weight"),
    "unexpected": ({"extra": WEIGHT}, "unexpected: extra"),
    "misspelt": ({NAME: None, "emb__0__wieght": WEIGHT}, "Did you mean 'emb.0.wieght'"),
    "cut": ({NAME: WEIGHT[:10].clone()}, "of another shape: 'emb.0.weight'"),
    "transposed": ({NAME: WEIGHT.t().contiguous()}, "of another shape"),
    "one dimension more": ({NAME: WEIGHT[None]}, "of another shape"),
    "a scalar": ({NAME: torch.tensor(1.0)}, "of another shape"),
    "without elements": ({NAME: WEIGHT[:0]}, "of another shape"),
    "whole numbers": ({NAME: WEIGHT.int()}, "not floating point: 'emb.0.weight' .int32"),
    "truths": ({NAME: WEIGHT.bool()}, "not floating point"),
    "complex": ({NAME: WEIGHT.to(torch.complex64)}, "not floating point"),
}


@pytest.mark.parametrize(("changes", "problem"), MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_named(changes: dict[str, Any], problem: str, read: Read) -> None:
    expected = {name: tuple(value.shape) for name, value in tensors("lm").items()}
    check_tensors(read(golden("lm")), expected)
    with pytest.raises(WeightsError, match=problem):
        check_tensors(read(saved(package("lm", best_state=tensors("lm", **changes)))), expected)


def test_a_buffer_without_a_value_is_named() -> None:
    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(2))
            self.register_buffer("window", torch.hann_window(4), persistent=False)

    with torch.device("meta"):
        module = Windowed()
    with pytest.raises(PluginError, match=r'Windowed: the buffer \'window\' has no value.*device="cpu"'):
        assign(module, {"weight": torch.ones(2)}, device=torch.device("cpu"), dtype=torch.float32)


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "array": lambda x: x.numpy(),
    "number": lambda x: 1.0,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_other_kinds_of_tensors_are_refused(kind: Callable[[Tensor], Any], read: Read) -> None:
    with pytest.raises(PackageError):
        read(saved(package("lm", best_state={"a": kind(torch.ones(2, 2))})))
