"""Every tensor that AudioCraft computed from its packages, computed here from the same packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import goldens

CASES = [
    pytest.param(directory, key, id=f"{directory.name}-{key}")
    for folder in ("audiocraft", "options")
    for directory in goldens.packages(folder)
    for key in goldens.keys(directory)
]


@pytest.mark.parametrize(("directory", "key"), CASES)
def test_computes_what_audiocraft_computes(directory: Path, key: str) -> None:
    golden = goldens.open_golden(directory)
    expected = golden.tensors[key]
    found = golden.compute(key)
    tolerance = goldens.tolerance(key) if expected.is_floating_point() else 0.0
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("kind", ["codec", "lm"])
def test_goldens_hold_enough_to_fail(kind: str) -> None:
    """Tokens that are all alike, or audio that is silent, would agree with anything."""
    for directory in goldens.packages("audiocraft"):
        tensors = goldens.Golden(directory).tensors
        names = ("codes", "decoded") if kind == "codec" else ("gen_tokens", "lm_logits")
        for tensor in (tensors[name] for name in names if name in tensors):
            assert len(tensor.unique()) > 16, directory.name
