"""The checks as tests of pytest, which is imported only here, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from codecbay.testing.checks import CHECKS
from codecbay.testing.runner import Source, check_names, make_trial, run_check
from codecbay.testing.trial import Check, MakeCodec, Trial

if TYPE_CHECKING:
    import pytest

Run = Callable[[], None]  # what a test function gets as its argument "check"


def parametrize_checks(
    make_codec: MakeCodec | Source,
    package: Source | None = None,
    expected_failures: Mapping[str, str] | None = None,
    *,
    device: str = "cpu",
) -> pytest.MarkDecorator:
    """Give a test function the checks, one by one, as its argument ``check``; calling it runs it.

    ::

        @parametrize_checks(partial(codecbay.load_codec, "path/to/package"))
        def test_conformance(check):
            check()

    The arguments are those of :func:`codecbay.testing.run_checks`. The codec is built by the first test that runs.

    Raises:
        CodecbayError: ``expected_failures`` names a check that there is not.
    """
    import pytest

    reasons = check_names(expected_failures)

    @cache
    def trial() -> Trial:
        return make_trial(make_codec, package, device=device)

    params = [pytest.param(_bound(check, trial, reasons.get(check.name)), id=check.name) for check in CHECKS]
    return pytest.mark.parametrize("check", params)


def conformance_tests(
    make_codec: MakeCodec | Source,
    package: Source | None = None,
    expected_failures: Mapping[str, str] | None = None,
    *,
    device: str = "cpu",
) -> Callable[..., None]:
    """A test function that runs every check: ``test_conformance = conformance_tests("path/to/package")``.

    The arguments are those of :func:`codecbay.testing.run_checks`.
    """

    @parametrize_checks(make_codec, package, expected_failures, device=device)
    def test_conformance(check: Run) -> None:
        check()

    return test_conformance


def _bound(check: Check, trial: Callable[[], Trial], reason: str | None) -> Run:
    import pytest

    def run() -> None:
        __tracebackhide__ = True
        result = run_check(check, trial(), reason)
        outcome: dict[str, Any] = {"skipped": pytest.skip, "expected failure": pytest.xfail}
        if result.status in outcome:
            outcome[result.status](result.message)
        if not result.ok:
            raise AssertionError(f"{check.name}: {result.message}. Read more: {check.read_more}") from result.error

    return run
