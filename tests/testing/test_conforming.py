"""The built-in EnCodec conforms, and so do all its fixture packages."""

from __future__ import annotations

from functools import partial

import codecbay
from codecbay.testing import conformance_tests, parametrize_checks
from codecbay.testing.pytest_tests import Run
from testing.broken import FIXTURES

PACKAGES = FIXTURES / "audiocraft"

test_mono = conformance_tests(PACKAGES / "musicgen-mono")
test_causal = conformance_tests(PACKAGES / "encodec-24khz-causal")
test_stereo_renormalized = conformance_tests(PACKAGES / "encodec-48khz-stereo-renormalized")
test_renormalized = conformance_tests(FIXTURES / "options" / "codec-renormalize-stereo")
test_other_output_rate = conformance_tests(FIXTURES / "options" / "codec-encoder-causal")
test_reference = conformance_tests(
    "debug_compression_model", expected_failures={"code-range": "its random weights give one code for everything"}
)


@parametrize_checks(partial(codecbay.load_codec, PACKAGES / "audiogen"), PACKAGES / "audiogen")
def test_audiogen(check: Run) -> None:
    check()
