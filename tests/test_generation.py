"""Loading and generating: what the API promises, and what it refuses."""

from __future__ import annotations

import io
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import codecbay
from codecbay.errors import (
    AssemblyError,
    AudioError,
    CodecbayError,
    CodeRangeError,
    GenerationError,
    IncompatibleError,
    SourceError,
    UnresolvedReferenceError,
)
from codecbay.generation import AudioGen, MusicGen
from models import SHARED_CODEC, TEXT_ENCODER, load_codec, load_model, noise, package

MONO = package("musicgen-mono")
FRAMES = {"duration": 0.6, "use_sampling": False}  # 15 frames of the small models


@lru_cache
def shared(name: str = "scales") -> Any:
    """A model that several tests may use: at 800 Hz, 25 frames a second, at most 20 seconds."""
    return load_model(name)


@pytest.fixture
def model() -> Any:
    model = shared()
    model.max_duration = 20.0
    model.set_custom_progress_callback(None)
    model.set_generation_params(**FRAMES)
    return model


# ------------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(("name", "duration", "stride"), [("scales", 30.0, 12.0), ("audiogen", 10.0, 2.0)])
def test_parameters_return_to_their_defaults(name: str, duration: float, stride: float) -> None:
    model = load_model(name)
    model.set_generation_params(False, 5, 0.5, 0.7, 3.0, 1.5, True, 1.0)
    assert model.generation_params == {
        "use_sampling": False,
        "temp": 0.7,
        "top_k": 5,
        "top_p": 0.5,
        "cfg_coef": 1.5,
        "two_step_cfg": True,
    }
    assert (model.duration, model.extend_stride) == (3.0, 1.0)
    model.set_generation_params()
    assert model.generation_params == {
        "use_sampling": True,
        "temp": 1.0,
        "top_k": 250,
        "top_p": 0.0,
        "cfg_coef": 3.0,
        "two_step_cfg": False,
    }
    assert model.duration == duration
    assert model.extend_stride == pytest.approx(min(stride, 0.6 * model.max_duration))


NONSENSE: dict[str, list[Any]] = {
    "duration": [0, -1, float("nan"), float("inf"), "8", [8]],
    "cfg_coef": [float("nan"), float("inf"), "3", None],
    "extend_stride": [0, -1, float("nan"), 20.0, 100, "2"],
    "temperature": [-1, float("nan"), float("inf"), "hot", None],
    "top_k": [-1, 1.5, float("nan"), "many", None],
    "top_p": [-0.1, 1.1, float("nan"), "most", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values])
def test_parameters_that_make_no_sense_change_nothing(model: Any, name: str, value: Any) -> None:
    before = (model.generation_params, model.duration, model.extend_stride)
    with pytest.raises(GenerationError, match=name):
        model.set_generation_params(**{name: value})
    assert (model.generation_params, model.duration, model.extend_stride) == before


def test_facts(model: Any) -> None:
    assert (model.sample_rate, model.frame_rate, model.audio_channels) == (800, 25.0, 1)
    assert model.device == torch.device("cpu")
    assert not model.lm.training
    assert not model.compression_model.training


# ------------------------------------------------------------------------------------------------ requests


def test_audio_and_tokens(model: Any) -> None:
    audio, tokens = model.generate(["calm", None, ""], return_tokens=True)
    assert audio.shape == (3, 1, 480)
    assert tokens.shape == (3, 4, 15)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < 16
    assert torch.equal(model.generate(["calm", None, ""]), audio)
    torch.testing.assert_close(model.generate_audio(tokens), audio)


def test_no_description_is_unconditional(model: Any) -> None:
    _, tokens = model.generate([None, None], return_tokens=True)
    assert torch.equal(model.generate_unconditional(2, return_tokens=True)[1], tokens)


@pytest.mark.parametrize("sampling", [{"top_k": 5}, {"top_p": 0.8}, {"top_k": 0, "temperature": 1.5}], ids=str)
def test_equal_seeds_generate_equal_tokens(model: Any, sampling: dict[str, Any]) -> None:
    model.set_generation_params(duration=0.6, **sampling)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model.generate(["calm"], return_tokens=True)[1])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", ["scales", "stereo-timestep", "stereo-unroll-nq2", "musiclm-4", "coarse-first"])
