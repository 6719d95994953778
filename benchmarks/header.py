"""The check of a package of 2 GB, from its headers: the time it takes, and the bytes that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import packages
from benchmarks.measure import Bench, Figure
from benchmarks.workers import Call

PEERS = ()


def run(bench: Bench) -> list[Figure]:
    package = packages.musicgen(bench.directory, "tiny" if bench.tiny else "2 GB")
    worker = bench.own("header:check", package=str(package))
    figures = bench.race("check", {"codecbay": worker})
    for figure in figures:
        size = (package / "state_dict.bin").stat().st_size
        figure.facts = {"MB of the file": size / 1e6, "KB read": figure.result["bytes"] / 1e3}
    return figures


def check(package: str) -> Call:
    """Runs in a worker: bytes by all reads of the process."""
    import codecbay

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    def run() -> dict[str, Any]:
        before = bytes_read()
        report = codecbay.check(package)
        return {"bytes": bytes_read() - before, "ok": report.ok}

    return run
