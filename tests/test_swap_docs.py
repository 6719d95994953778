"""docs/swap.md: its commands print what it shows, its code runs, and the training in it learns."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from codecbay.audio import read_audio, write_audio
from codecbay.registry import get_registry
from command_line import Run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "swap.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's root as the page has it: with a DAC that was downloaded, and recordings."""
    monkeypatch.chdir(tmp_path)
    Path("examples").symlink_to(ROOT / "examples")
    tiny.transformers_directory(Path("dac"), tiny.transformers_model(*tiny.TRANSFORMERS["dac_44khz"]))
    Path("data").mkdir()
    time = torch.arange(2 * 44_100) / 44_100
    for name, pitch in (("low", 110), ("high", 880)):
        write_audio(f"data/{name}.wav", 0.3 * torch.sin(2 * torch.pi * pitch * time)[None], 44_100)
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.filterwarnings("ignore:provenance:UserWarning")
def test_the_page_does_what_it_shows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run, printed = Run(capsys), ""
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    for language, text in BLOCKS:
        if language == "toml":
            Path(text.split()[1]).write_text(text)
        elif language == "sh":
            printed = "".join(run_line(line, run, monkeypatch) for line in text.splitlines())
        elif language == "text":
            assert text == printed
        else:
            assert language == "python"
            exec(compile(text, "docs/swap.md", "exec"), names)
    assert sum(names["losses"][-5:]) < 0.6 * sum(names["losses"][:5])
    wav, rate = read_audio("tone.wav")
    assert rate == 44_100
    assert wav.abs().max() > 0


def run_line(line: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a line of the page prints."""
    words = shlex.split(line)
    with monkeypatch.context() as patch:
        if "=" in words[0]:
            patch.setenv(*words.pop(0).split("="))
        get_registry.cache_clear()
        assert words.pop(0) == "codecbay"
        printed = run(*words).out
    get_registry.cache_clear()
    return printed


def test_what_fits_musicgen_is_its_own_codec_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = tiny.language_model(tmp_path / "lm", card=2048, n_q=4, sample_rate=32_000)  # as facebook/musicgen-small
    fitting = Run(capsys)("codecs", "--fits", lm, "--json").json
    assert [codec["name"] for codec in fitting] == ["encodec-32khz", "encodec-32khz-audiocraft"]
