"""A language model over codecs of every back-end: what fits makes sound, what does not is refused with every reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import codecbay
import tiny
from codecbay.audio import read_audio
from codecbay.codec import Codec
from codecbay.errors import IncompatibleError
from codecbay.factory import open_package, resolve_codec
from codecbay.lm.config import read_lm_config
from codecbay.package import read_package_file
from codecbay.spec import CodecSpec, LMSpec
from command_line import Run
from models import FIXTURES, TEXT_ENCODER, noise, package

TEXTS: list[str | None] = ["slow piano melody", None]


def from_transformers(name: str) -> Callable[[Path], Path]:
    return lambda path: tiny.transformers_directory(path, tiny.transformers_model(*tiny.TRANSFORMERS[name]))


# By name, what makes it and the back-end that builds it.
CODECS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "audiocraft-encodec": ("encodec", lambda _: package("encodec-24khz-causal")),
    "audiocraft-renormalized": ("encodec", lambda _: package("encodec-48khz-stereo-renormalized")),
    **{name: ("transformers", from_transformers(name)) for name in tiny.TRANSFORMERS},
    "dac": ("dac", lambda path: tiny.descript_file(path.with_suffix(".pth"))),
    "snac": ("snac", tiny.snac_directory),
}


@pytest.fixture(scope="module")
def codec_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where the codec of a name lies, made when it is first asked for."""
    made: dict[str, Path] = {}

    def path(name: str) -> Path:
        if name not in made:
            made[name] = CODECS[name][1](tmp_path_factory.mktemp("codec") / name)
        return made[name]

    return path


@dataclass(frozen=True)
class Pair:
    """A codec, and the language model that is made for it.

    Attributes:
        codec: its name.
        n_q: streams of the language model.
        seconds: to generate.
        stereo: how two mono streams are interleaved.
    """

    codec: str
    n_q: int
    seconds: float
    stereo: str | None = None

    @property
    def codebooks(self) -> int:
        """To set on the codec."""
        return self.n_q // 2 if self.stereo == "codebook" else self.n_q

    def __str__(self) -> str:
        return f"{self.codec}-{self.n_q}" + (f"-{self.stereo}" if self.stereo else "")


PAIRS = [
    Pair("audiocraft-encodec", 3, 0.2),
    Pair("audiocraft-renormalized", 4, 0.1),
    Pair("encodec_24khz", 2, 0.2),
    Pair("encodec_32khz", 4, 0.2),
    Pair("encodec_48khz", 4, 0.1),
    Pair("dac_44khz", 4, 0.2),
    Pair("mimi", 3, 1.0),
    Pair("xcodec", 4, 0.3),
    Pair("dac", 4, 0.4),
    Pair("snac", 7, 0.4),
    Pair("dac", 8, 0.4, "codebook"),
    Pair("snac", 7, 0.4, "timestep"),
]


def make_lm(path: Path, pair: Pair, spec: CodecSpec, **changes: Any) -> Path:
    numbers = {"card": spec.cardinalities[0], "n_q": pair.n_q, "sample_rate": spec.output_rate}
    channels = 2 if pair.stereo else spec.channels
    return tiny.language_model(path, **({**numbers, "channels": channels, "stereo": pair.stereo} | changes))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_language_model_over_every_codec(pair: Pair, codec_path: Callable[[str], Path], tmp_path: Path) -> None:
    codec = codecbay.load_codec(codec_path(pair.codec), device="cpu", num_codebooks=pair.codebooks)
    assert resolve_codec(codec_path(pair.codec)).backend.name == CODECS[pair.codec][0]  # type: ignore[union-attr]
    lm = make_lm(tmp_path / "lm", pair, codec.spec)
    model = codecbay.load(lm, codec_path(pair.codec), text_encoder=TEXT_ENCODER, device="cpu")
    assert model.report.ok
    assert model.report.num_codebooks == pair.codebooks
    model.set_generation_params(duration=pair.seconds, top_k=0)
    torch.manual_seed(0)
    audio, tokens = model.generate(TEXTS, return_tokens=True)
    frames = int(pair.seconds * codec.spec.frame_rate)
    check_sound(model, codec, pair, audio, tokens, frames)
    assert len(tokens.unique()) > 10  # whatever is drawn

    known = frames // 2
    prompt = noise(2, model.audio_channels, known * codec.frame_size, seed=1)
    audio, tokens = model.generate_continuation(prompt, codec.sample_rate, TEXTS, return_tokens=True)
    check_sound(model, codec, pair, audio, tokens, frames, prompt)


