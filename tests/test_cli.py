"""The command line, run as a user does: exit code 0, 1 with one clear message, or 2; never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from codecbay.audio import read_audio, write_audio
from codecbay.cli import main


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, object]:
        data: dict[str, object] = json.loads(self.out)
        return data


class Run:
    """Runs the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: object) -> Result:
        try:
            main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        else:
            code = 0
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Result(int(code or 0), captured.out, captured.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def mono(packages: Path) -> Path:
    return packages / "musicgen-mono"


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    time = torch.arange(22050) / 22050
    write_audio(path, 0.3 * torch.sin(2 * torch.pi * 440 * time).expand(2, -1), 22050)
    return path


def test_generate_writes_a_sound_file(run: Run, mono: Path, text_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    options = ["--duration", 0.6, "--seed", 3, "--text-encoder", text_encoder, "--json"]
    result = run("generate", mono, "slow piano melody", "-o", out, *options)
    assert result.code == 0, result.err
    wav, rate = read_audio(out)
    assert (rate, list(wav.shape)) == (32000, [1, 19200])
    assert result.json["seed"] == 3
    first = out.read_bytes()
    assert run("generate", mono, "slow piano melody", "-o", out, *options).code == 0
    assert out.read_bytes() == first
    assert run("generate", mono, "slow piano melody", "-o", out, *options[:3], 4, *options[4:]).code == 0
    assert out.read_bytes() != first


def test_several_texts_make_several_files(run: Run, mono: Path, text_encoder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("slow piano\n\nepic rock drums\n")
    arguments = ["generate", mono, "warm pad", "--texts-from", texts, "-o", tmp_path / "a.flac", "--duration", 0.2]
    result = run(*arguments, "--text-encoder", text_encoder, "--greedy")
    assert result.code == 0, result.err
    assert sorted(path.name for path in tmp_path.glob("*.flac")) == ["a-1.flac", "a-2.flac", "a-3.flac"]


def test_a_prompt_is_continued(run: Run, mono: Path, text_encoder: Path, tmp_path: Path, tone: Path) -> None:
    out = tmp_path / "out.wav"
    result = run("generate", mono, "-o", out, "--prompt", tone, "--duration", 1.2, "--text-encoder", text_encoder)
    assert result.code == 0, result.err
    assert read_audio(out)[0].shape[-1] == 38400


def test_a_melody_is_followed(run: Run, packages: Path, text_encoder: Path, tmp_path: Path, tone: Path) -> None:
    out = tmp_path / "out.wav"
    options = ["--melody", tone, "--duration", 0.4, "--text-encoder", text_encoder]
    result = run("generate", packages / "musicgen-melody", "x", "-o", out, *options)
    assert result.code == 0, result.err
    assert out.is_file()
    refused = run("generate", packages / "musicgen-mono", "x", "-o", out, *options)
    assert refused.code == 1
    assert "takes no melody" in refused.err


def test_encode_and_decode_give_the_sound_back_in_its_own_format(run: Run, mono: Path, tone: Path) -> None:
    codes, back = tone.with_suffix(".codes"), tone.with_name("back.wav")
    encoded = run("encode", tone, "--codec", mono, "-o", codes, "--json")
    assert encoded.code == 0, encoded.err
    assert encoded.json["codebooks"] == 4
    assert encoded.json["channels"] == 2
    decoded = run("decode", codes, "-o", back)
    assert decoded.code == 0, decoded.err
    assert read_audio(back)[0].shape == read_audio(tone)[0].shape
    assert soundfile.info(str(back)).samplerate == 22050


def test_another_codec_cannot_decode(run: Run, mono: Path, packages: Path, tone: Path) -> None:
    assert run("encode", tone, "--codec", mono).code == 0
    refused = run("decode", tone.with_suffix(".codes"), "--codec", packages / "encodec-24khz-causal")
    assert refused.code == 1
    assert "Decode them with the codec that made them" in refused.err


def test_check_tells_by_its_exit_code(run: Run, mono: Path, packages: Path) -> None:
    assert run("check", mono).code == 0
    refused = run("check", mono, "--codec", packages / "encodec-48khz-stereo-renormalized", "--json")
    assert refused.code == 1
    findings = refused.json["findings"]
    assert isinstance(findings, list)
    assert {"sample_rate", "channels"} <= {finding["field"] for finding in findings}
    assert "does not fit" in run("check", mono, "--codec", "dac_44khz").out


def test_a_misfit_is_not_generated_with(run: Run, mono: Path, packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    refused = run("generate", mono, "x", "-o", out, "--codec", packages / "encodec-24khz-causal")
    assert refused.code == 1
    assert "does not fit" in refused.err
    assert not list(tmp_path.iterdir())


def test_info_shows_what_a_package_declares(run: Run, mono: Path) -> None:
    result = run("info", mono, "--json")
    assert result.code == 0
    files = result.json["files"]
    assert isinstance(files, list)
    assert [file["is"] for file in files] == ["language model", "codec"]
    assert files[0]["num_codebooks"] == files[1]["num_codebooks"] == 4
    assert "conditioners" in run("info", mono).out


def test_codecs_and_plugins_are_listed(run: Run, mono: Path) -> None:
    assert "encodec-32khz" in run("codecs").out
    assert json.loads(run("codecs", "encodec-32khz", "--json").out)["spec"]["sample_rate"] == 32000
    assert "encodec-32khz" not in run("codecs", "--sample-rate", 24000).out
    fitting = run("codecs", "--fits", mono, "--json")
    assert json.loads(fitting.out) == []  # the little model has 64 values a token
    refused = run("codecs", "encodec-32kz")
    assert refused.code == 1
    assert "Did you mean 'encodec-32khz'?" in refused.err
    assert "encodec" in run("plugins").out
    assert json.loads(run("plugins", "--json").out)[0]["state"] == "loaded"


@pytest.mark.parametrize(
    "args",
    [
        ["generate", "/no/such/package", "x"],
        ["generate", "facebook/musicgen-small", "x"],
        ["generate", "{mono}", "x", "-o", "/no/such/dir/out.wav"],
        ["generate", "{mono}", "x", "-o", "out.xyz"],
        ["generate", "{mono}", "x", "--duration", "-1", "--text-encoder", "{t5}"],
        ["generate", "{mono}", "x", "--prompt", "{mono}/golden.json"],
        ["generate", "{mono}", "x", "--texts-from", "/no/such/file"],
        ["generate", "{mono}", "x", "--text-encoder", "/no/such/t5"],
        ["generate", "{mono}", "x"],  # the package names a text encoder that is not beside it
        ["generate", "{mono}", "x", "--device", "toaster"],
        ["encode", "{mono}/golden.json", "--codec", "{mono}"],
        ["encode", "/no/such.wav", "--codec", "{mono}"],
        ["decode", "{mono}/golden.json"],
        ["decode", "{mono}/golden.safetensors"],
        ["info", "/no/such"],
        ["info", "{mono}/golden.json"],
        ["check", "{t5}"],
        ["check", "{mono}", "--codec", "no-such-codec"],
    ],
)
def test_what_cannot_be_done_is_refused_in_one_message(
    run: Run, mono: Path, text_encoder: Path, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(arg.format(mono=mono, t5=text_encoder) for arg in args))
    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args", [["generate"], ["nonsense"], ["encode", "x.wav"], ["check", "x", "--num-codebooks", "0"], ["codecs", "--x"]]
)
def test_wrong_usage_has_its_own_exit_code(run: Run, args: list[str]) -> None:
    assert run(*args).code == 2


def test_the_script_is_installed() -> None:
    script = Path(sys.executable).with_name("codecbay")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("codecbay, version ")
