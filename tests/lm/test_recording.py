"""Recorded steps give what steps taken one by one give, for as long as they stand for the same computation."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codecbay.lm import recording
from codecbay.lm.conditioners import ConditioningAttributes
from codecbay.lm.model import LMModel
from codecbay.lm.sampling import Sampling
from models import TRANSFORMERS, load_model

FRAMES = 20
SHORT = ("bfloat16", "int8")
MODELS = [
    *TRANSFORMERS,
    "musicgen-melody",
    "kvrepeat-rope-memeff",
    "past8-memeff",
    "fuse-interpolate",
    "rope-memeff-prepend",
    "xpos-past8-prepend",
    "xpos-sinrope-memeff",
]


class Watched(Sampling):
    """Takes the likeliest token, and keeps the logits."""

    def __init__(self) -> None:
        super().__init__(use_sampling=False)
        object.__setattr__(self, "logits", [])

    def __call__(self, logits: Tensor) -> Tensor:
        vars(self)["logits"].append(logits.clone())
        return super().__call__(logits)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[recording.Recording]:
    """All that are made."""
    made: list[recording.Recording] = []
    record = recording.Recording._record

    def count(self: recording.Recording, inputs: Any) -> Any:
        made.append(self)
        return record(self, inputs)

    monkeypatch.setattr(recording.Recording, "_record", count)
    return made


@pytest.fixture
def lm() -> LMModel:
    model: LMModel = load_model("musicgen-mono", dtype="float32").lm
    return model


def conditions(*texts: str | None) -> list[ConditioningAttributes]:
    return [ConditioningAttributes(text={"description": text}) for text in texts]


def logits(lm: LMModel, *texts: str | None, frames: int = FRAMES, **options: Any) -> Tensor:
    watched = Watched()
    attributes = conditions(*texts) if lm.condition_provider.conditioners else []
    lm.generate(conditions=attributes, num_samples=len(texts), max_gen_len=frames, sampling=watched, **options)
    return torch.stack(vars(watched)["logits"])


def one_by_one(lm: LMModel, *texts: str | None, **options: Any) -> Tensor:
    """With a hook on the model, which recordings would pass by."""
    calls: list[int] = []
    with_hook = lm.transformer.register_forward_hook(lambda module, args, output: calls.append(1))
    try:
        found = logits(lm, *texts, **options)
    finally:
        with_hook.remove()
    assert len(calls) >= len(found)
    return found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in MODELS), *((name, dtype) for name in ("scales", "past8-rope") for dtype in SHORT)],
)
def test_recorded_steps_are_those_taken_one_by_one(
    name: str, dtype: str, recordings: list[recording.Recording]
) -> None:
    lm = load_model(name, dtype=dtype).lm
    for texts in (["calm piano"], ["calm piano", None, "drums"]):
        for two_step_cfg in (False, True):
            expected = one_by_one(lm, *texts, two_step_cfg=two_step_cfg)
            lm._recording.clear()
            recordings.clear()
            assert torch.equal(logits(lm, *texts, two_step_cfg=two_step_cfg), expected)
            assert len(recordings) == 1
    assert expected.std(0).mean() > 1e-3  # steps differ


def test_one_recording_serves_all_generations_of_a_batch(lm: LMModel, recordings: list[recording.Recording]) -> None:
    codes = torch.randint(lm.card, (2, lm.n_q, 7))
    runs: list[dict[str, Any]] = [{}, {"frames": 31}, {"prompt": codes}, {"cfg_coef": 1.5}]
    texts = [("calm piano", "drums"), ("a long text about drums and a slow bass line", None)]
    for options in runs:
        for pair in texts:
            found = logits(lm, *pair, **options)
            assert torch.equal(found, one_by_one(lm, *pair, **options))
    assert len(recordings) == 1
    logits(lm, "drums")
    assert len(recordings) == 2


def double(lm: LMModel) -> None:
    with torch.no_grad():
        first: Any = lm.transformer.layers[0]
        first.linear1.weight.mul_(2)


def replace(lm: LMModel) -> None:
    second: Any = lm.transformer.layers[1]
    second.norm1.weight = nn.Parameter(torch.full((lm.config.transformer.dim,), 0.3))


def reload(lm: LMModel) -> None:
    state = {name: 1.5 * tensor for name, tensor in lm.state_dict().items() if "condition_provider" not in name}
    lm.load_state_dict(state, strict=False, assign=True)


def drop_layer(lm: LMModel) -> None:
    lm.transformer.layers = lm.transformer.layers[1:]
    object.__setattr__(lm.config.transformer, "num_layers", len(lm.transformer.layers))


@pytest.mark.parametrize("change", [double, replace, reload, drop_layer, LMModel.quantize])
def test_a_change_of_the_model_is_heard(change: Any, lm: LMModel, recordings: list[recording.Recording]) -> None:
    before = logits(lm, "drums")
    change(lm)
    after = logits(lm, "drums")
    assert len(recordings) == 2
    assert not torch.allclose(after[1:], before[1:], atol=1e-4)
    assert torch.equal(after, one_by_one(lm, "drums"))


@pytest.fixture
def hooked(lm: LMModel) -> Iterator[list[int]]:
    seen: list[int] = []
    layer: Any = lm.transformer.layers[0]
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    yield seen
    hook.remove()


def test_hooks_are_called_at_every_step(lm: LMModel, hooked: list[int], recordings: list[recording.Recording]) -> None:
    count = len(logits(lm, "drums"))
    assert hooked == [1] * count
    assert not recordings


def test_under_autocast_and_in_training_steps_are_taken_one_by_one(
    lm: LMModel, recordings: list[recording.Recording]
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits(lm, "drums")
    lm.train()
    logits(lm, "drums")
    assert not recordings


def test_under_inference_mode(lm: LMModel) -> None:
    expected = logits(lm, "drums")
    with torch.inference_mode():
        assert torch.equal(logits(lm, "drums"), expected)
    lm.eval()
    assert torch.equal(logits(lm, "drums"), expected)
    fresh = load_model("musicgen-mono", dtype="float32").lm
    with torch.inference_mode():
        assert torch.equal(logits(fresh, "drums"), expected)
    assert torch.equal(logits(fresh, "drums"), expected)


def test_a_recording_is_neither_copied_nor_saved(lm: LMModel, recordings: list[recording.Recording]) -> None:
    expected = logits(lm, "drums")
    for other in (copy.deepcopy(lm), pickle.loads(pickle.dumps(lm.transformer))):
        assert all(module._recording.value is None for module in other.modules() if isinstance(module, LMModel))
    assert torch.equal(logits(copy.deepcopy(lm), "drums"), expected)
    assert len(recordings) == 2


def test_training_frees_it(lm: LMModel) -> None:
    logits(lm, "drums")
    kept = weakref.ref(lm._recording.value)
    lm.train()
    assert kept() is None


def test_a_model_goes_with_its_last_reference() -> None:
    lm = load_model("musicgen-mono").lm
    logits(lm, "drums")
    gone = weakref.ref(lm)
    gc.disable()
    try:
        del lm
        assert gone() is None
    finally:
        gc.enable()


def test_threads_share_a_model(lm: LMModel) -> None:
    expected = [one_by_one(lm, text) for text in ("drums", "calm piano")]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda text: logits(lm, text), ("drums", "calm piano")))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