@pytest.mark.parametrize("batch", [None, 2])
def test_a_continuation_keeps_the_prompt(name: str, batch: int | None) -> None:
    model = shared(name)
    model.set_generation_params(**FRAMES)
    shape = (model.audio_channels, 200) if batch is None else (batch, model.audio_channels, 200)
    prompt = noise(*shape)
    codes, _ = model.compression_model.encode(prompt.view(-1, model.audio_channels, 200))
    audio, tokens = model.generate_continuation(prompt, 800, return_tokens=True)
    assert torch.equal(tokens[..., : codes.shape[-1]], codes)
    assert tokens.shape[-1] == int(0.6 * model.frame_rate)
    assert audio.shape == (batch or 1, model.audio_channels, 480)


@pytest.mark.parametrize("descriptions", ["calm", [], ["calm", 3], [b"calm"], None, 3], ids=str)
def test_descriptions_that_are_none(model: Any, descriptions: Any) -> None:
    with pytest.raises(GenerationError, match="descriptions"):
        model.generate(descriptions)


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True, "2", None], ids=str)
def test_numbers_of_samples_that_are_none(model: Any, num_samples: Any) -> None:
    with pytest.raises(GenerationError, match="num_samples"):
        model.generate_unconditional(num_samples)


def test_prompts_that_cannot_be_continued(model: Any) -> None:
    with pytest.raises(GenerationError, match="2 prompts but 3 descriptions"):
        model.generate_continuation(noise(2, 1, 80), 800, ["a", "b", "c"])
    with pytest.raises(GenerationError, match="leaves nothing to generate"):
        model.generate_continuation(noise(1, 1, 480), 800)
    for prompt in (torch.full((1, 1, 80), float("nan")), noise(1, 1, 0), noise(80), torch.zeros(1, 1, 80).int()):
        with pytest.raises(AudioError):
            model.generate_continuation(prompt, 800)
    with pytest.raises(AudioError, match="sample rate"):
        model.generate_continuation(noise(1, 1, 80), 0)


def test_a_duration_below_a_frame(model: Any) -> None:
    model.set_generation_params(duration=0.03)
    with pytest.raises(GenerationError, match="less than a frame"):
        model.generate(["calm"])


@pytest.mark.parametrize("name", ["noncausal", "delay-empty-1"])
def test_models_that_cannot_generate(name: str) -> None:
    with pytest.raises(GenerationError):
        load_model(name).generate(["calm"])


def test_melodies_that_are_none(model: Any) -> None:
    with pytest.raises(GenerationError, match="takes no melody"):
        model.generate_with_chroma(["calm"], noise(1, 1, 80), 800)
    melodic = shared("melody-cross")
    with pytest.raises(GenerationError, match="1 melodies but 2 descriptions"):
        melodic.generate_with_chroma(["a", "b"], noise(1, 80), 800)
    for melody in (torch.full((1, 1, 80), float("nan")), noise(1, 1, 0), torch.zeros(1, 1, 80).int()):
        with pytest.raises(AudioError):
            melodic.generate_with_chroma(["a"], melody, 800)


# ------------------------------------------------------------------------------------------------ long audio


def test_long_audio_goes_on_from_what_it_remembers(model: Any) -> None:
    model.max_duration = 1.0
    model.set_generation_params(duration=2.2, extend_stride=0.4, use_sampling=False)
    audio, tokens = model.generate(["calm"], return_tokens=True)
    assert audio.shape == (1, 1, 1760)
    assert tokens.shape == (1, 4, 55)
    model.set_generation_params(duration=1.0, extend_stride=0.4, use_sampling=False)
    assert torch.equal(model.generate(["calm"], return_tokens=True)[1], tokens[..., :25])


