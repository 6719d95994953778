"""Every broken codec fails the check that is meant for it, and no other without need."""

from __future__ import annotations

import pytest

from codecbay.testing import CHECKS, run_checks
from testing.broken import BROKEN


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_codec_fails_its_check(name: str) -> None:
    broken = BROKEN[name]
    failed = {result.check: result for result in run_checks(broken.make) if not result.ok}
    assert set(failed) == {broken.check, *broken.others}, {check: r.message for check, r in failed.items()}
    result = failed[broken.check]
    assert result.expected
    assert result.found
    assert str(result.message) == f"expected {result.expected}; found {result.found}"
    assert result.error is None, "the kit explains this, rather than to pass an exception on"


def test_every_check_has_a_broken_codec() -> None:
    packages = {"header", "round-trip", "weights"}  # see test_packages
    assert {check.name for check in CHECKS} == {broken.check for broken in BROKEN.values()} | packages
