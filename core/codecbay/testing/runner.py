"""Runs the checks, and settles them with the failures that were expected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import torch

from codecbay.errors import CodecbayError, MissingDependencyError, nearest
from codecbay.factory import load_codec, resolve_codec
from codecbay.testing.checks import CHECKS
from codecbay.testing.trial import Check, MakeCodec, Mismatch, NotApplicable, Result, Trial, shortened

Source = str | os.PathLike[str]


def run_checks(
    make_codec: MakeCodec | Source,
    package: Source | None = None,
    expected_failures: Mapping[str, str] | None = None,
    *,
    checks: Iterable[Check] = CHECKS,
    device: str = "cpu",
) -> list[Result]:
    """Run the checks on a codec.

    Args:
        make_codec: builds the codec, called with ``device=`` and ``dtype=``; or a package, or a codec's name.
        package: where the codec's files lie, for the checks of packages.
        expected_failures: the checks that are known to fail, with the reason. One that passes is a failure.
        checks: the checks to run.
        device: to build the codec on.

    Returns:
        A result for each check, in order; nothing else that the codec raises gets out.

    Raises:
        CodecbayError: ``expected_failures`` names a check that there is not, or the source leads to no codec, or to
            one that cannot be built: then no check says more than this.
        MissingDependencyError: a library that the codec needs is not there, which is no fault of the codec.
    """
    chosen = tuple(checks)
    reasons = check_names(expected_failures)
    trial = make_trial(make_codec, package, device=device)
    if not callable(make_codec):
        _ = trial.codec  # what cannot be built is told once, and not by each check
    return [run_check(check, trial, reasons.get(check.name)) for check in chosen]


def run_check(check: Check, trial: Trial, reason: str | None = None) -> Result:
    """Run one check.

    Args:
        check: to run.
        trial: the codec.
        reason: why it is expected to fail; ``None`` where it is not.

    Raises:
        MissingDependencyError: a library that the codec needs is not there.
    """
    mismatch: Mismatch | None = None
    error: Exception | None = None
    skipped: str | None = None
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            check.function(trial)
    except NotApplicable as why:
        skipped = str(why)
    except Mismatch as raised:
        mismatch = raised
    except MissingDependencyError:
        raise
    except Exception as other:  # a codec is someone else's code: anything can come out of it
        error = other
        mismatch = Mismatch("no error", f"{type(other).__name__}: {shortened(str(other))}")

    if skipped is not None:
        status, message = "skipped", skipped
    elif mismatch is None and reason is None:
        return Result(check.name, check.about, "passed", None, None, None, check.read_more)
    elif mismatch is None:
        status, message = "unexpected pass", f"passed, but was expected to fail: {reason}"
    elif reason is None:
        status, message = "failed", str(mismatch)
    else:
        status, message = "expected failure", f"{reason} ({mismatch})"
    expected = None if mismatch is None else mismatch.expected
    found = None if mismatch is None else mismatch.found
    return Result(check.name, check.about, status, message, expected, found, check.read_more, error)


def check_names(expected_failures: Mapping[str, str] | None) -> dict[str, str]:
    """The expected failures, if they name checks that there are.

    Raises:
        CodecbayError: one does not.
    """
    names = [check.name for check in CHECKS]
    for name in expected_failures or {}:
        if name not in names:
            raise CodecbayError(f"There is no check {name!r}.{nearest(name, names)} There are: {', '.join(names)}.")
    return dict(expected_failures or {})


def make_trial(make_codec: MakeCodec | Source, package: Source | None, *, device: str) -> Trial:
    """The codec under test, from what :func:`run_checks` takes. It is built when a check first needs it.

    Raises:
        CodecbayError: the source leads to no codec.
    """
    if isinstance(make_codec, (str, os.PathLike)):
        source = make_codec
        if package is None:
            file = resolve_codec(source).file
            package = None if file is None or file.header.container == "none" else str(file.header.path)
        make_codec = partial(load_codec, source)
    where = None if package is None else Path(package)
    return Trial(make_codec, where, device)
