"""Loading MusicGen-small's language model, float16 on the disk (and in the disk's cache), until it is ready to run.

Memory is anonymous memory at its peak, over the size of the weights that are kept; mapped pages of the file are none.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Bench, Figure
from benchmarks.workers import Call, Worker

PEERS = ("AudioCraft float32",)


def run(bench: Bench) -> list[Figure]:
    from benchmarks import packages  # which peers cannot import

    package, tiny = (str(packages.musicgen(bench.directory, size)) for size in (bench.size, "tiny"))
    stored = (Path(package) / "state_dict.bin").stat().st_size  # two bytes a weight
    workers: dict[str, Worker | None] = {
        "AudioCraft float32": bench.peer("loading:audiocraft", package=package, first=tiny),
        "codecbay float32": bench.own("loading:codecbay", package=package, first=tiny, dtype="float32"),
        "codecbay as stored": bench.own("loading:codecbay", package=package, first=tiny, dtype="float16"),
    }
    peaks = {}
    for name, worker in workers.items():
        if worker is not None:
            before = worker.anonymous_bytes()
            peaks[name] = worker.watch()[1] - before
    figures = bench.race("ready", workers)
    for figure in figures:
        kept = stored if figure.column == "codecbay as stored" else 2 * stored
        figure.facts = {"peak MB": peaks[figure.column] / 1e6, "peak / weights": peaks[figure.column] / kept}
        figure.facts["first frame s"] = figure.result.get("first frame s", "")
    return figures


def codecbay(package: str, first: str, dtype: str) -> Call:
    """Runs in a worker. Another package is loaded before, so that nothing is left to import."""
    import codecbay
    from benchmarks.models import TEXT
    from codecbay.lm.conditioners import ConditioningAttributes

    codec = codecbay.load_codec(first, device="cpu")
    codecbay.load(first, codec=codec, device="cpu", dtype=dtype)

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        model = codecbay.load(package, codec=codec, device="cpu", dtype=dtype)
        ready = time.perf_counter()
        codes = model.lm.generate(conditions=[ConditioningAttributes({"description": TEXT})], max_gen_len=1)
        first_frame = time.perf_counter() - ready
        return {"seconds": ready - start, "first frame s": first_frame, "shape": list(codes.shape)}

    return run


def audiocraft(package: str, first: str) -> Call:
    """Runs in a worker: AudioCraft's own loader."""
    from benchmarks.models import load_audiocraft_lm

    load_audiocraft_lm(first)

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        load_audiocraft_lm(package)
        return {"seconds": time.perf_counter() - start}

    return run
