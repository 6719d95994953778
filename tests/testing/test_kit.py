"""The kit itself: expected failures, what it reports, pytest, the command line, the documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import codecbay
from codecbay.cli.conformance import conformance
from codecbay.codec import Codec
from codecbay.errors import CodecbayError, MissingDependencyError, SourceError, WeightsError
from codecbay.testing import CHECKS, parametrize_checks, run_checks
from codecbay_encodec.codec import EncodecCodec
from testing.broken import BROKEN, MONO, TakesAnyCount, of

ROOT = Path(__file__).parents[2]
QUICK = [check for check in CHECKS if check.name in ("lengths", "codebook-counts", "causal")]
BROKEN_COUNT = of(TakesAnyCount)


def statuses(**expected: str) -> dict[str, str]:
    failures = {name.replace("_", "-"): reason for name, reason in expected.items()}
    return {result.check: result.status for result in run_checks(BROKEN_COUNT, None, failures, checks=QUICK)}


def test_an_expected_failure_is_reported_as_such() -> None:
    assert statuses() == {"lengths": "passed", "causal": "skipped", "codebook-counts": "failed"}
    assert statuses(codebook_counts="it takes any")["codebook-counts"] == "expected failure"


def test_a_check_that_should_fail_and_passes_is_a_failure() -> None:
    results = {r.check: r for r in run_checks(BROKEN_COUNT, None, {"lengths": "too short"}, checks=QUICK)}
    assert results["lengths"].status == "unexpected pass"
    assert not results["lengths"].ok
    assert results["lengths"].message == "passed, but was expected to fail: too short"


def test_a_check_that_does_not_apply_is_skipped_even_where_it_should_fail() -> None:
    assert statuses(causal="not at all")["causal"] == "skipped"


def test_a_failure_says_what_was_expected_and_found_and_where_to_read_more() -> None:
    result = next(r for r in run_checks(BROKEN_COUNT, checks=QUICK) if not r.ok)
    assert result.expected == "set_num_codebooks(-1) to be refused with CodecbayError"
    assert result.found == "it was let through"
    assert result.message == f"expected {result.expected}; found {result.found}"
    assert result.read_more == f"{ROOT / 'docs' / 'plugins' / 'conformance.md'}#codebook-counts"
    assert result.to_dict()["ok"] is False
    json.dumps(result.to_dict())


def test_what_a_codec_raises_is_a_failure_and_is_kept() -> None:
    def make(*, device: str, dtype: torch.dtype) -> Codec:
        raise ZeroDivisionError("of the codec")

    results = run_checks(make)
    assert {result.status for result in results} == {"failed", "skipped"}  # without a package, two are skipped
    assert results[0].message == "expected no error; found ZeroDivisionError: of the codec"
    assert isinstance(results[0].error, ZeroDivisionError)


@pytest.mark.parametrize("run", [run_checks, parametrize_checks])
def test_expected_failures_name_checks_that_there_are(run: Any) -> None:
    with pytest.raises(CodecbayError, match=r"no check 'length'.* Did you mean 'lengths'"):
        run(MONO, None, {"length": "a slip"})


def test_a_source_that_leads_nowhere_is_an_error() -> None:
    with pytest.raises(SourceError, match="nowhere"):
        run_checks("nowhere.bin")


def test_a_callable_and_a_package_are_the_same_codec() -> None:
    make = partial(codecbay.load_codec, MONO)
    assert [r.status for r in run_checks(make, MONO)] == [r.status for r in run_checks(MONO)]


def test_random_state_and_windows_stay_as_they_were() -> None:
    state, window = torch.get_rng_state(), codecbay.codec._WINDOW
    run_checks("debug_compression_model")
    assert torch.equal(torch.get_rng_state(), state)
    assert window == codecbay.codec._WINDOW


def test_decode_only_and_encode_only_codecs_are_checked_for_what_they_do() -> None:
    for field, skipped in (("can_encode", "code-range"), ("can_decode", "wrong-codes")):
        changes: dict[str, Any] = {field: False}
        results = {r.check: r for r in run_checks(of(EncodecCodec, **changes))}
        assert all(r.ok for r in results.values()), [r.message for r in results.values() if not r.ok]
        assert results[skipped].status == "skipped"


PLUGIN_TESTS = """
from codecbay.testing import conformance_tests
from testing.broken import TakesAnyCount, TakesAnything, of


