"""Decoding of MusicGen-small with guidance and sampling, as ``generate`` does it by default.

A step reads every weight once, so memory sets the limit: the measured bandwidth of reads over the weights of a step.
The package is stored in float16, as published ones are; codecbay reads such weights as they are, and sums in float32. A
second one has weights that only float32 holds.
"""

from __future__ import annotations

import torch

from benchmarks import packages
from benchmarks.measure import Bench, Facts, Figure
from benchmarks.workers import Worker

PEERS = ("AudioCraft float32", "transformers float32")
FULL = "codecbay float32, stored so"
WEIGHT_BYTES = {  # that a step reads of each
    "AudioCraft float32": 4,
    "transformers float32": 4,
    "transformers bfloat16": 2,
    FULL: 4,
    "codecbay float32": 2,
    "codecbay bfloat16": 2,
    "codecbay int8": 1,
}
STEPS = {"tiny": {1: 8, 2: 8}, "small": {1: 256, 4: 128}}  # by batch


def run(bench: Bench) -> list[Figure]:
    package = str(packages.musicgen(bench.directory, bench.size))
    width, layers, heads = packages.LM_SIZES[bench.size]
    sizes = {"width": width, "layers": layers, "heads": heads, "card": packages.CARD, "n_q": packages.N_Q}
    workers: dict[str, Worker | None] = {
        "AudioCraft float32": bench.peer("models:audiocraft_lm", package=package),
        "transformers float32": bench.own("models:transformers_lm", dtype="float32", **sizes),
        "transformers bfloat16": bench.own("models:transformers_lm", dtype="bfloat16", **sizes),
    }
    full = str(packages.musicgen(bench.directory, bench.size, torch.float32))
    workers[FULL] = bench.own("models:codecbay_lm", package=full, dtype="float32")
    for dtype in ("float32", "bfloat16", "int8"):
        workers[f"codecbay {dtype}"] = bench.own("models:codecbay_lm", package=package, dtype=dtype)
    bandwidth = bench.limits()["read GB/s"]
    figures = []
    for batch, steps in STEPS[bench.size].items():
        name = f"batch {batch}, {steps} steps"
        for figure in bench.race(name, workers, warm_up={"steps": 8}, batch=batch, steps=steps):
            figure.facts = speed(figure, steps, bandwidth, bench.size, WEIGHT_BYTES[figure.column])
            figures.append(figure)
    return figures


def speed(figure: Figure, steps: int, bandwidth: float, size: str, weight_bytes: int) -> Facts:
    """Steps a second, and how they compare with the limit that ``bandwidth`` in GB/s sets."""
    projects_text = figure.column.startswith("AudioCraft")
    weights = packages.bytes_a_step(size, weight_bytes, projects_text=projects_text)
    limit = bandwidth * 1e9 / weights
    rate = steps / figure.median
    return {"steps/s": rate, "MB a step": weights / 1e6, "limit steps/s": limit, "of limit": f"{rate / limit:.0%}"}