def test_a_long_continuation_keeps_the_prompt(model: Any) -> None:
    model.max_duration = 1.0
    model.set_generation_params(duration=1.5, extend_stride=0.4, use_sampling=False)
    prompt = noise(1, 1, 320)
    _, tokens = model.generate_continuation(prompt, 800, return_tokens=True)
    assert tokens.shape[-1] == 37
    assert torch.equal(tokens[..., :10], model.compression_model.encode(prompt)[0])


def test_the_stride_must_be_shorter_than_the_window(model: Any) -> None:
    model.set_generation_params(duration=2.0, extend_stride=1.5)
    model.max_duration = 1.0
    with pytest.raises(GenerationError, match="extend_stride"):
        model.generate(["calm"])
    with pytest.raises(GenerationError, match="extend_stride"):
        model.set_generation_params(duration=2.0, extend_stride=1.0)


# ------------------------------------------------------------------------------------------------ progress


def test_progress_is_told_step_by_step(model: Any) -> None:
    calls: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, to_do: calls.append((done, to_do)))
    model.generate(["calm"])
    assert not calls
    model.generate(["calm"], progress=True)
    steps = 15 + 3  # frames and delays
    assert calls == [(done, steps) for done in range(1, steps + 1)]


def test_progress_of_long_audio_never_goes_back(model: Any) -> None:
    calls: list[int] = []
    model.max_duration = 1.0
    model.set_generation_params(duration=1.8, extend_stride=0.4)
    model.set_custom_progress_callback(lambda done, to_do: calls.append(done))
    model.generate(["calm"], progress=True)
    starts = [index for index, done in enumerate(calls) if index and done != calls[index - 1] + 1]
    assert len(starts) == 2  # three windows


