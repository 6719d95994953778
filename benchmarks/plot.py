"""Draw how many times faster each column is than the first peer of its row.

python -m benchmarks.plot benchmarks/results/DATE.json docs/benchmarks.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import Row, read_json

COLOURS = {"float32": "#4c72b0", "bfloat16": "#dd8452", "int8": "#55a868", "as stored": "#8172b3"}
OTHERS = "#b0b0b0"


def bars(rows: Sequence[Row]) -> list[tuple[str, str, float]]:
    """What was done, by which column, and how many times faster than the first peer of the row."""
    found = []
    for row in rows:
        for figure in row.figures:
            ratio = row.ratios(figure).get(row.peers[0]) if row.peers else None
            if ratio is not None:
                found.append((f"{row.name}: {figure.work}\nover {row.peers[0]}", figure.column, ratio))
    return found


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars that are grouped by work; a line where the peer is."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # so that equal figures give equal files
    from matplotlib import pyplot

    places: list[float] = []
    labels: dict[str, list[float]] = {}
    found = bars(rows)
    for i, (work, _, _) in enumerate(found):
        places.append(i + 0.6 * (len(labels) - (work in labels)))  # a gap between groups
        labels.setdefault(work, []).append(places[-1])
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.26 * (places[-1] if places else 1)), layout="constrained")
    for place, (_, column, ratio) in zip(places, found, strict=True):
        dtype = column.split(" ", 1)[-1]
        colour = COLOURS.get(dtype, COLOURS["float32"]) if column.startswith("codecbay") else OTHERS
        axes.barh(place, ratio - 1, left=1, color=colour)
        axes.text(max(ratio, 1), place, f" {ratio:.1f}x  {column}", va="center", fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([sum(at) / len(at) for at in labels.values()], list(labels), fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_xlabel("times faster (logarithmic)")
    ratios = [ratio for *_, ratio in found]
    axes.set_xlim(0.8 * min([1, *ratios]), 2.5 * max([1, *ratios]))
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw a comparison.")
    parser.add_argument("results", type=Path, help="the JSON of a run")
    parser.add_argument("picture", type=Path, help="the file to write")
    options = parser.parse_args()
    draw(read_json(options.results), options.picture)
