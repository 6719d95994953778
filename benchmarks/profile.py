"""Where codecbay's own time goes, by torch's profiler.

Times of operations are of a profiled run. What they leave of one without the profiler, whose own work takes time, is
between operations: Python, and their dispatch to kernels.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from benchmarks import models, packages
from benchmarks.measure import Bench, Figure
from benchmarks.workers import Call

PEERS = ()
BETWEEN = "between operations"
KINDS = {  # by what is part of an operation's name; the first that fits
    "matrix products": ("linear", "::mm", "addmm", "bmm"),
    "convolutions": ("convolution",),
    "LSTM": ("rnn",),
    "attention": ("scaled_dot_product",),
    "norms": ("layer_norm",),
    "activations": ("gelu", "elu", "sin", "tanh", "sigmoid", "square", "pow"),
    "sampling": ("multinomial", "exponential", "topk", "softmax"),
    "nearest vectors": ("argmin",),
    "copies": ("copy", "cat", "clone", "pad", "fill", "index"),
}


def run(bench: Bench) -> list[Figure]:
    package = str(packages.musicgen(bench.directory, bench.size))
    steps = 8 if bench.tiny else 64
    figures = []
    for batch in (1, 4):
        for dtype in ("float32", "bfloat16", "int8"):
            worker = bench.own("profile:profiled", model="codecbay_lm", source=package, dtype=dtype)
            found = worker(batch=batch, steps=steps)
            figures += _figures(f"a step of MusicGen-small, batch {batch}, {dtype}", found["ms"], steps)
            worker.close()
    for name, write in {"EnCodec 32 kHz": packages.encodec, "DAC 44 kHz": packages.dac}.items():
        source, seconds = str(write(bench.directory, bench.size)), 1 if bench.tiny else 10
        for dtype in ("float32", "bfloat16"):
            worker = bench.own("profile:profiled", model="codecbay_codec", source=source, dtype=dtype)
            for direction in ("encode", "decode"):
                found = worker(direction=direction, batch=1, seconds=seconds)
                figures += _figures(f"{name}, {direction} {seconds} s, {dtype}", found["ms"], 1)
            worker.close()
    return figures


def _figures(work: str, milliseconds: dict[str, float], steps: int) -> list[Figure]:
    total = sum(milliseconds.values())
    ordered = sorted(milliseconds.items(), key=lambda item: -item[1])
    return [Figure(work, kind, facts={"ms": ms / steps, "share": f"{ms / total:.1%}"}) for kind, ms in ordered]


def profiled(model: str, source: str, dtype: str) -> Call:
    """Runs in a worker: milliseconds by kind of operation, of a call of what ``models`` builds."""
    from torch.profiler import ProfilerActivity, profile

    call: Call = getattr(models, model)(source, dtype)

    def run(**arguments: Any) -> dict[str, Any]:
        call(**arguments)
        start = time.perf_counter()
        call(**arguments)
        whole = 1000 * (time.perf_counter() - start)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            call(**arguments)
        kinds: defaultdict[str, float] = defaultdict(float)
        for event in profiler.key_averages():
            kinds[_kind(event.key)] += event.self_cpu_time_total / 1000
        kinds[BETWEEN] = max(whole - sum(kinds.values()), 0.0)
        return {"ms": dict(kinds)}

    return run


def _kind(operation: str) -> str:
    names = (kind for kind, parts in KINDS.items() if any(part in operation for part in parts))
    return next(names, "other operations")
