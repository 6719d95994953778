"""Decoding by graphs: one recorded step, repeated to the letter, gives what step after step gives.

Recordings are made on the CPU, by a tracer that, as CUDA graphs do, takes every number from the host for a constant,
and whatever lies in a tensor from the outside for what it is when the recording is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import goldens
from codecbay.lm import graphs, model
from codecbay.lm.conditioners import ConditioningAttributes
from codecbay.lm.graphs import CudaGraphs, StaticState, StaticSteps
from codecbay.lm.model import LMModel
from codecbay.lm.sampling import Sampling, _race
from codecbay.lm.transformer import DecodingState
from codecbay.packed import linear
from models import TRANSFORMERS, load_model, noise, package

STEPS = 26
BUCKET = 16

MODELS = [
    *TRANSFORMERS,
    "kvrepeat-rope-memeff",
    "past8-memeff",
    "fuse-interpolate",
    "rope-memeff-prepend",
    "xpos-past8-prepend",
    "xpos-sinrope-memeff",
]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Recorded:
    """Runs functions as :class:`codecbay.lm.graphs.CudaGraphs` does, with recordings on any device."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.recordings: dict[int, GraphModule] = {}

    def __call__(self, key: int, function: Callable[[], None]) -> None:
        if key in self.recordings:
            self.recordings[key]()
        else:  # which runs it, too
            self.recordings[key] = make_fx(lambda: function())()

    @property
    def operators(self) -> set[str]:
        return {str(node.target) for graph in self.recordings.values() for node in graph.graph.nodes}


@pytest.fixture(autouse=True)
def recordable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small buckets, and ordinary products in place of those that the tracer does not know."""
    monkeypatch.setattr(graphs, "_BUCKET", BUCKET)
    monkeypatch.setattr(linear, "_FEW", 0)


@pytest.fixture
def by_recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Has models on the CPU generate as they do on CUDA; what was recorded."""
    made: list[Recorded] = []

    def record(device: torch.device) -> Recorded:
        made.append(Recorded())
        return made[-1]

    monkeypatch.setattr(model, "CudaGraphs", record)
    monkeypatch.setattr(LMModel, "_repeats_on", lambda self, device: device == "cuda")
    return made


def attributes(*texts: str | None) -> list[ConditioningAttributes]:
    return [ConditioningAttributes(text={"description": text}) for text in texts]


class Decoding:
    """Decodes the same steps with shapes that grow and with static ones."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        lm: LMModel = load_model(name, device=device, dtype="float32").lm
        self.lm = lm
        self.conditions = (
            lm.condition_provider(attributes("calm piano", None)) if lm.condition_provider.conditioners else {}
        )
        generator = torch.Generator().manual_seed(3)
        self.steps = torch.randint(0, lm.card + 1, (2, lm.n_q, STEPS), generator=generator).to(device)

    def step(self, state: DecodingState, new: Tensor) -> Tensor:
        logits: Tensor = self.lm(new, condition_tensors=self.conditions, state=state, last_only=True)
        return logits[:, :, -1]

    def state(self) -> DecodingState:
        capacity = STEPS + self.lm.fuser.prefix_length(self.conditions)
        return DecodingState(self.lm.config.transformer, 2, capacity, self.lm.device, torch.float32)

    def chunks(self, first: int) -> tuple[Tensor, ...]:
        return torch.split(self.steps, [first, *[1] * (STEPS - first)], dim=-1)

    def growing(self, first: int) -> Tensor:
        state = self.state()
        return torch.stack([self.step(state, chunk) for chunk in self.chunks(first)])

    def static(self, first: int, run: graphs.Runner) -> Tensor:
        steps = StaticSteps(self.step, self.state(), run)
        return torch.stack([steps(chunk).clone() for chunk in self.chunks(first)])


@pytest.mark.parametrize(
    ("name", "first"),
    [*((name, 9) for name in MODELS), ("musicgen-mono", 1), ("past8-rope", 1), ("rope-memeff-prepend", 1)],
)
@torch.no_grad()
def test_recorded_steps_give_what_growing_ones_give(name: str, first: int) -> None:
    decoding, run = Decoding(name), Recorded()
    expected = decoding.growing(first)
    torch.testing.assert_close(decoding.static(first, run), expected, rtol=0, atol=2e-5)
    assert len(run.recordings) > 1
    assert expected.std(0).mean() > 1e-3  # steps differ


@torch.no_grad()
def test_what_was_in_memory_does_not_show() -> None:
    decoding = Decoding("musicgen-mono")
    state = decoding.state()
    state._cache.fill_(float("nan"))
    steps = StaticSteps(decoding.step, state, lambda key, function: function())
    assert all(steps(chunk).isfinite().all() for chunk in decoding.chunks(3))


@torch.no_grad()
def test_a_recording_that_takes_the_position_from_the_host_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracer can tell."""

    def from_the_host(self: StaticState, steps: int) -> Tensor:
        return torch.full((1,), self.position)

    decoding = Decoding("musicgen-mono")
    monkeypatch.setattr(StaticState, "positions", from_the_host)
    run, expected = Recorded(), decoding.growing(1)
    torch.testing.assert_close(decoding.static(1, lambda _, function: function()), expected, rtol=0, atol=2e-5)
    assert not torch.allclose(decoding.static(1, run), expected, rtol=0, atol=1e-3)


