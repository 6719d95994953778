"""EnCodec at 32 kHz with 64 filters, as MusicGen has it: 10 s of mono, encoded and decoded."""

from __future__ import annotations

from benchmarks import packages
from benchmarks.measure import Bench, Figure
from benchmarks.workers import Worker

PEERS = ("AudioCraft float32",)


def run(bench: Bench) -> list[Figure]:
    source = str(packages.encodec(bench.directory, bench.size))
    workers = beside(bench, source, PEERS[0], "models:audiocraft_codec")
    return both_ways(bench, workers, (1, 2) if bench.tiny else (1, 4))


def beside(bench: Bench, source: str, peer: str, build: str) -> dict[str, Worker | None]:
    """codecbay's columns for a codec, beside a peer's."""
    workers = {peer: bench.peer(build, source=source)}
    for dtype in ("float32", "bfloat16"):
        workers[f"codecbay {dtype}"] = bench.own("models:codecbay_codec", source=source, dtype=dtype)
    return workers


def both_ways(
    bench: Bench, workers: dict[str, Worker | None], batches: tuple[int, ...], work: str = ""
) -> list[Figure]:
    """Encoding and decoding of 10 s, for each size of a batch."""
    seconds = 1 if bench.tiny else 10
    figures = []
    for batch in batches:
        for direction in ("encode", "decode"):
            name = f"{work}{direction} {seconds} s, batch {batch}"
            for figure in bench.race(name, workers, direction=direction, batch=batch, seconds=seconds):
                figure.facts["x real time"] = batch * seconds / figure.median
                figures.append(figure)
    return figures
