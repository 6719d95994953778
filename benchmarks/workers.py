"""Processes that build a model once and then time calls on request, so that columns of several environments take turns.

A worker speaks lines of JSON over its standard input and output. Whatever a library prints goes to its standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Call = Callable[..., Any]


class WorkerError(RuntimeError):
    """What went wrong in a worker, with its traceback."""


class Worker:
    """A process in which a column of a benchmark runs.

    Args:
        python: the interpreter of its environment.
        build: ``module:function`` in ``benchmarks``; it is called with ``arguments`` and returns what is timed.
        arguments: JSON.
        threads: that torch may use.
    """

    def __init__(self, python: Path, build: str, arguments: dict[str, Any], threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.workers"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        try:
            self._ask({"build": build, "arguments": arguments})
        except WorkerError:
            self.close()
            raise

    def __call__(self, **arguments: Any) -> dict[str, Any]:
        """Call what was built: ``seconds`` that it took, and what there is to say about its result."""
        return self._ask({"call": arguments})

    def anonymous_bytes(self) -> int:
        """Memory of the process that no file backs."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(next(line for line in text.splitlines() if line.startswith("RssAnon:")).split()[1])

    def watch(self, **arguments: Any) -> tuple[dict[str, Any], int]:
        """The same as a call, and the most anonymous memory that the process had in the meantime, in bytes."""
        peak, done = self.anonymous_bytes(), threading.Event()

        def sample() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, self.anonymous_bytes())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            reply = self(**arguments)
        finally:
            done.set()
            thread.join()
        return reply, max(peak, self.anonymous_bytes())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"The worker ended with status {self._process.wait()} at {request}.")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{request}\n{reply['error']}")
        return reply


def timed(call: Call, arguments: dict[str, Any]) -> dict[str, Any]:
    """The seconds that a call takes, unless it tells them itself, and what it says; of a tensor, what it looks like."""
    start = time.perf_counter()
    result = call(**arguments)
    seconds = time.perf_counter() - start
    if not isinstance(result, dict):
        extent = {"least": float(result.min()), "most": float(result.max()), "mean": float(result.double().mean())}
        result = {"shape": list(result.shape), **extent}
    return {"seconds": seconds, **result}


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call: Call | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                module, name = request["build"].split(":")
                call = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**request["arguments"])
                reply: dict[str, Any] = {}
            else:
                assert call is not None
                reply = timed(call, request["call"])
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
