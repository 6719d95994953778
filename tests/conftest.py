"""Shared by all tests: where the golden packages lie; and that results do not depend on the machine or a network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Kernels round differently with another number of threads, and the goldens were computed with one.
torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "fixtures"
# Neither the Hub nor what the user has of it; tests/network has a Hub of its own.
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=str(FIXTURES / "no-cache"))
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
