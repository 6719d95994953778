"""What the machine can do: read memory, which decoding lives off, and multiply matrices, which codecs live off."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.workers import Call


def limits(tiny: bool, device: str = "cpu") -> Call:
    """Runs in a worker. Bandwidth of reads, and the rate of a large product, each at its best."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability
    megabytes, widths = (1, (64,)) if tiny else (1024, (512, 1024, 2048, 4096))

    def least(call: Callable[[], Any]) -> float:
        def once() -> float:
            start = time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            return time.perf_counter() - start

        once()
        return min(once() for _ in range(15))

    def rate(dtype: torch.dtype) -> float:
        """Of the largest product that takes no minutes: processors without instructions for a dtype take them."""
        found = 0.0
        for width in widths:
            if found and 2 * width**3 / found > 1:
                break
            matrix = torch.randn(width, width, device=device).to(dtype)
            found = 2 * width**3 / least(lambda m=matrix: m @ m)  # type: ignore[misc]
        return found

    def run() -> dict[str, Any]:
        data = torch.ones(megabytes << 18, device=device)
        threads = torch.get_num_threads()
        found: dict[str, Any] = {
            "processor": f"{_processor()}, {capability()}" if device == "cpu" else torch.cuda.get_device_name(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": threads,
            "read GB/s": (megabytes << 20) / least(data.sum) / 1e9,
        }
        if device == "cpu":
            torch.set_num_threads(1)
            found["read GB/s, 1 thread"] = (megabytes << 20) / least(data.sum) / 1e9
            torch.set_num_threads(threads)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            found[f"{name} GFLOP/s"] = rate(dtype) / 1e9
        return found

    return run


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
