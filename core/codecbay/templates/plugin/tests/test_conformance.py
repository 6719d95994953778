"""The codec keeps the promises of every codec."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from codecbay.testing import conformance_tests
from safetensors.torch import save_file


def make_package(directory: Path) -> Path:
    """Write a small package with random weights."""
    config = {
        "model_type": "NAME",
        "sample_rate": 16000,
        "frame_size": 320,
        "latent_dim": 16,
        "num_codebooks": 4,
        "codebook_size": 64,
    }
    shapes = {
        "encoder.weight": (16, 1, 320),
        "encoder.bias": (16,),
        "quantizer.entries": (4, 64, 16),
        "decoder.weight": (16, 1, 320),
        "decoder.bias": (1,),
    }
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    generator = torch.Generator().manual_seed(0)
    tensors = {name: 0.1 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, directory / "model.safetensors")
    return directory


test_conformance = conformance_tests(make_package(Path(__file__).parent / "package"))
