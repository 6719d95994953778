"""Descript's DAC at 44.1 kHz: 10 s of mono, encoded and decoded."""

from __future__ import annotations

from benchmarks import packages
from benchmarks.encodec import both_ways
from benchmarks.measure import Bench, Figure
from benchmarks.workers import Worker

PEERS = ("descript float32",)


def run(bench: Bench) -> list[Figure]:
    source = str(packages.dac(bench.directory, bench.size))
    workers: dict[str, Worker | None] = {"descript float32": bench.peer("models:descript_codec", source=source)}
    for dtype in ("float32", "bfloat16"):
        workers[f"codecbay {dtype}"] = bench.own("models:codecbay_codec", source=source, dtype=dtype)
    return both_ways(bench, workers, (1,))