class Screen(io.StringIO):
    """A standard error that someone may look at."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.seen = seen

    def isatty(self) -> bool:
        return self.seen


@pytest.mark.parametrize(("progress", "seen"), [(True, True), (True, False), (False, True)])
def test_a_bar_for_whoever_asks_and_looks(
    model: Any, monkeypatch: pytest.MonkeyPatch, progress: bool, seen: bool
) -> None:
    screen = Screen(seen)
    monkeypatch.setattr("sys.stderr", screen)
    model.generate(["calm"], progress=progress)
    assert ("15/15" in screen.getvalue()) == (progress and seen)


# ------------------------------------------------------------------------------------------------ predictions


def test_predictions(model: Any) -> None:
    output = model.compute_predictions(torch.zeros(2, 4, 9, dtype=torch.long), ["calm", None])
    assert output.logits.shape == (2, 4, 9, 16)
    assert output.mask.shape == (2, 4, 9)
    assert output.logits.requires_grad


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(1, 3, 9).long(),
        torch.zeros(4, 9).long(),
        torch.zeros(1, 4, 0).long(),
        torch.zeros(1, 4, 9),
        torch.full((1, 4, 9), 16),
        torch.full((1, 4, 9), -1),
    ],
    ids=lambda codes: f"{list(codes.shape)} {codes.dtype}",
)
def test_codes_that_cannot_be_predicted(model: Any, codes: torch.Tensor) -> None:
    with pytest.raises(CodeRangeError):
        model.compute_predictions(codes, ["calm"])


def test_predictions_need_a_description_for_each_item(model: Any) -> None:
    with pytest.raises(GenerationError, match="2 items but 1 descriptions"):
        model.compute_predictions(torch.zeros(2, 4, 9, dtype=torch.long), ["calm"])


# ------------------------------------------------------------------------------------------------ loading


def test_the_codec_can_be_swapped() -> None:
    own = load_model("musicgen-mono")
    other = load_codec("musicgen-stereo")
    with pytest.warns(UserWarning, match="trained on another codec"):
        swapped = load_model("musicgen-mono", codec=package("musicgen-stereo"))
    for model in (own, swapped):
        model.set_generation_params(duration=0.2, use_sampling=False)
    audio, tokens = swapped.generate(["calm"], return_tokens=True)
    own_audio, own_tokens = own.generate(["calm"], return_tokens=True)
    assert torch.equal(tokens, own_tokens)
    torch.testing.assert_close(audio, other.decode(tokens))
    assert not torch.allclose(audio, own_audio)


def test_a_codec_that_was_built_before() -> None:
    codec = load_codec("musicgen-mono")
    assert load_model("musicgen-mono", codec=codec).compression_model is codec


def test_an_interleaved_codec_is_taken_for_what_is_inside() -> None:
    stereo = load_model("musicgen-stereo")
    again = type(stereo)("again", stereo.compression_model, stereo.lm)
    assert again.compression_model.model is stereo.compression_model.model
    assert load_model("musicgen-stereo", codec=stereo.compression_model).audio_channels == 2


def test_a_codec_is_set_to_the_codebooks_that_are_needed() -> None:
    assert shared("codec-nq2").compression_model.num_codebooks == 2
    assert shared("stereo-unroll-nq2").compression_model.model.num_codebooks == 2


@pytest.mark.parametrize(
    ("codec", "fields"),
    [
        (package("encodec-48khz-stereo-renormalized"), {"sample_rate", "channels", "frame_rate"}),
        (package("audiogen"), {"sample_rate"}),
        (SHARED_CODEC, {"card", "sample_rate", "frame_rate"}),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_a_codec_that_does_not_fit_is_refused_before_a_weight_is_read(
    monkeypatch: pytest.MonkeyPatch, codec: Path, fields: set[str]
) -> None:
    monkeypatch.setattr("codecbay.package.weights.load_tensors", lambda *a, **k: pytest.fail("weights were read"))
    with pytest.raises(IncompatibleError) as caught:
        codecbay.load(MONO, codec, text_encoder=TEXT_ENCODER, device="cpu")
    report = caught.value.report
    assert {finding.field for finding in report.errors} == fields
    assert str(report) == str(caught.value)


def test_too_many_codebooks_are_refused_before_a_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codecbay.package.weights.load_tensors", lambda *a, **k: pytest.fail("weights were read"))
    with pytest.raises(IncompatibleError, match="num_codebooks=4"):
        codecbay.load(MONO, num_codebooks=3, text_encoder=TEXT_ENCODER, device="cpu")
    with pytest.raises(CodecbayError, match=r"1\.\.4"):
        codecbay.load_codec(MONO, num_codebooks=5)


def test_a_model_refuses_a_codec_that_does_not_fit() -> None:
    with pytest.raises(IncompatibleError):
        MusicGen("mine", load_codec("audiogen"), shared().lm)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.bfloat16])
def test_precision(dtype: Any) -> None:
    model = load_model("scales", dtype=dtype, codec_dtype="float32")
    wanted = getattr(torch, str(dtype).removeprefix("torch."))
    assert model.lm.dtype == wanted
    assert next(model.compression_model.parameters()).dtype == torch.float32
    model.set_generation_params(**FRAMES)
    assert torch.isfinite(model.generate(["calm"])).all()


def test_rotary_frequencies_keep_their_precision() -> None:
    lm = load_model("past8-rope", dtype="bfloat16").lm
    assert lm.transformer.rope.frequencies.dtype == torch.float32


@pytest.mark.parametrize("options", [{"dtype": "float8"}, {"codec_dtype": "int8"}, {"device": "gpu0"}], ids=str)
def test_places_and_precisions_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(CodecbayError):
        codecbay.load(MONO, text_encoder=TEXT_ENCODER, **{"device": "cpu", **options})


def test_a_text_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnresolvedReferenceError, match="text_encoder="):
        codecbay.load(MONO, device="cpu")
    with pytest.raises(UnresolvedReferenceError):
        codecbay.load(MONO, text_encoder=tmp_path, device="cpu")


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A package with its text encoder beside it."""
    shutil.copytree(MONO, tmp_path / "p")
    shutil.copytree(TEXT_ENCODER, tmp_path / "p" / "tiny-t5")
    return tmp_path / "p"


