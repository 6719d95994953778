"""The conformance kit: what every codec promises, as checks that an author runs on theirs.

In a test module, one line is enough::

    from codecbay.testing import conformance_tests

    test_conformance = conformance_tests("path/to/package")

See ``docs/plugins/conformance.md`` for what each check asks, and ``codecbay conformance`` for the command.
"""

from codecbay.testing.checks import CHECKS
from codecbay.testing.pytest_tests import conformance_tests, parametrize_checks
from codecbay.testing.runner import run_checks
from codecbay.testing.trial import Check, MakeCodec, Mismatch, NotApplicable, Result, Trial

__all__ = [
    "CHECKS",
    "Check",
    "MakeCodec",
    "Mismatch",
    "NotApplicable",
    "Result",
    "Trial",
    "conformance_tests",
    "parametrize_checks",
    "run_checks",
]
