"""Shared by all tests: where the golden packages lie, and one thread so that results do not depend on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Kernels round differently with another number of threads, and the goldens were computed with one.
torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "fixtures"
PACKAGES = FIXTURES / "audiocraft"
TEXT_ENCODER = FIXTURES / "tiny-t5"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def packages() -> Path:
    """Export packages that AudioCraft 1.3.0 wrote."""
    return PACKAGES


@pytest.fixture(scope="session")
def text_encoder() -> Path:
    """A T5 encoder with random weights, which the packages call 'tiny-t5'."""
    return TEXT_ENCODER
