"""Descript's DAC at 44.1 kHz: 10 s of mono, encoded and decoded."""

from __future__ import annotations

from benchmarks import packages
from benchmarks.encodec import beside, both_ways
from benchmarks.measure import Bench, Figure

PEERS = ("descript float32",)


def run(bench: Bench) -> list[Figure]:
    source = str(packages.dac(bench.directory, bench.size))
    return both_ways(bench, beside(bench, source, PEERS[0], "models:descript_codec"), (1,))
