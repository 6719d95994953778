"""``codecbay conformance``: the conformance kit on the command line."""

from __future__ import annotations

import sys

import click

from codecbay.cli.common import json_option, print_json, print_table
from codecbay.errors import CodecbayError


@click.command()
@click.argument("codec", metavar="NAME|PACKAGE")
@click.option("--check", "names", multiple=True, help="Run this check alone; may be given more than once.")
@click.option("--expect", "expected", multiple=True, metavar="CHECK=REASON", help="A check that is known to fail.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 …")
@json_option
def conformance(codec: str, names: tuple[str, ...], expected: tuple[str, ...], device: str, as_json: bool) -> None:
    """Say whether a codec keeps the promises that every codec makes.

    Exit code 0 if it does, 1 if not.
    """
    from codecbay.testing.checks import CHECKS
    from codecbay.testing.runner import check_names, run_checks

    reasons = {}
    for entry in expected:
        name, _, reason = entry.partition("=")
        if not reason.strip():
            raise CodecbayError(f"--expect {entry!r} gives no reason. Write CHECK=REASON.")
        reasons[name.strip()] = reason.strip()
    wanted = check_names(dict.fromkeys(names, ""))
    checks = [check for check in CHECKS if not wanted or check.name in wanted]
    results = run_checks(codec, None, reasons, checks=checks, device=device)
    ok = all(result.ok for result in results)
    if as_json:
        print_json({"codec": codec, "ok": ok, "checks": [result.to_dict() for result in results]})
    else:
        print_table(["check", "result", "what it asks"], [(r.check, r.status, r.about) for r in results])
        for result in results:
            if result.message is not None:
                click.echo(f"\n{result.check}: {result.status}: {result.message}")
                if not result.ok:
                    click.echo(f"  Read more: {result.read_more}")
        count = sum(not result.ok for result in results)
        click.echo(f"\n{count} of {len(results)} checks failed." if count else "\nThe codec conforms.")
    sys.exit(0 if ok else 1)
