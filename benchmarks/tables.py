"""Results as a page of tables, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import Facts, Figure


@dataclass
class Row:
    """What one benchmark found.

    Attributes:
        name: of its module.
        about: what it is about.
        peers: columns that the others are compared with.
        figures: what was measured.
        skipped: why it was not.
    """

    name: str
    about: str
    peers: Sequence[str]
    figures: list[Figure]
    skipped: str = ""

    def peers_of(self, figure: Figure) -> dict[str, Figure]:
        """The figures of peers at the same work."""
        return {
            other.column: other
            for other in self.figures
            if other.work == figure.work and other.column in self.peers and other is not figure
        }

    def ratios(self, figure: Figure) -> dict[str, float]:
        """How many times faster a figure is than each peer at the same work."""
        return {name: figure.times_faster_than(peer) for name, peer in self.peers_of(figure).items()}

    def same_as(self, figure: Figure) -> list[str]:
        """Peers with the same result, as far as its size, its extremes and its mean tell."""
        own = figure.result
        return [
            name
            for name, peer in self.peers_of(figure).items()
            if "mean" in own
            and math.prod(own["shape"]) == math.prod(peer.result["shape"])
            and all(math.isclose(own[key], peer.result[key], rel_tol=1e-4) for key in ("least", "most", "mean"))
        ]


def to_markdown(row: Row) -> str:
    """A heading, what it is about, and a table."""
    text = f"## {row.name}\n\n{row.about.strip()}\n\n"
    if row.skipped:
        return f"{text}Not measured: {row.skipped}.\n"
    timed = any(figure.seconds for figure in row.figures)
    peers = [name for name in row.peers if any(name in row.ratios(figure) for figure in row.figures)]
    facts = list(dict.fromkeys(name for figure in row.figures for name in figure.facts))
    headings = ["work", "column"]
    headings += ["median s", "spread s"] if timed else []
    agreeing = any(row.same_as(figure) for figure in row.figures)
    headings += [*(f"vs {name}" for name in peers), *(["same result as"] if agreeing else []), *facts]
    lines = [headings, ["---"] * len(headings)]
    for figure in row.figures:
        cells = [figure.work, figure.column]
        if timed and figure.seconds:
            cells += [_number(figure.median), f"{_number(min(figure.seconds))}–{_number(max(figure.seconds))}"]
        elif timed:
            cells += ["", ""]
        ratios = row.ratios(figure)
        cells += [f"{ratios[name]:.2f}x" if name in ratios else "" for name in peers]
        cells += [", ".join(row.same_as(figure))] if agreeing else []
        cells += [_number(figure.facts.get(name, "")) for name in facts]
        lines.append(cells)
    return text + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def page(rows: Iterable[Row], machine: Facts, settings: Facts) -> str:
    """The whole report."""
    measured = ", ".join(f"{name} {_number(value)}" for name, value in machine.items())
    options = ", ".join(f"{name} {value}" for name, value in settings.items())
    head = f"# Benchmarks, {settings['date']}\n\nMachine, measured in this run: {measured}.\n\nSettings: {options}.\n"
    return "\n".join([head, *map(to_markdown, rows)])


def write(rows: Sequence[Row], machine: Facts, settings: Facts, stem: Path) -> None:
    """``stem.md`` and ``stem.json``."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(page(rows, machine, settings))
    write_json(rows, machine, settings, stem.with_suffix(".json"))


def write_json(rows: Iterable[Row], machine: Facts, settings: Facts, path: Path) -> None:
    """The raw figures."""
    data = {"machine": machine, "settings": settings, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> list[Row]:
    """The rows that :func:`write_json` wrote."""
    rows = json.loads(path.read_text())["rows"]
    return [Row(**{**row, "figures": [Figure(**figure) for figure in row["figures"]]}) for row in rows]


def _number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