def test_get_pretrained(complete: Path) -> None:
    model = MusicGen.get_pretrained(str(complete), device="cpu")
    assert type(model) is MusicGen
    assert model.duration == 15.0
    assert type(AudioGen.get_pretrained(str(complete), device="cpu")) is AudioGen
    model.set_generation_params(duration=0.1)
    assert model.generate_unconditional(1).shape == (1, 1, 3200)


def test_kinds_of_models() -> None:
    assert type(shared()) is MusicGen
    assert type(load_model("audiogen")) is AudioGen


@pytest.mark.parametrize("name", ["small", "medium", "large", "melody"])
def test_old_names_are_deprecated(name: str) -> None:
    with (
        pytest.warns(FutureWarning, match=f"facebook/musicgen-{name}"),
        pytest.raises(SourceError, match=f"facebook/musicgen-{name}"),
    ):
        MusicGen.get_pretrained(name)


# ------------------------------------------------------------------------------------------------ assembling

ASSEMBLY: dict[str, Any] = {
    "lm": str(MONO),
    "codec": {"source": str(MONO), "num_codebooks": 4},
    "text_encoder": str(TEXT_ENCODER),
    "device": "cpu",
    "dtype": "float32",
    "generation": {"duration": 0.1, "top_k": 7, "cfg_coef": 2},
}


@pytest.mark.parametrize("form", ["mapping", "omegaconf", "yaml"])
def test_a_model_from_a_configuration(tmp_path: Path, form: str) -> None:
    config: Any = ASSEMBLY
    if form == "omegaconf":
        config = OmegaConf.create(ASSEMBLY)
    elif form == "yaml":
        config = tmp_path / "assembly.yaml"
        OmegaConf.save(OmegaConf.create(ASSEMBLY), config)
    model = codecbay.assemble(config)
    assert model.duration == 0.1
    assert (model.generation_params["top_k"], model.generation_params["cfg_coef"]) == (7, 2)


def test_paths_in_a_file_are_meant_from_there(complete: Path) -> None:
    file = complete.parent / "assembly.yaml"
    file.write_text("lm: p\ncodec: p/compression_state_dict.bin\ndevice: cpu\n")
    assert codecbay.assemble(file).sample_rate == 32_000


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(AssemblyError) as caught:
        codecbay.assemble(
            {
                "codek": "x",
                "device": 3,
                "codec": {"num_codebook": 4, "source": 5},
                "generation": {"top_k": "many", "temprature": 1.0, "use_sampling": 1, "duration": True},
            }
        )
    message = str(caught.value)
    for problem in (
        "'lm' is missing",
        "'codek' is not known. Did you mean 'codec'?",
        "'device' should be str, found 3",
        "'codec.num_codebook' is not known. Did you mean 'num_codebooks'?",
        "'codec.source' should be str, found 5",
        "'generation.top_k' should be int, found 'many'",
        "'generation.temprature' is not known. Did you mean 'temperature'?",
        "'generation.use_sampling' should be bool, found 1",
        "'generation.duration' should be int or float, found True",
    ):
        assert problem in message


@pytest.mark.parametrize("text", ["- lm", "lm: [", "lm: ${oc.env:HOME2}", "", "lm: ???", "lm: ${nowhere}"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "assembly.yaml"
    file.write_text(text)
    with pytest.raises(AssemblyError):
        codecbay.assemble(file)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match=r"no\.yaml"):
        codecbay.assemble(tmp_path / "no.yaml")


def test_generation_settings_are_checked_too() -> None:
    with pytest.raises(GenerationError, match="top_p"):
        codecbay.assemble({**ASSEMBLY, "generation": {"top_p": 2.0}})


@pytest.mark.parametrize("duration", [0.5, 0.51, 0.53])
def test_frames_interleaved_in_time_are_generated_whole(duration: float) -> None:
    stereo = load_model("stereo-timestep")
    stereo.set_generation_params(duration=duration)
    audio, tokens = stereo.generate(["x"], return_tokens=True)
    assert tokens.shape[-1] % 2 == 0
    assert audio.shape[:2] == (1, 2)
