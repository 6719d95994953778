"""The benchmarks at their tiny size, without peers: that their results are right, never how long they take."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import plot, tables
from benchmarks.__main__ import ROWS, measure
from benchmarks.measure import Bench, Figure
from benchmarks.packages import CARD, N_Q
from benchmarks.tables import Row
from benchmarks.workers import ROOT, Worker, WorkerError, timed

from codecbay.imports import harmless_torchaudio


class Local:
    """What a worker does, in this process, where everything is imported already."""

    def __init__(self, build: str, arguments: dict[str, Any]) -> None:
        module, name = build.split(":")
        self._call = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)

    def __call__(self, **arguments: Any) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(json.dumps(timed(self._call, arguments)))
        return reply

    def watch(self, **arguments: Any) -> tuple[dict[str, Any], int]:
        return self(**arguments), 0

    def anonymous_bytes(self) -> int:
        return 0

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def run(packages: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def row(name: str, rounds: int = 2) -> Row:
        with harmless_torchaudio():
            return measure(name, "tiny", rounds, packages, None, 1)

    monkeypatch.setattr(Bench, "own", lambda self, build, **arguments: Local(build, arguments))
    monkeypatch.setattr("benchmarks.peers.stand_in", lambda: None)  # it would stay, for the tests that follow
    return row


def by_column(row: Row, work: str) -> dict[str, Figure]:
    found = {figure.column: figure for figure in row.figures if figure.work == work}
    assert found, [figure.work for figure in row.figures]
    return found


def test_decoding_gives_tokens(run: Any) -> None:
    row = run("lm_decode")
    for batch in (1, 2):
        found = by_column(row, f"batch {batch}, 8 steps")
        assert {"codecbay float32", "codecbay bfloat16", "codecbay int8", "transformers float32"} < found.keys()
        for dtype in ("float32", "bfloat16", "int8"):
            figure = found[f"codecbay {dtype}"]
            assert figure.result["shape"] == [batch, N_Q, 5]
            assert 0 <= figure.result["least"] <= figure.result["most"] < CARD
            assert len(figure.seconds) == 2
            assert figure.facts["steps/s"] == pytest.approx(8 / figure.median)
        assert found["transformers float32"].result["shape"] == [batch, 1, 5 * 640]  # the audio of as many frames


def test_a_step_late_in_a_generation(run: Any) -> None:
    for figure in run("lm_long").figures:
        assert figure.result["steps"] == 6
        assert figure.facts["MB read"] > 0


@pytest.mark.parametrize(
    ("name", "batches", "codes", "samples"),
    [("encodec", (1, 2), [N_Q, 50], 32_000), ("dac", (1,), [2, 125], 1000)],
)
def test_codecs_give_codes_and_audio(
    run: Any, name: str, batches: tuple[int, ...], codes: list[int], samples: int
) -> None:
    row = run(name)
    for batch in batches:
        for figure in by_column(row, f"encode 1 s, batch {batch}").values():
            assert figure.result["shape"] == [batch, *codes]
            assert figure.result["most"] > 0
        decoded = by_column(row, f"decode 1 s, batch {batch}")
        for figure in decoded.values():
            assert figure.result["shape"] == [batch, 1, samples]
        exact, other = (decoded[f"codecbay {dtype}"].result for dtype in ("float32", "bfloat16"))
        assert other["most"] == pytest.approx(exact["most"], rel=0.1)


def test_wrapped_codecs_give_what_transformers_gives(run: Any) -> None:
    row = run("wrapped", 1)
    assert len(row.figures) == 16
    for own in (figure for figure in row.figures if figure.column == "codecbay"):
        peer = by_column(row, own.work)["transformers"]
        assert own.result["mean"] == pytest.approx(peer.result["mean"], rel=1e-4), own.work
        assert own.result["most"] == pytest.approx(peer.result["most"], rel=1e-4), own.work


def test_a_long_recording_comes_back_whole(run: Any) -> None:
    row = run("long_audio", 1)
    codes = by_column(row, "EnCodec 32 kHz, encode")["40 s"].result["shape"]
    audio = by_column(row, "EnCodec 32 kHz, decode")["40 s"].result["shape"]
    assert (codes, audio) == ([1, N_Q, 2000], [1, 1, 1_280_000])


def test_loading_a_header_and_commands(run: Any) -> None:
    loaded = run("loading", 1).figures
    assert all(figure.seconds and figure.result["shape"] == [1, N_Q, 1] for figure in loaded)
    (checked,) = run("header", 1).figures
    assert checked.result["ok"]
    assert 0 < checked.result["bytes"] < 1_000_000
    figures = run("command_line", 1).figures
    assert [figure.facts["imports torch"] for figure in figures] == ["no"] * 3
    assert all(figure.result["printed"] for figure in figures[1:])


def test_quality(run: Any) -> None:
    row = run("quality", 1)
    for work in ("batch 1, 32 steps", "batch 2, 16 steps"):
        for figure in by_column(row, f"language model, {work}").values():
            assert 0 < figure.facts["relative error of logits"] < 0.2
            assert 0 < figure.facts["KL to float32, nats"] < 0.1
    for codec in ("EnCodec 32 kHz, 1 s", "DAC 44 kHz, 1 s"):
        assert by_column(row, codec)["bfloat16"].facts["SNR of decoded audio, dB"] > 20


def test_a_profile_adds_up(run: Any) -> None:
    row = run("profile", 1)
    works = {figure.work for figure in row.figures}
    assert len(works) == 14  # three dtypes at two sizes of a batch; two codecs, both ways, in two dtypes
    for work in works:
        found = by_column(row, work)
        assert sum(float(figure.facts["share"].rstrip("%")) for figure in found.values()) == pytest.approx(100, abs=1)
        assert ("matrix products" if "step" in work else "convolutions") in found
        assert all(figure.facts["ms"] >= 0 for figure in found.values())


def test_a_gpu_is_not_needed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    row = run("gpu")
    assert "no CUDA device" in tables.to_markdown(row)


def test_ratios_are_of_what_was_measured_in_turn() -> None:
    fast, slow = Figure("work", "codecbay float32", [1.0, 2.0, 1.0]), Figure("work", "Peer", [3.0, 6.0, 9.0])
    other = Figure("other work", "Peer", [1.0, 1.0, 1.0], facts={"x": 12345.6})
    row = Row("name", "About.", ("Peer",), [slow, fast, other])
    assert row.ratios(fast) == {"Peer": 3.0}
    assert row.ratios(slow) == row.ratios(other) == {}
    slow.result = {"shape": [4], "least": 0.0, "most": 2.0, "mean": 1.0}
    fast.result = {"shape": [1, 4], "least": 0.0, "most": 2.0, "mean": 1.1}
    assert row.same_as(fast) == []
    fast.result["mean"] = 1.00001
    assert row.same_as(fast) == ["Peer"]
    lines = tables.to_markdown(row).splitlines()
    assert lines[4] == "| work | column | median s | spread s | vs Peer | same result as | x |"
    assert lines[7] == "| work | codecbay float32 | 1 | 1–2 | 3.00x | Peer |  |"
    assert plot.bars([row]) == [("name: work\nover Peer", "codecbay float32", 3.0)]


def test_the_plot_shows_every_ratio(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'bench' is not installed")
    figures = [Figure("work", "Peer", [4.0]), Figure("work", "codecbay int8", [2.0]), Figure("work", "codecbay", [1.0])]
    plot.draw([Row("name", "About.", ("Peer",), figures)], tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert "2.0x  codecbay int8" in text
    assert "4.0x  codecbay" in text


def test_a_worker_answers_and_tells_what_failed() -> None:
    worker = Worker(Path(sys.executable), "machine:limits", {"tiny": True}, 1)
    try:
        reply, peak = worker.watch()
        assert reply["threads"] == 1
        assert reply["read GB/s"] > 0
        assert peak > 1e6
        with pytest.raises(WorkerError, match="unexpected keyword argument 'color'"):
            worker(color="red")
    finally:
        worker.close()


def test_the_command_writes_a_page_and_raw_figures(tmp_path: Path) -> None:
    command = [
        "header",
        "--size",
        "tiny",
        "--rounds",
        "1",
        "--out",
        str(tmp_path),
        "--json",
        str(tmp_path / "raw.json"),
    ]
    subprocess.run([sys.executable, "-m", "benchmarks", *command], cwd=ROOT, check=True, capture_output=True)
    (page,) = tmp_path.glob("20*.md")
    assert "| check | codecbay |" in page.read_text()
    assert tables.read_json(tmp_path / "raw.json") == tables.read_json(page.with_suffix(".json"))
    assert tables.read_json(tmp_path / "raw.json")[0].figures[0].result["ok"]
    assert set(ROWS) == {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "PEERS = " in path.read_text()}
