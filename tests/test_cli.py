"""The command line, run as a user does: exit code 0, 1 with one clear message, or 2; never a traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import soundfile
import torch

import tiny
from codecbay._resources import builtin_registry
from codecbay.audio import read_audio, write_audio
from codecbay.factory import _tell_licence
from codecbay.registry import get_registry
from codecbay_encodec.codec import EncodecCodec
from command_line import Run
from models import FIXTURES
from package.forge import configured, directory, saved


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


def test_the_codec_that_decoded_is_named(run: Run, mono: Path, tone: Path, tmp_path: Path) -> None:
    assert run("encode", tone, "--codec", mono).code == 0
    copy = shutil.copy(mono / "compression_state_dict.bin", tmp_path / "copy.bin")
    codes = tone.with_suffix(".codes")
    assert run("decode", codes, "--json").json["codec"] == str(mono)
    assert run("decode", codes, "--codec", copy, "--json").json["codec"] == str(copy)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_a_codec_that_fails_is_named(
    run: Run, mono: Path, tone: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    assert run("encode", tone, "--codec", mono).code == 0
    source = tone if method == "encode" else tone.with_suffix(".codes")

    def fail(*_: object, **__: object) -> None:
        raise IndexError("far out")

    with monkeypatch.context() as patch:
        patch.setattr(EncodecCodec, f"{method}_audio", fail)
        refused = run(method, source, "--codec", mono)
    said = f"The codec '{mono}' failed in {method}: IndexError: far out\nIn Python, the traceback shows where."
    assert (refused.code, refused.err) == (1, f"Error: {said}\n")
    monkeypatch.setattr(EncodecCodec, method, fail)
    refused = run(method, source, "--codec", mono)
    assert refused.code == 1
    assert "of the back-end 'encodec' failed at a second of noise: IndexError: far out\n" in refused.err


def test_check_tells_by_its_exit_code(run: Run, mono: Path, packages: Path) -> None:
    assert run("check", mono).code == 0
    refused = run("check", mono, "--codec", packages / "encodec-48khz-stereo-renormalized", "--json")
    assert refused.code == 1
    assert {"sample_rate", "channels"} <= {finding["field"] for finding in refused.json["findings"]}
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
    assert [file["is"] for file in files] == ["language model", "codec"]
    assert files[0]["num_codebooks"] == files[1]["num_codebooks"] == 4
    assert "conditioners" in run("info", mono).out


def test_info_shows_a_codec_in_the_layout_of_transformers(run: Run, tmp_path: Path) -> None:
    package = tiny.snac_directory(tmp_path / "snac")
    (file,) = run("info", package, "--json").json["files"]
    assert (file["is"], file["backend"], file["num_codebooks"]) == ("codec", "snac", 7)


def test_info_says_what_it_is_given_instead_of_a_package(run: Run, mono: Path, tone: Path) -> None:
    assert run("encode", tone, "--codec", mono).code == 0
    assert "a file of codes, not a package. 'codecbay decode'" in run("info", tone.with_suffix(".codes")).err
    assert "or config.json with weights in this directory, only tone.codes" in run("info", tone.parent).err


def test_plugins_are_listed(run: Run) -> None:
    assert "encodec" in run("plugins").out
    assert run("plugins", "--json").json[0]["state"] == "loaded"


def test_codecs_are_listed(run: Run) -> None:
    listed = run("codecs", "--json").json
    lines = run("codecs").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [codec["name"] for codec in listed]
    assert "encodec-32khz" in {codec["name"] for codec in listed}
    assert next(line for line in lines if line.startswith("dac-44khz-8kbps ")).split()[1:] == [
        "44100", "86.1328", "1..9", "1024", "1", "transformers", "yes", "MIT",
    ]  # fmt: skip
    at_24khz = run("codecs", "--sample-rate", 24000, "--json").json
    rates = {codec["name"]: (codec["spec"]["sample_rate"], codec["spec"]["decoded_sample_rate"]) for codec in at_24khz}
    assert all(24000 in both for both in rates.values())
    assert rates["neucodec"] == (16000, 24000)
    assert "xcodec2" not in rates
    assert "None of the known codecs" in run("codecs", "--sample-rate", 1234).out


@pytest.mark.parametrize("name", ["dac-44khz-8kbps", "dac_44khz", "descript/dac_44khz"])
def test_one_codec_is_shown_by_any_of_its_names(run: Run, name: str) -> None:
    assert run("codecs", name, "--json").json["spec"]["sample_rate"] == 44100
    shown = dict(line.split(maxsplit=1) for line in run("codecs", name).out.splitlines())
    assert (shown["name"], shown["licence"], shown["frame_rate"]) == ("dac-44khz-8kbps", "MIT", "86.1328125")


def test_a_wrong_name_gets_near_misses(run: Run) -> None:
    for args in (["codecs", "encodec-32kz"], ["check", "{mono}", "--codec", "encodec-32kz"]):
        refused = run(*(arg.format(mono=FIXTURES / "audiocraft" / "musicgen-mono") for arg in args))
        assert refused.code == 1
        assert "Did you mean 'encodec-32khz'?" in refused.err
        assert "See 'codecbay codecs'." in refused.err
        assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "here", "install"),
    [
        ("snac-24khz", "needs snac", "pip install 'codecbay[snac]'"),
        ("speechtokenizer", "needs speechtokenizer, beartype, tensorboard", "pip install 'codecbay[speechtokenizer]'"),
        ("encodec-16khz-audiocraft", "yes", None),
    ],
)
def test_what_a_codec_needs_is_said(
    run: Run, name: str, here: str, install: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution(wanted: str) -> metadata.Distribution:
        if wanted in ("snac", "speechtokenizer", "beartype", "tensorboard"):
            raise metadata.PackageNotFoundError(wanted)
        return metadata.distribution(wanted)

    monkeypatch.setattr("codecbay.cli.listing.distribution", distribution)
    shown = run("codecs", name, "--json").json
    assert (shown["here"], shown["install"]) == (here, install)
    assert here in run("codecs").out
    assert (install or "yes") in run("codecs", name).out


def test_a_codec_whose_plugin_is_not_loaded_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODECBAY_PLUGINS", "encodec")
    assert run("codecs", "snac-24khz", "--json").json["here"] == "no plugin"


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Writes the user's own registry."""
    path = tmp_path / "mine.toml"
    monkeypatch.setenv("CODECBAY_REGISTRY", str(path))

    def write(text: str) -> Path:
        path.write_text(f"schema_version = 1\n{text}")
        get_registry.cache_clear()
        return path

    yield write
    get_registry.cache_clear()


