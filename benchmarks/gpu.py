"""The same on a GPU: decoding, codecs, and whether results are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from benchmarks import packages
from benchmarks.encodec import both_ways
from benchmarks.lm_decode import speed
from benchmarks.measure import Bench, Figure, SkippedError
from benchmarks.workers import Worker

PEERS = ("AudioCraft float16", "transformers float16", "AudioCraft float32", "descript float32")
DEVICE = "cuda"
K = TypeVar("K")
T = TypeVar("T")


def run(bench: Bench) -> list[Figure]:
    import torch

    if not torch.cuda.is_available():
        raise SkippedError("there is no CUDA device here")
    found = bench.own("machine:limits", tiny=bench.tiny, device=DEVICE)()
    facts = {name: found[name] for name in ("read GB/s", "float32 GFLOP/s", "bfloat16 GFLOP/s")}
    figures = [Figure("limits", found["processor"], facts=facts)]
    for size in ("tiny",) if bench.tiny else ("small", "large"):
        figures += _decoding(bench, size, found["read GB/s"])
    figures += _codecs(bench)
    return figures + _against_cpu(bench)


def _decoding(bench: Bench, size: str, bandwidth: float) -> list[Figure]:
    package = str(packages.musicgen(bench.directory, size))
    width, layers, heads = packages.LM_SIZES[size]
    sizes = {"width": width, "layers": layers, "heads": heads, "card": packages.CARD, "n_q": packages.N_Q}
    workers: dict[str, Worker | None] = _at_once(
        {
            "AudioCraft float16": partial(bench.peer, "models:audiocraft_lm", package=package, device=DEVICE),
            "transformers float16": partial(
                bench.own, "models:transformers_lm", dtype="float16", device=DEVICE, **sizes
            ),
            "codecbay float16": partial(
                bench.own, "models:codecbay_lm", package=package, dtype="float16", device=DEVICE
            ),
        }
    )
    steps, figures = 8 if bench.tiny else 256, []
    for batch in (1, 8):
        for figure in bench.race(f"{size}, batch {batch}, {steps} steps", workers, batch=batch, steps=steps):
            figure.facts = speed(figure, steps, bandwidth, size, weight_bytes=2)
            figures.append(figure)
    for worker in workers.values():
        if worker is not None:
            worker.close()
    return figures


def _codecs(bench: Bench) -> list[Figure]:
    figures = []
    for name, write, peer, build in (
        ("EnCodec ", packages.encodec, "AudioCraft float32", "models:audiocraft_codec"),
        ("DAC ", packages.dac, "descript float32", "models:descript_codec"),
    ):
        source = str(write(bench.directory, bench.size))
        workers: dict[str, Callable[[], Worker | None]]
        workers = {peer: partial(bench.peer, build, source=source, device=DEVICE)}
        for dtype in ("float32", "bfloat16"):
            own = partial(bench.own, "models:codecbay_codec", source=source, dtype=dtype, device=DEVICE)
            workers[f"codecbay {dtype}"] = own
        figures += both_ways(bench, _at_once(workers), (1, 8), name)
    return figures


def _against_cpu(bench: Bench) -> list[Figure]:
    package = str(packages.musicgen(bench.directory, bench.size))
    makers: dict[tuple[str, str], Callable[[], Worker]] = {}
    for dtype in ("float32", "float16", "bfloat16"):
        make = partial(bench.own, "quality:lm", package=package, dtype=dtype, steps=32, device=DEVICE)
        makers["language model", dtype] = make
    for name, write in {"EnCodec": packages.encodec, "DAC": packages.dac}.items():
        source = str(write(bench.directory, bench.size))
        for dtype in ("float32", "bfloat16"):
            make = partial(bench.own, "quality:codec", source=source, dtype=dtype, seconds=1, device=DEVICE)
            makers[name, dtype] = make
    found = _at_once(_at_once(makers))
    return [
        Figure(f"{name} against the CPU in float32", dtype, facts=reply["facts"])
        for (name, dtype), reply in found.items()
    ]


def _at_once(calls: Mapping[K, Callable[[], T]]) -> dict[K, T]:
    """What functions return, called side by side: most of their time is that of processes that start."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return dict(zip(calls, pool.map(lambda call: call(), calls.values()), strict=True))
