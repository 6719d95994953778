"""Measure codecbay beside its peers.

python -m benchmarks --peers ENV_DIR --out benchmarks/results
python -m benchmarks lm_decode --size tiny --json out.json
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks import tables
from benchmarks.measure import Bench, SkippedError, find_peers
from benchmarks.tables import Row
from benchmarks.workers import WorkerError

ROWS = (
    "lm_decode",
    "lm_long",
    "encodec",
    "dac",
    "wrapped",
    "long_audio",
    "loading",
    "header",
    "command_line",
    "profile",
    "quality",
    "gpu",
)


def measure(name: str, size: str, rounds: int, directory: Path, peers: Path | None, threads: int) -> Row:
    """Run one benchmark; what fails leaves the others their results."""
    module = importlib.import_module(f"benchmarks.{name}")
    row = Row(name, module.__doc__ or "", module.PEERS, [])
    try:
        with Bench(size, rounds, directory, peers, threads) as bench:
            row.figures = module.run(bench)
    except SkippedError as error:
        row.skipped = str(error)
    except WorkerError as error:
        print(error, file=sys.stderr)
        row.skipped = str(error).strip().splitlines()[-1]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure codecbay beside its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which, of {', '.join(ROWS)}; all by default")
    parser.add_argument("--size", choices=("tiny", "small"), default="small", help="tiny ones are for tests")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each column takes")
    parser.add_argument("--threads", type=int, help="of each column; all by default")
    parser.add_argument("--peers", metavar="ENV_DIR", help="made by python -m benchmarks.peers; or CODECBAY_PEERS")
    parser.add_argument("--work", type=Path, help="keep the packages, some 4 GB, in this directory")
    parser.add_argument("--out", type=Path, help="write DATE.md and DATE.json into this directory")
    parser.add_argument("--json", type=Path, help="write the raw figures to this file")
    options = parser.parse_args()
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"there is no {name}; there are {', '.join(ROWS)}")
    peers = find_peers(options.peers)
    if peers is None:
        print("AudioCraft and descript's library are left out: no --peers (see docs/benchmarks.md).\n")
    settings = {"date": datetime.date.today().isoformat(), "size": options.size, "rounds": options.rounds}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.work or Path(temporary)
        with Bench(options.size, options.rounds, directory, peers) as bench:
            threads = options.threads or bench.threads
            machine = Bench(options.size, 1, directory, None, threads).limits()
        print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n", end="\n\n")
        for name in options.rows or ROWS:
            rows.append(measure(name, options.size, options.rounds, directory, peers, threads))
            print(tables.to_markdown(rows[-1]), flush=True)
            # After every row: what was measured in half an hour outlives an interruption.
            if options.out:
                tables.write(rows, machine, settings, options.out / settings["date"])
            if options.json:
                tables.write_json(rows, machine, settings, options.json)


if __name__ == "__main__":
    main()