def test_codecs_that_fit_are_found_among_ones_own(run: Run, mono: Path, own_registry: Callable[[str], Path]) -> None:
    assert run("codecs", "--fits", mono, "--json").json == []  # the little model has 64 values a token
    own_registry(
        f"""
[codecs.mine]
source = "{FIXTURES / "audiocraft" / "musicgen-melody"}"
licence = "MIT"
[codecs.other-rate]
source = "{FIXTURES / "audiocraft" / "encodec-24khz-causal"}"
licence = "MIT"
[codecs.gone]
source = "/no/such/codec"
licence = "MIT"
[codecs.elsewhere]
source = "me/elsewhere"
licence = "MIT"
"""
    )
    (mine,) = run("codecs", "--fits", mono, "--json").json
    assert (mine["name"], mine["backend"], mine["here"]) == ("mine", "encodec", "yes")
    assert "mine  32000" in run("codecs", "--fits", mono).out
    assert [codec["name"] for codec in run("codecs", "--sample-rate", 24000, "--json").json][-1] == "other-rate"
    *_, gone, elsewhere = run("codecs").out.splitlines()
    assert gone.split() == ["gone", "not", "there:", "/no/such/codec", "MIT"]
    assert elsewhere.split() == ["elsewhere", "back-end", "not", "told", "MIT"]


def test_a_package_that_cannot_be_read_fits_nothing_and_says_why(run: Run, tmp_path: Path) -> None:
    broken = directory(tmp_path / "broken", lm=saved(configured("lm", {"transformer_lm.card": -1})))
    for package, reason in ((broken, "card"), ("/no/such/package", "no such file")):
        refused = run("codecs", "--fits", package)
        assert refused.code == 1
        assert reason in refused.err


def test_a_non_commercial_licence_is_one_line_on_standard_error(
    run: Run, mono: Path, text_encoder: Path, tmp_path: Path, own_registry: Callable[[str], Path]
) -> None:
    own_registry(f"[codecs.mine]\nsource = '{mono}'\nlicence = 'CC-BY-NC-4.0'\n")
    options = ["-o", tmp_path / "out.wav", "--duration", 0.1, "--text-encoder", text_encoder, "--json"]
    _tell_licence.cache_clear()
    said = "Warning: licence: the weights of the codec 'mine' are not for commercial use (CC-BY-NC-4.0).\n"
    first = run("generate", mono, "--codec", "mine", *options)
    assert (first.code, first.err.count(said), first.err.count("licence")) == (0, 1, 1)
    assert first.json["files"]
    assert "licence" not in run("generate", mono, "--codec", "mine", *options).err
    assert "Warning" not in run("check", mono, "--codec", "mine").err


def test_a_clash_of_names_shows_both_places(run: Run, own_registry: Callable[[str], Path]) -> None:
    path = own_registry("[codecs.mine]\nsource = 'me/mimi'\nlicence = 'MIT'\naliases = ['mimi']\n")
    refused = run("codecs")
    assert refused.code == 1
    assert "'mimi' stands twice" in refused.err
    assert str(path) in refused.err
    assert str(builtin_registry()) in refused.err


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


@pytest.mark.parametrize(("kind", "what"), [("lm", "language model"), ("codec", "codec")])
def test_a_training_checkpoint_is_told_from_a_package(run: Run, mono: Path, kind: str, what: str) -> None:
    told = run("info", mono / f"{kind}_training_checkpoint.th", "--json")
    assert told.code == 1
    (file,) = told.json["files"]
    assert file["is"] == f"training checkpoint of a {what}"
    assert f"codecbay export {kind}" in file["problem"]
