"""Commands that build no model, as whole processes, beside a Python that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

from benchmarks import packages
from benchmarks.measure import Bench, Figure
from benchmarks.workers import ROOT

PEERS = ()


def run(bench: Bench) -> list[Figure]:
    commands = {
        "python -c pass": ["-c", "pass"],
        "codecbay codecs": ["-m", "codecbay", "codecs"],
        "codecbay check PACKAGE": ["-m", "codecbay", "check", str(packages.EXAMPLE)],
    }

    # What is installed comes with its bytecode; in a working copy, the first call writes it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def call(arguments: list[str]) -> dict[str, Any]:
        command = [sys.executable, *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return {"seconds": time.perf_counter() - start, "printed": len(done.stdout)}

    columns = {name: partial(call, arguments) for name, arguments in commands.items()}
    figures = bench.race("whole process", columns)
    for figure in figures:
        figure.facts["imports torch"] = "yes" if _imports_torch(commands[figure.column]) else "no"
    return figures


def _imports_torch(arguments: list[str]) -> bool:
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return any(line.split("|")[-1].strip() == "torch" for line in done.stderr.splitlines())
