"""Conditions: their absence, their masks, and how they enter the transformer."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any

import pytest
import torch

from codecbay.errors import ConfigError, MissingDependencyError, PluginError, UnresolvedReferenceError
from codecbay.lm.conditioners import (
    ConditionerContext,
    ConditioningAttributes,
    ConditioningProvider,
    Fuser,
    LUTConditioner,
    T5Conditioner,
    WavCondition,
    build_conditioner,
)
from codecbay.lm.config import ConditionerConfig, FuserConfig
from codecbay.lm.text import NoopTokenizer, WordTokenizer, load_t5
from codecbay.package import Section
from models import TEXT_ENCODER, load_model, noise


def row(word: str, num_bins: int) -> int:
    return int(sha256(word.encode()).hexdigest(), 16) % num_bins


def test_one_token_for_a_whole_text() -> None:
    tokens, mask = NoopTokenizer(50, pad=3)(["calm piano", None, ""])
    assert tokens.tolist() == [[row("calm piano", 50)], [3], [row("", 50)]]
    assert mask.tolist() == [[1], [0], [1]]


def test_one_token_for_each_word() -> None:
    tokens, mask = WordTokenizer(50, pad=3)(["calm piano", None, "", "one two three"])
    one, two, three = (row(word, 50) for word in ("one", "two", "three"))
    calm, piano = row("calm", 50), row("piano", 50)
    assert tokens.tolist() == [[calm, piano, 3], [3, 3, 3], [3, 3, 3], [one, two, three]]
    assert mask.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("texts", [[""], ["", ""], [None], ["", None]], ids=str)
def test_texts_without_words_take_one_masked_step(texts: list[str | None]) -> None:
    tokens, mask = WordTokenizer(50)(texts)
    assert tokens.tolist() == mask.tolist() == [[0]] * len(texts)


def test_absent_words_embed_as_nothing() -> None:
    torch.manual_seed(0)
    lut = LUTConditioner(50, 4, 6, WordTokenizer(50))
    embedding, mask = lut(["calm piano", None])
    assert embedding.shape == (2, 2, 6)
    assert mask.tolist() == [[1, 1], [0, 0]]
    assert (embedding[0] != 0).all()
    assert (embedding[1] == 0).all()


@pytest.fixture
def t5() -> T5Conditioner:
    torch.manual_seed(0)
    return T5Conditioner(*load_t5(str(TEXT_ENCODER)), output_dim=6)


def test_absent_and_empty_descriptions_embed_as_nothing(t5: T5Conditioner) -> None:
    embedding, mask = t5(["calm piano", None, ""])
    assert (embedding[0] != 0).any(-1).all()
    assert mask[0].all()
    assert not mask[1:].any()
    assert (embedding[1:] == 0).all()


def test_a_description_does_not_depend_on_its_batch(t5: T5Conditioner) -> None:
    alone, mask = t5(["calm"])
    among, _ = t5(["calm", "epic rock drums and loud guitar"])
    torch.testing.assert_close(among[:1, : mask.shape[1]], alone)


def test_a_frozen_encoder_is_out_of_sight(t5: T5Conditioner) -> None:
    assert set(t5.state_dict()) == {"output_proj.weight", "output_proj.bias"}
    assert t5(["calm"])[0].requires_grad
    assert not any(parameter.requires_grad for parameter in t5.t5.parameters())


def test_words_are_dropped_in_training_alone(t5: T5Conditioner) -> None:
    t5.word_dropout = 1.0
    t5.eval()
    assert t5(["calm piano"])[1].any()
    t5.train()
    assert not t5(["calm piano"])[1].any()


def test_attributes_without_conditions() -> None:
    melody = WavCondition(noise(1, 1, 100), 100, 8_000)
    item = ConditioningAttributes({"description": "calm", "genre": "rock"}, {"self_wav": melody})
    assert item.without("text", "genre").text == {"description": "calm", "genre": None}
    null = item.null()
    assert null.text == {"description": None, "genre": None}
    assert null.wav["self_wav"].length == 0
    assert null.wav["self_wav"].wav.shape == (1, 1, 1)
    assert item.text["genre"] == "rock"
    assert item.wav["self_wav"] is melody


def test_what_an_item_does_not_mention_is_absent() -> None:
    provider = ConditioningProvider({"genre": LUTConditioner(50, 4, 6, NoopTokenizer(50))})
    embedding, mask = provider([ConditioningAttributes(), ConditioningAttributes({"genre": "rock"})])["genre"]
    assert mask.tolist() == [[0], [1]]
    assert (embedding[0] == 0).all()


def test_melodies_of_one_batch_share_a_rate() -> None:
    lm = load_model("musicgen-melody").lm
    items = [ConditioningAttributes(wav={"self_wav": WavCondition(noise(1, 1, 9), 9, rate)}) for rate in (1, 2)]
    with pytest.raises(ValueError, match="one sample rate"):
        lm.condition_provider(items)


FUSED = {"a": (torch.ones(1, 2, 4), torch.ones(1, 2)), "b": (2 * torch.ones(1, 1, 4), torch.ones(1, 1))}


@pytest.mark.parametrize(
    ("methods", "steps", "cross"),
    [
        ({"prepend": ("a", "b")}, [2.0, 1.0, 1.0, 0.0, 0.0, 0.0], None),
        ({"cross": ("a", "b")}, [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]),
        ({"sum": ("b",), "cross": ("a",)}, [2.0, 2.0, 2.0], [1.0, 1.0]),
        ({"input_interpolate": ("a", "b")}, [3.0, 3.0, 3.0], None),
        ({"ignore": ("a", "b")}, [0.0, 0.0, 0.0], None),
    ],
    ids=str,
)
def test_how_conditions_enter(
    methods: dict[str, tuple[str, ...]], steps: list[float], cross: list[float] | None
) -> None:
    fuser = Fuser(FuserConfig(methods))
    x, attended = fuser(torch.zeros(1, 3, 4), FUSED, first=True)
    assert x[0, :, 0].tolist() == steps
    assert fuser.prefix_length(FUSED) == len(steps) - 3
    assert cross == (None if attended is None else attended[0, :, 0].tolist())


def test_later_chunks_are_not_prefixed_again() -> None:
    fuser = Fuser(FuserConfig({"prepend": ("a",), "cross": ("b",)}))
    x, cross = fuser(torch.zeros(1, 3, 4), FUSED, first=False)
    assert x.shape == (1, 3, 4)
    assert cross is None


def context(**changes: Any) -> ConditionerContext:
    values: dict[str, Any] = {
        "name": "description",
        "output_dim": 6,
        "max_duration": 2.0,
        "tensor_shapes": {},
        "text_encoder": str(TEXT_ENCODER),
    }
    return ConditionerContext(**{**values, **changes})


def built(model: str, arguments: dict[str, Any], **changes: Any) -> Any:
    return build_conditioner(ConditionerConfig(model, Section(arguments, model, "here")), context(**changes))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("chroma_stm", {}, "kind 'chroma_stm'.*Did you mean 'chroma_stem'"),
        ("t5", {"name": "x", "word_drop": 0.1}, "word_drop"),
        ("lut", {"n_bins": 5, "dim": 4, "tokenizer": "letters"}, "tokenizer"),
        ("lut", {"n_bins": 5, "dim": 4, "tokenizer": "noop", "pad_idx": 5}, "pad_idx"),
        ("lut", {"dim": 4, "tokenizer": "noop"}, "n_bins"),
        ("chroma_stem", {"sample_rate": 8000, "n_chroma": 12, "radix2_exp": 9, "norm": 0}, "norm"),
        ("chroma_stem", {"sample_rate": 8000, "n_chroma": 12, "radix2_exp": 9, "nfft": 64, "winlen": 99}, "winlen"),
    ],
)
def test_arguments_that_are_wrong(model: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(model, arguments)


def test_a_text_encoder_of_another_width() -> None:
    with pytest.raises(UnresolvedReferenceError, match=r"32 wide.*width 768"):
        built("t5", {"name": "t5-base"}, tensor_shapes={"output_proj.weight": (6, 768)})


@pytest.mark.parametrize("library", ["spacy", "num2words"])
@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("lut", {"n_bins": 5, "dim": 4, "tokenizer": "whitespace"}),
        ("t5", {"name": "x", "normalize_text": True}),
    ],
)
def test_texts_are_split_with_spacy_alone(
    monkeypatch: pytest.MonkeyPatch, library: str, model: str, arguments: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match="pip install spacy num2words"):
        built(model, arguments)


class CarelessFactory:
    """A plugin's kind of conditioner that builds something else."""

    name = "careless"

    def build(self, arguments: Section, context: ConditionerContext) -> Any:
        return torch.nn.Linear(1, 1)


def test_what_a_plugin_builds_has_to_be_a_conditioner() -> None:
    config = ConditionerConfig("careless", Section({}, "careless", "here"))
    with pytest.raises(PluginError, match="kind 'careless' built Linear, which is no Conditioner"):
        build_conditioner(config, context(), [CarelessFactory()])
