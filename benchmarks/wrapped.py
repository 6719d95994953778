"""Codecs that codecbay takes from transformers, against transformers called directly: 10 s of mono, float32."""

from __future__ import annotations

from benchmarks import packages
from benchmarks.encodec import both_ways
from benchmarks.measure import Bench, Figure

PEERS = ("transformers",)


def run(bench: Bench) -> list[Figure]:
    figures = []
    for family in packages.WRAPPED:
        source = str(packages.wrapped(bench.directory, family, bench.size))
        workers = {
            "transformers": bench.own("models:transformers_codec", source=source, family=family),
            "codecbay": bench.own("models:codecbay_codec", source=source),
        }
        figures += both_ways(bench, dict(workers), (1,), f"{family} ")
        for worker in workers.values():
            worker.close()
    return figures
