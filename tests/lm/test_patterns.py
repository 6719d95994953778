"""Codebook patterns: layouts drawn by hand, and laws that hold for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codecbay.errors import ConfigError
from codecbay.lm.config import PatternConfig
from codecbay.lm.patterns import Pattern, get_pattern

SPECIAL = 999
few = settings(max_examples=150, deadline=None, derandomize=True)

# Three codebooks (rows) of four frames (digits) over the sequence steps, as the figures of the MusicGen paper show
# them (https://arxiv.org/abs/2306.05284, figure 1); a dot is the special token.
LAYOUTS = {
    PatternConfig("parallel"): [".0123", ".0123", ".0123"],
    PatternConfig("delay"): [".0123..", "..0123.", "...0123"],
    PatternConfig("delay", delays=(0, 2, 2)): [".0123..", "...0123", "...0123"],
    PatternConfig("delay", delays=(0, 1, 1), empty_initial=1): ["..0123.", "...0123", "...0123"],
    PatternConfig("delay", flatten_first=1): [".0..123..", "..0..123.", "...0..123"],
    PatternConfig("unroll"): [".0..1..2..3..", "..0..1..2..3.", "...0..1..2..3"],
    PatternConfig("unroll", flattening=(0, 1, 1)): [".0.1.2.3.", "..0.1.2.3", "..0.1.2.3"],
    PatternConfig("unroll", flattening=(0, 1, 1), delays=(0, 2, 2)): [".01.2.3....", "...0.1.2.3.", "...0.1.2.3."],
    PatternConfig("coarse_first"): [".0123....", ".....0123", ".....0123"],
    PatternConfig("coarse_first", delays=(0, 1)): [".0123.....", ".....0123.", "......0123"],
    PatternConfig("musiclm", group_by=1): [".0123........", ".....0123....", ".........0123"],
    PatternConfig("musiclm", group_by=3): [".0..1..2..3..", "..0..1..2..3.", "...0..1..2..3"],
}


def numbered(num_codebooks: int, num_frames: int, batch: int = 1) -> Tensor:
    """Codes that tell where they come from."""
    return torch.arange(batch * num_codebooks * num_frames).view(batch, num_codebooks, num_frames)


@pytest.mark.parametrize("config", LAYOUTS, ids=lambda c: "-".join(str(v) for v in vars(c).values() if v is not None))
def test_layouts_are_those_of_the_paper(config: PatternConfig) -> None:
    codes = torch.arange(4).expand(1, 3, 4)
    sequence = get_pattern(config, 3, 4).lay_out(codes, SPECIAL)
    drawn = ["".join("." if value == SPECIAL else str(value) for value in row) for row in sequence[0].tolist()]
    assert drawn == LAYOUTS[config]


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Any pattern that a package may describe, over a few frames."""
    K, T = draw(st.integers(1, 5)), draw(st.integers(1, 9))  # noqa: N806
    name = draw(st.sampled_from(["parallel", "delay", "unroll", "musiclm", *(["coarse_first"] if K > 1 else [])]))
    rising = st.lists(st.integers(0, 4), min_size=K, max_size=K).map(lambda x: tuple(sorted(x)))
    options: dict[str, Any]
    match name:
        case "delay":
            options = {
                "delays": draw(st.none() | rising),
                "flatten_first": draw(st.integers(0, 3)),
                "empty_initial": draw(st.integers(0, 2)),
            }
        case "parallel":
            options = {"empty_initial": draw(st.integers(0, 2))}
        case "unroll":
            flattening = draw(st.none() | rising)
            delays = draw(st.none() | rising)
            if flattening is not None and delays is not None:  # codebooks of one step have one delay
                delays = tuple(delays[flattening.index(step)] for step in flattening)
            options = {"flattening": flattening, "delays": delays}
        case "coarse_first":
            options = {"delays": draw(st.none() | rising.map(lambda x: x[1:]))}
        case _:
            options = {"group_by": draw(st.sampled_from([n for n in range(1, K + 1) if K % n == 0]))}
    return get_pattern(PatternConfig(name, **options), K, T)


@few
@given(pattern=patterns(), batch=st.integers(1, 2))
def test_what_is_laid_out_is_found_again(pattern: Pattern, batch: int) -> None:
    codes = numbered(len(pattern.frames), pattern.num_frames, batch)
    sequence = pattern.lay_out(codes, SPECIAL)
    found, mask = pattern.gather(sequence)
    assert sequence.shape == (batch, len(codes[0]), pattern.num_steps)
    assert (sequence[..., 0] == SPECIAL).all()
    assert mask.all()
    assert torch.equal(found, codes)
    assert torch.equal(sequence.ne(SPECIAL), pattern.mask.expand_as(sequence))


@few
@given(pattern=patterns(), valid_only=st.booleans())
def test_predictions_are_one_step_ahead(pattern: Pattern, valid_only: bool) -> None:
    """Whoever predicts every next step rightly is found to predict every code rightly."""
    codes = numbered(len(pattern.frames), pattern.num_frames)
    inputs = pattern.lay_out(codes, SPECIAL, valid_only=valid_only)
    outputs = pattern.lay_out(codes, SPECIAL).roll(-1, dims=-1)[..., : inputs.shape[-1]]
    found, mask = pattern.gather(outputs[..., None].float(), predictions=True)
    assert torch.equal(found[0, ..., 0].long(), codes[0].masked_fill(~mask, 0))
    assert valid_only or mask.all()


@few
@given(pattern=patterns(), step=st.integers(1, 60))
def test_a_sequence_cut_short_tells_what_it_lacks(pattern: Pattern, step: int) -> None:
    codes = numbered(len(pattern.frames), pattern.num_frames) + 1
    found, mask = pattern.gather(pattern.lay_out(codes, SPECIAL)[..., :step])
    assert torch.equal(found, codes.masked_fill(~mask, 0))
    assert int(mask.sum()) == int(pattern.mask[:, :step].sum())


@few
@given(pattern=patterns(), data=st.data())
def test_generation_starts_where_a_prompt_ends(pattern: Pattern, data: st.DataObject) -> None:
    frame = data.draw(st.integers(0, pattern.num_frames - 1))
    first = pattern.first_step(frame)
    assert (pattern.frames[:, first] == frame).any()
    assert not (pattern.frames[:, :first] == frame).any()


def test_a_pattern_does_not_go_back_in_time() -> None:
    with pytest.raises(ConfigError, match="back in time in codebook 0"):
        Pattern([[], [(1, 0)], [(0, 0)]], 1, 2)