GOLDENS = [
    ("musicgen-mono", "uncond_tokens"),
    ("musicgen-stereo", "sampled_top_p_tokens"),
    ("musicgen-melody", "melody_tokens"),
    ("kvrepeat-rope-memeff", "cont_tokens"),
    ("melody-interpolate", "melody_tokens"),
    ("xpos-past8-prepend", "cont_tokens"),
    ("rope-memeff-prepend", "cont_tokens"),
    ("twostep-rope-past8", "cont_tokens"),
    ("twostep-prepend-mha", "sampled_top_k_tokens"),
    ("unroll-0112", "sampled_top_k_tokens"),
]


@pytest.mark.parametrize(("name", "key"), GOLDENS)
def test_generates_by_recordings_what_audiocraft_generates(name: str, key: str, by_recordings: list[Recorded]) -> None:
    """With prompts, conditions in front, windows, guidance in one step and in two."""
    golden = goldens.Golden(package(name))
    assert torch.equal(golden.compute(key), golden.tensors[key])
    assert all(len(run.recordings) > 1 for run in by_recordings)
    used = set().union(*(run.operators for run in by_recordings))
    assert "aten.index_copy_.default" in used
    assert not used & {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.multinomial.default"}


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.9), Sampling(use_sampling=False)], ids=str)
def test_generation_never_waits_between_steps(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LMModel, "_repeats_on", lambda self, device: False)
    lm: LMModel = load_model("musicgen-mono").lm
    with Waits() as waits:  # type: ignore[no-untyped-call]
        torch.ones(1).item()
        assert waits.count == 1  # it can count
        counts: list[int] = []
        lm.generate(
            conditions=attributes("drums"),
            max_gen_len=12,
            sampling=sampling,
            callback=lambda done, to_do: counts.append(waits.count),
        )
    assert len(counts) > 12
    assert len(set(counts)) == 1


def test_draws_on_a_device_are_those_of_multinomial() -> None:
    probs = torch.softmax(8 * noise(3, 4, 50), -1)
    probs[..., ::3] = 0
    for seed in range(40):
        torch.manual_seed(seed)
        expected = torch.multinomial(probs.flatten(0, -2), 1).view(3, 4)
        torch.manual_seed(seed)
        assert torch.equal(_race(probs), expected)


@needs_cuda
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_graphs_on_cuda_give_what_the_cpu_gives(name: str) -> None:
    run = CudaGraphs(torch.device("cuda", torch.cuda.current_device()))
    found = Decoding(name, "cuda").static(5, run)
    assert len(run._graphs) > 1
    torch.testing.assert_close(found.cpu(), Decoding(name).growing(5), rtol=0, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("two_step_cfg", [False, True])
def test_graphs_on_cuda_leave_the_draws_alone(two_step_cfg: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm: LMModel = load_model("musicgen-mono", device="cuda", dtype="float32").lm
    found = []
    for use in (True, False):
        monkeypatch.setattr(LMModel, "_repeats_on", lambda self, device, use=use: use and device == "cuda")
        torch.manual_seed(5)
        found.append(lm.generate(conditions=attributes("drums"), max_gen_len=STEPS, two_step_cfg=two_step_cfg))
    assert torch.equal(*found)


@needs_cuda
def test_on_cuda_the_host_never_waits_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_BUCKET", 1024)
    lm: LMModel = load_model("musicgen-mono", device="cuda").lm

    def forbid(done: int, to_do: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if graphs._WARM_UP + 2 < done < to_do else "default")

    try:
        assert lm.generate(conditions=attributes("drums"), max_gen_len=40, callback=forbid).is_cuda
    finally:
        torch.cuda.set_sync_debug_mode("default")
