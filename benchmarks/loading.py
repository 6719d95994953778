"""Loading MusicGen-small's language model, float16 on the disk (and in the disk's cache), until it is ready to run.

Memory is anonymous memory at its peak, over the size of the weights that are kept; mapped pages of the file are none.
The first frame comes with copies of the weights that are laid out for decoding.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Bench, Facts, Figure
from benchmarks.workers import Call, Worker

PEERS = ("AudioCraft float32",)


def run(bench: Bench) -> list[Figure]:
    from benchmarks import packages  # which peers cannot import

    package, tiny = (str(packages.musicgen(bench.directory, size)) for size in (bench.size, "tiny"))
    stored = (Path(package) / "state_dict.bin").stat().st_size  # two bytes a weight
    dtypes = {"codecbay float32": "float32", "codecbay as stored": "float16"}

    def worker(dtype: str) -> Worker:
        return bench.own("loading:codecbay", package=package, first=tiny, dtype=dtype)

    workers: dict[str, Worker | None] = {
        "AudioCraft float32": bench.peer("loading:audiocraft", package=package, first=tiny),
        **{name: worker(dtype) for name, dtype in dtypes.items()},
    }
    peaks = {name: _peak(worker, frames=0)[1] for name, worker in workers.items() if worker is not None}
    figures = bench.race("ready", workers, frames=0)
    for figure in figures:
        peak = peaks[figure.column]
        kept = stored if figure.column == "codecbay as stored" else 2 * stored
        figure.facts = {"peak MB": peak / 1e6, "peak / weights": peak / kept}
        if figure.column in dtypes:
            fresh = worker(dtypes[figure.column])  # what others have freed is not counted as new
            figure.result, peak = _peak(fresh, frames=1)
            figure.facts |= {"first frame s": figure.result["first frame s"], "peak MB with it": peak / 1e6}
            fresh.close()
    return figures


def _peak(worker: Worker, frames: int) -> tuple[Facts, int]:
    before = worker.anonymous_bytes()
    reply, peak = worker.watch(frames=frames)
    return reply, peak - before


def codecbay(package: str, first: str, dtype: str) -> Call:
    """Runs in a worker. Another package is loaded before, so that nothing is left to import."""
    import codecbay
    from benchmarks.models import TEXT
    from codecbay.lm.conditioners import ConditioningAttributes

    codec = codecbay.load_codec(first, device="cpu")
    codecbay.load(first, codec=codec, device="cpu", dtype=dtype)

    def run(frames: int) -> dict[str, Any]:
        start = time.perf_counter()
        model = codecbay.load(package, codec=codec, device="cpu", dtype=dtype)
        ready = time.perf_counter()
        found: dict[str, Any] = {"seconds": ready - start}
        if frames:
            conditions = [ConditioningAttributes({"description": TEXT})]
            codes = model.lm.generate(conditions=conditions, max_gen_len=frames)
            found |= {"first frame s": time.perf_counter() - ready, "shape": list(codes.shape)}
        return found

    return run


def audiocraft(package: str, first: str) -> Call:
    """Runs in a worker: AudioCraft's own loader."""
    from benchmarks.models import load_audiocraft_lm

    load_audiocraft_lm(first)

    def run(frames: int) -> dict[str, Any]:
        start = time.perf_counter()
        load_audiocraft_lm(package)
        return {"seconds": time.perf_counter() - start}

    return run
