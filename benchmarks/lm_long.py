"""How much slower decoding becomes in the course of 30 s, against what it has to read.

A step reads the weights and the keys and values of all steps before, of both rows of guidance.
"""

from __future__ import annotations

from functools import partial

from benchmarks import packages
from benchmarks.lm_decode import WEIGHT_BYTES
from benchmarks.measure import Bench, Figure

PEERS = ()
CACHE_BYTES = 4  # on the CPU, keys and values are float32 whatever the weights are
TOTAL = {"tiny": 48, "small": 1503}  # steps
COUNT = {"tiny": 6, "small": 20}  # steps that are timed in each place; the first of them takes in what came before


def run(bench: Bench) -> list[Figure]:
    package = str(packages.musicgen(bench.directory, bench.size))
    total, count = TOTAL[bench.size], COUNT[bench.size]
    width, layers, _ = packages.LM_SIZES[bench.size]
    far = total - 3 - count  # frames that are there before the last steps
    figures = []
    for dtype in ("float32", "bfloat16", "int8"):
        size = WEIGHT_BYTES[f"codecbay {dtype}"]
        worker = bench.own("models:codecbay_lm_steps", package=package, dtype=dtype, total=total)
        places = {f"{dtype}, step {start + count // 2}": start for start in (0, far)}
        columns = {name: partial(worker, start=start, count=count) for name, start in places.items()}
        near, late = bench.race("one step", columns)
        weights = packages.bytes_a_step(bench.size, size)
        entry = 2 * 2 * layers * width * CACHE_BYTES  # a step's keys and values, of both rows
        for figure, start in ((near, 0), (late, far)):
            figure.facts["MB read"] = (weights + entry * (start + count // 2)) / 1e6
        late.facts["time over the first"] = 1 / late.times_faster_than(near)
        late.facts["bytes over the first"] = late.facts["MB read"] / near.facts["MB read"]
        late.facts["time / bytes"] = late.facts["time over the first"] / late.facts["bytes over the first"]
        figures += [near, late]
        worker.close()
    return figures
