"""Measuring: columns take turns, round by round, and medians are of what they did in turn."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import peers
from benchmarks.workers import Worker

Facts = dict[str, Any]
Column = Callable[..., Facts]


class SkippedError(Exception):
    """A benchmark cannot run here; the message says why."""


@dataclass
class Figure:
    """What one column reached in one kind of work.

    Attributes:
        work: what was done.
        column: who did it.
        seconds: of each round; columns that took turns have theirs in the same order.
        facts: what else there is to say, by the heading of a table.
        result: what the call said of its result; not for tables.
    """

    work: str
    column: str
    seconds: list[float] = field(default_factory=list)
    facts: Facts = field(default_factory=dict)
    result: Facts = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the rounds, in seconds."""
        return statistics.median(self.seconds)

    def times_faster_than(self, other: Figure) -> float:
        """The median of what the rounds give; what slows a round down slows both."""
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))


@dataclass
class Bench:
    """What a benchmark runs with; when it is left, its workers end.

    Attributes:
        size: ``tiny`` for milliseconds, ``small`` for the sizes of MusicGen-small.
        rounds: turns that each column takes.
        directory: for packages; they are written once and shared.
        peers: the interpreter of the environment with AudioCraft and descript's library, if there is one.
        threads: of each column.
    """

    size: str
    rounds: int
    directory: Path
    peers: Path | None = None
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def tiny(self) -> bool:
        """Whether this is about results alone."""
        return self.size == "tiny"

    def own(self, build: str, **arguments: Any) -> Worker:
        """A worker in this environment."""
        return self._worker(Path(sys.executable), build, arguments)

    def peer(self, build: str, **arguments: Any) -> Worker | None:
        """A worker in the environment of the peers, if there is one."""
        return None if self.peers is None else self._worker(self.peers, build, arguments)

    def _worker(self, python: Path, build: str, arguments: Facts) -> Worker:
        worker = Worker(python, build, arguments, self.threads)
        self._stack.callback(worker.close)
        return worker

    def limits(self) -> Facts:
        """What the machine can do; see :func:`benchmarks.machine.limits`."""
        found = self.own("machine:limits", tiny=self.tiny)()
        del found["seconds"]
        return found

    def race(
        self, work: str, columns: Mapping[str, Column | None], warm_up: Facts | None = None, **arguments: Any
    ) -> list[Figure]:
        """Let columns take turns, after a call of each to warm it up.

        Args:
            work: that all of them do.
            columns: workers, or anything else that tells the ``seconds`` that it took; ``None`` for a missing one.
            warm_up: arguments that differ in the first call.
            arguments: of every call.
        """
        present = {name: call for name, call in columns.items() if call is not None}
        figures = {name: Figure(work, name) for name in present}
        for call in present.values():
            call(**{**arguments, **(warm_up or {})})
        for _ in range(self.rounds):
            for name, call in present.items():
                reply = call(**arguments)
                figures[name].seconds.append(reply.pop("seconds"))
                figures[name].result = reply
        return list(figures.values())


def find_peers(directory: str | None) -> Path | None:
    """The interpreter of the peers' environment, from an option or from ``CODECBAY_PEERS``."""
    directory = directory or os.environ.get("CODECBAY_PEERS")
    return peers.python(Path(directory).absolute()) if directory else None