class TakesAll(TakesAnyCount, TakesAnything):
    pass


known = {"codebook-counts": "it takes any", "lengths": "it does not, in truth"}
test_conformance = conformance_tests(of(TakesAll), None, known)
"""


def test_under_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_plugin.py").write_text(PLUGIN_TESTS)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-o", f"pythonpath={ROOT / 'tests'}"]
    run = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    assert (counts["failed"], counts["skipped"], counts["xfailed"]) == (2, 4, 1)
    assert "PASSED test_plugin.py::test_conformance[spec]" in run.stdout
    assert "FAILED test_plugin.py::test_conformance[lengths]" in run.stdout
    assert "passed, but was expected to fail: it does not, in truth" in run.stdout
    assert "FAILED test_plugin.py::test_conformance[wrong-audio]" in run.stdout
    assert f"Read more: {ROOT / 'docs' / 'plugins' / 'conformance.md'}#wrong-audio" in run.stdout


def test_pytest_is_imported_only_for_tests() -> None:
    code = "import sys, codecbay.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_shows_a_table() -> None:
    run = CliRunner().invoke(conformance, [str(MONO)])
    assert run.exit_code == 0, run.output
    rows = run.output.splitlines()
    assert rows[0].split()[:2] == ["check", "result"]
    assert [row.split()[0] for row in rows[1 : len(CHECKS) + 1]] == [check.name for check in CHECKS]
    assert run.output.endswith("The codec conforms.\n")


def test_the_command_prints_json_and_exits_with_1_where_a_check_fails() -> None:
    arguments = ["--json", "--check", "lengths", "--expect", "lengths=too short", str(MONO)]
    run = CliRunner().invoke(conformance, arguments)
    assert run.exit_code == 1
    facts = json.loads(run.output)
    assert facts["ok"] is False
    assert [check["status"] for check in facts["checks"]] == ["unexpected pass"]
    assert facts["checks"][0]["read_more"] == f"{ROOT / 'docs' / 'plugins' / 'conformance.md'}#lengths"


@pytest.mark.parametrize("option", [["--expect", "lengths"], ["--check", "length"], ["--expect", "length=so"]])
def test_the_command_refuses_what_it_does_not_know(option: list[str]) -> None:
    run = CliRunner().invoke(conformance, [str(MONO), *option])
    assert isinstance(run.exception, CodecbayError)


def test_a_library_that_is_not_there_is_no_fault_of_the_codec() -> None:
    def make(**_: Any) -> Codec:
        raise MissingDependencyError("Install it: pip install tone")

    with pytest.raises(MissingDependencyError, match="pip install tone"):
        run_checks(make, checks=QUICK)


def test_what_cannot_be_loaded_is_told_once(tmp_path: Path) -> None:
    saved = torch.load(MONO / "compression_state_dict.bin", weights_only=True)
    saved["best_state"].popitem()
    torch.save(saved, tmp_path / "broken.bin")
    with pytest.raises(WeightsError, match="missing"):
        run_checks(tmp_path / "broken.bin", checks=QUICK)


def test_every_check_is_explained() -> None:
    text = (ROOT / "docs" / "plugins" / "conformance.md").read_text()
    assert re.findall(r"^### (\S+)$", text, re.MULTILINE) == [check.name for check in CHECKS]
    for check in CHECKS:
        assert check.function.__doc__


def test_names_are_unique() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len(BROKEN) >= 12
