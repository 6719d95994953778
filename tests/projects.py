"""Plugins as their users have them: distributions, installed where a new process finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def install(project: Path, target: Path) -> None:
    """Build a project and install it into a directory of its own, without the network."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    run("pip", "install", *options, "--target", str(target), str(project))


def write_distribution(target: Path, name: str) -> None:
    """What an installer writes down of a plugin, beside its module."""
    module = f"codecbay_{name.replace('-', '_')}"
    info = target / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: codecbay-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[codecbay.plugins]\n{name} = {module}\n")


def run(module: str, *arguments: str, target: Path | None = None, cwd: Path | None = None) -> str:
    """Run a module of Python in a new process that finds what is installed in ``target``; what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CODECBAY_", "PYTEST_"))}
    if target is not None:
        environment["PYTHONPATH"] = str(target)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