def check_sound(
    model: Any, codec: Codec, pair: Pair, audio: Tensor, tokens: Tensor, frames: int, prompt: Tensor | None = None
) -> None:
    """Tokens and audio have the right sizes, and are those of the codec itself."""
    interleaved = 2 if pair.stereo == "timestep" else 1
    assert tokens.shape == (2, pair.n_q, frames * interleaved)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < codec.spec.cardinalities[0]
    assert model.sample_rate == codec.output_rate
    assert audio.shape == (2, model.audio_channels, codec.samples_of(frames))
    assert audio.isfinite().all()
    sides = {
        None: [tokens],
        "codebook": [tokens[:, 0::2], tokens[:, 1::2]],
        "timestep": [tokens[..., 0::2], tokens[..., 1::2]],
    }[pair.stereo]
    scale = None
    for i, codes in enumerate(sides):
        if prompt is not None:
            wav = prompt if pair.stereo is None else prompt[:, i : i + 1]
            known, scale = codec.encode(wav)
            assert torch.equal(codes[..., : known.shape[-1]], known)
        decoded = codec.decode(codes, scale)
        torch.testing.assert_close(audio if pair.stereo is None else audio[:, i : i + 1], decoded)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"card": 33}, "card"), ({"card": 31}, "card"), ({"n_q": 5}, "n_q"), ({"sample_rate": 2000}, "sample_rate"),
     ({"channels": 2}, "channels")],
    ids=str,
)  # fmt: skip
def test_one_number_that_differs_is_refused(
    changes: dict[str, int], field: str, codec_path: Callable[[str], Path], tmp_path: Path
) -> None:
    spec = resolve_codec(codec_path("dac")).spec
    lm = make_lm(tmp_path / "lm", Pair("dac", 4, 1.0), spec, **changes)
    with pytest.raises(IncompatibleError, match="does not fit") as error:
        codecbay.load(lm, codec_path("dac"), text_encoder=TEXT_ENCODER, device="cpu")
    (finding,) = error.value.report.errors
    assert finding.field == field
    assert str(changes.get(field)) in finding.text


def test_codebooks_are_prefixes_unless_the_codec_says_otherwise(
    codec_path: Callable[[str], Path], tmp_path: Path
) -> None:
    spec = resolve_codec(codec_path("snac")).spec
    lm = make_lm(tmp_path / "lm", Pair("snac", 5, 1.0), spec)
    with pytest.raises(IncompatibleError, match=r"n_q: LM 5, codec 1, 3, 7\."):
        codecbay.load(lm, codec_path("snac"), text_encoder=TEXT_ENCODER, device="cpu")


def test_an_assembly_swaps_by_one_word(codec_path: Callable[[str], Path], tmp_path: Path) -> None:
    lm = make_lm(tmp_path / "lm", Pair("dac", 3, 1.0), resolve_codec(codec_path("dac")).spec)
    config = {"lm": str(lm), "codec": str(codec_path("dac")), "text_encoder": str(TEXT_ENCODER), "device": "cpu"}
    model = codecbay.assemble(config)
    assert model.compression_model.num_codebooks == 3
    assert model.report.codec_name == str(codec_path("dac"))
    by_hand = codecbay.MusicGen("by hand", codecbay.load_codec(codec_path("dac"), device="cpu"), model.lm)
    assert (by_hand.report.lm_name, by_hand.report.num_codebooks) == ("by hand", 3)
    asked = config | {"codec": {"source": str(codec_path("dac")), "num_codebooks": 4}}
    with pytest.raises(IncompatibleError, match="num_codebooks=3"):
        codecbay.assemble(asked)


# ------------------------------------------------------------------------------------------------------ all pairs

LMS = ("audiogen", "musicgen-melody", "musicgen-mono", "musicgen-stereo")
PACKED = sorted(path.parent for path in FIXTURES.glob("*/*/compression_state_dict.bin"))


@pytest.fixture(scope="module", autouse=True)
def _headers_once() -> Iterator[None]:
    """Read each header once, although it takes part in many pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codecbay.factory.read_package_file", cache(read_package_file))
        yield


@pytest.fixture(scope="module")
def specs(codec_path: Callable[[str], Path]) -> dict[Path, CodecSpec]:
    """Every codec there is, by where it lies."""
    return {path: resolve_codec(path).spec for path in [*PACKED, *map(codec_path, CODECS)]}


def misfits(lm: LMSpec, own_rate: Fraction, codec: CodecSpec) -> set[str]:
    """The fields that keep a pair apart, counted here by hand."""
    factor = 2 if lm.stereo == "codebook" else 1
    wrong = set()
    if lm.num_codebooks // factor not in codec.allowed_num_codebooks:
        wrong.add("n_q")
    if {*codec.cardinalities} != {lm.cardinality}:
        wrong.add("card")
    if codec.output_rate != lm.sample_rate:
        wrong.add("sample_rate")
    if codec.frame_rate != own_rate:
        wrong.add("frame_rate")
    if codec.channels != (1 if lm.stereo else lm.channels):
        wrong.add("channels")
    return wrong


@pytest.mark.parametrize("lm", LMS)
def test_check_and_generate_agree_on_every_pair(
    lm: str, specs: dict[Path, CodecSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, directory, out = Run(capsys), package(lm), tmp_path / "out.wav"
    opened = open_package(directory)
    spec, own_rate = read_lm_config(opened.lm.header).spec, specs[directory].frame_rate
    fitting = set()
    for path, codec in specs.items():
        wrong = misfits(spec, own_rate, codec)
        checked = run("check", directory, "--codec", path, "--json")
        assert checked.code == bool(wrong), path
        errors = [finding for finding in checked.json["findings"] if finding["severity"] == "error"]
        assert {finding["field"] for finding in errors} == wrong, path
        options = ["--duration", 0.1, "--text-encoder", TEXT_ENCODER, "-o", out]
        generated = run("generate", directory, "a", "--codec", path, *options)
        assert generated.code == checked.code, path
        if wrong:
            assert not out.exists()
            assert generated.err.startswith("Error: Codec ")
            for finding in errors:
                assert f"  error: {finding['field']}: LM " in generated.err
                assert finding["action"] in generated.err
        else:
            wav, rate = read_audio(out)
            assert (rate, list(wav.shape)) == (spec.sample_rate, [spec.channels, int(0.1 * rate)])
            out.unlink()
            fitting.add(path)
    assert directory in fitting
