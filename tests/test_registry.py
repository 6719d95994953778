"""The registry: what ships is right; names, aliases, clashes, and files that are wrong; licences."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import codecbay
import tiny
from codecbay._resources import builtin_registry
from codecbay.errors import CodecbayError, RegistryError, SourceError
from codecbay.factory import _tell_licence, resolve_codec
from codecbay.plugins import PluginInfo, Plugins, get_plugins
from codecbay.registry import Registry, RegistryEntry, forbids_commercial_use, get_registry
from models import TEXT_ENCODER, package
from package.forge import saved

ENTRY = """
[codecs.{name}]
source = "{source}"
licence = "MIT"
"""


def write(path: Path, text: str, schema: str = "schema_version = 1\n") -> Path:
    path.write_text(schema + text)
    return path


# ------------------------------------------------------------------------------------------------- what ships

SHIPPED = Registry([builtin_registry()])
CODECS, MODELS = list(SHIPPED.entries("codec")), list(SHIPPED.entries("model"))
GRAMMAR = re.compile(r"[a-z]+[a-z0-9]*(-\d+khz)?(-[a-z0-9]+)*")
ADDRESS = re.compile(r"[\w.-]+/[\w.-]+|https://github\.com/[\w./-]+")


@pytest.mark.parametrize("entry", [*CODECS, *MODELS], ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_entry_is_right(entry: RegistryEntry) -> None:
    assert GRAMMAR.fullmatch(entry.name)
    assert ADDRESS.fullmatch(entry.source)
    assert (entry.citation or "").startswith("https://")
    assert entry.licence
    names = [entry.name, entry.source, *entry.aliases]
    assert len({*names}) == len(names)
    assert all(SHIPPED.find(entry.kind, name) is entry for name in names)
    if entry.kind == "model":
        assert (entry.spec, entry.backend) == (None, None)
        return
    spec = entry.spec
    assert spec is not None
    assert entry.backend in get_plugins().backends
    assert spec.frame_rate * spec.frame_size == spec.sample_rate
    assert len(spec.cardinalities) == spec.num_codebooks == max(spec.allowed_num_codebooks)
    rate = re.search(r"-(\d+)khz", entry.name)
    assert rate is None or int(rate[1]) == spec.sample_rate // 1000
    if entry.same_as is not None:
        other = SHIPPED.find("codec", entry.same_as)
        assert other is not None
        assert other.spec is not None
        theirs = other.spec  # of another back-end, which may allow fewer codebooks, and work by windows
        ours = replace(spec, allowed_num_codebooks=theirs.allowed_num_codebooks)
        assert replace(ours, chunked_tolerance=theirs.chunked_tolerance) == theirs


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        *(("model", size, f"musicgen-{size}") for size in ("small", "medium", "large", "melody")),
        *(("model", f"facebook/musicgen-{name}", f"musicgen-{name}")
          for name in ("small", "medium", "large", "melody", "melody-large", "style", "stereo-small", "stereo-medium",
                       "stereo-large", "stereo-melody", "stereo-melody-large")),
        ("model", "facebook/audiogen-medium", "audiogen-medium"),
        ("codec", "dac_44khz", "dac-44khz-8kbps"),
        ("codec", "dac_24khz", "dac-24khz"),
        ("codec", "facebook/encodec_32khz", "encodec-32khz"),
        ("codec", "facebook/musicgen-small", "encodec-32khz-audiocraft"),
    ],
)  # fmt: skip
def test_audiocrafts_names(kind: str, name: str, wanted: str) -> None:
    entry = SHIPPED.find(kind, name)
    assert entry is not None
    assert entry.name == wanted
    assert bool(entry.unsupported) is (wanted == "musicgen-style")


_ENCODEC = {"num_filters": 4, "hidden_size": 4}
_DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 16, "codebook_dim": 4, "codebook_size": 1024}
_XCODEC = {key: value for key, value in tiny.TRANSFORMERS["xcodec"][1].items() if key.endswith("_model_config")}
_MIMI = {key: value for key, value in tiny.TRANSFORMERS["mimi"][1].items() if not key.startswith(("code", "num_q"))}
_DESCRIPT = {"encoder_dim": 4, "latent_dim": 64, "decoder_dim": 16, "codebook_size": 1024, "codebook_dim": 4}
_SNAC = {"encoder_dim": 16, "decoder_dim": 128, "codebook_size": 4096, "codebook_dim": 2}
# What the published configurations say, but for widths, which no spec holds.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "encodec-24khz": ("Encodec", {**_ENCODEC}),
    "encodec-32khz": (
        "Encodec",
        {
            **_ENCODEC,
            "sampling_rate": 32_000,
            "upsampling_ratios": [8, 5, 4, 4],
            "codebook_size": 2048,
            "target_bandwidths": [2.2],
            "use_causal_conv": False,
        },
    ),
    "encodec-48khz": (
        "Encodec",
        {
            **_ENCODEC,
            "sampling_rate": 48_000,
            "audio_channels": 2,
            "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
            "chunk_length_s": 1.0,
            "overlap": 0.01,
            "normalize": True,
            "norm_type": "time_group_norm",
            "use_causal_conv": False,
        },
    ),
    "dac-16khz": ("Dac", {**_DAC, "n_codebooks": 12, "downsampling_ratios": [2, 4, 5, 8]}),
    "dac-24khz": ("Dac", {**_DAC, "sampling_rate": 24_000, "n_codebooks": 32, "downsampling_ratios": [2, 4, 5, 8]}),
    "dac-44khz-8kbps": ("Dac", {**_DAC, "sampling_rate": 44_100, "downsampling_ratios": [2, 4, 8, 8]}),
    "dac-44khz-16kbps": (
        "descript",
        {**_DESCRIPT, "sample_rate": 44_100, "n_codebooks": 18, "encoder_rates": [2, 4, 8, 8],
         "decoder_rates": [8, 8, 4, 2]},
    ),
    "mimi": ("Mimi", {**_MIMI, "codebook_dim": 8, "frame_rate": 12.5}),
    "snac-24khz": (
        "snac",
        {**_SNAC, "sampling_rate": 24_000, "encoder_rates": [2, 4, 8, 8], "decoder_rates": [8, 8, 4, 2]},
    ),
    **{
        f"snac-{rate // 1000}khz": (
            "snac",
            {**_SNAC, "sampling_rate": rate, "encoder_rates": [2, 3, 8, 8], "decoder_rates": [8, 8, 3, 2],
             "attn_window_size": 32, "vq_strides": [8, 4, 2, 1]},
        )
        for rate in (32_000, 44_100)
    },
    "xcodec-hubert-librispeech": ("Xcodec", _XCODEC),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_registry_says_what_the_back_end_says(name: str, tmp_path: Path) -> None:
    family, arguments = PUBLISHED[name]
    if family == "descript":
        path = tiny.descript_file(tmp_path / "weights.pth", **arguments)
    elif family == "snac":
        path = tiny.snac_directory(tmp_path / "snac", **arguments)
    else:
        path = tiny.transformers_directory(tmp_path / "codec", tiny.transformers_model(family, arguments))
    entry, found = SHIPPED.find("codec", name), resolve_codec(path)
    assert entry is not None
    assert entry.spec is not None
    assert found.backend is not None
    assert (found.backend.name, found.spec) == (entry.backend, replace(entry.spec, licence=None))


@pytest.mark.parametrize(
    ("name", "fixture"), [("encodec-32khz-audiocraft", "musicgen-mono"), ("encodec-16khz-audiocraft", "audiogen")]
)
def test_the_registry_says_what_audiocrafts_packages_say(name: str, fixture: str) -> None:
    entry, found = SHIPPED.find("codec", name), resolve_codec(package(fixture)).spec  # which has fewer entries
    assert entry is not None
    assert entry.spec is not None
    assert replace(found, cardinalities=(2048,) * 4) == replace(entry.spec, licence=None)


def test_codecs_of_one_family_are_alike() -> None:
    specs = [entry.spec for entry in CODECS if entry.name.startswith("xcodec-")]
    assert len(specs) == 5
    assert all(spec is not None and replace(spec, licence=None) == replace(specs[0], licence=None) for spec in specs)  # type: ignore[type-var]


def test_the_same_codec_in_another_layout_is_the_one_that_was_trained_on() -> None:
    report = codecbay.check(package("musicgen-mono"), codec="encodec-32khz-audiocraft")
    assert [finding.field for finding in report.findings] == ["card"]


# --------------------------------------------------------------------------------------------- finding, and files


@pytest.mark.parametrize("name", ["encodec-32khz", "facebook/encodec_32khz"])
def test_a_codec_is_found_by_name_and_by_source(name: str) -> None:
    entry = get_registry().find("codec", name)
    assert entry is not None
    assert entry.spec is not None
    assert (entry.spec.sample_rate, float(entry.spec.frame_rate), entry.spec.cardinalities) == (
        32000,
        50.0,
        (2048,) * 4,
    )


def test_a_frame_rate_is_exact() -> None:
    entry = get_registry().find("codec", "dac_44khz")
    assert entry is not None
    assert entry.spec is not None
    assert entry.spec.frame_rate * 512 == 44100


def test_near_misses_are_suggested() -> None:
    assert "encodec-32khz" in get_registry().suggest("codec", "encodec-32kz")
    assert get_registry().suggest("codec", "snac") == " There are snac-24khz, snac-32khz, snac-44khz."
    assert get_registry().suggest("codec", "zzzzzz") == ""


def test_a_clash_of_names_shows_both_places(tmp_path: Path) -> None:
    one = write(tmp_path / "one.toml", ENTRY.format(name="x", source="a/b"))
    two = write(tmp_path / "two.toml", ENTRY.format(name="y", source="a/b"))
    with pytest.raises(RegistryError, match="stands twice") as error:
        Registry([one, two])
    assert str(one) in str(error.value)
    assert str(two) in str(error.value)


SPEC = "[codecs.x.spec]\nsample_rate = 100\nchannels = 1\ncardinality = 8\nnum_codebooks = 2\nframe_size = 10\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[codecs.x]\nlicence = 'MIT'", "lacks 'source'"),
        ("[codecs.x]\nsource = 'a/b'", "lacks 'licence'"),
        ("[codecs]\nx = 1", "expected a table"),
        (ENTRY.format(name="x", source="a/b") + "extra = 1", "'extra' is not known"),
        (ENTRY.format(name="x", source="a/b") + "alias = ['y']", "Did you mean 'aliases'"),
        (ENTRY.format(name="x", source="a/b") + "aliases = 'y'", "aliases should be text"),
        (ENTRY.format(name="x", source="a/b") + "revision = 3", "revision should be text"),
        (ENTRY.format(name="x", source="a/b") + SPEC + "has_scal = true", "Did you mean 'has_scale'"),
        (ENTRY.format(name="x", source="a/b") + SPEC.replace("channels = 1\n", ""), "'channels'"),
        (ENTRY.format(name="x", source="a/b") + SPEC.replace("= 10\n", "= 0\n"), "wrong: Fraction"),
        (ENTRY.format(name="x", source="a/b") + SPEC.replace("= 2\n", "= 2000000\n"), "num_codebooks is 2000000"),
        (ENTRY.format(name="x", source="a/b") + SPEC.replace("= 8\n", "= '8'\n"), r"cardinalities\[0\] is '8'"),
        (ENTRY.format(name="x", source="a/b") + SPEC.replace("= 8\n", "= [8]\n"), "1 cardinalities for 2 codebooks"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=rf"r\.toml: the entry 'codecs\.x'.*{message}"):
        Registry([write(tmp_path / "r.toml", text)])


def test_a_table_of_another_name_is_an_error(tmp_path: Path) -> None:
    for text in (ENTRY.format(name="x", source="a/b").replace("codecs", "codec"), "codecs = 1"):
        with pytest.raises(RegistryError, match=r"'codecs?' is no table of entries\. Did you mean 'codecs'"):
            Registry([write(tmp_path / "r.toml", text)])


def test_cardinalities_may_differ_by_codebook(tmp_path: Path) -> None:
    text = ENTRY.format(name="x", source="a/b") + SPEC.replace("= 8\n", "= [8, 4]\nlookahead = 0\nhas_scale = true\n")
    entry = Registry([write(tmp_path / "r.toml", text)]).find("codec", "x")
    assert entry is not None
    assert entry.spec is not None
    assert entry.spec.cardinalities == (8, 4)
    assert (entry.spec.causal, entry.spec.has_scale, entry.spec.licence) == (True, True, "MIT")
    assert (entry.spec.frame_rate, entry.spec.allowed_num_codebooks) == (Fraction(10), (1, 2))


@pytest.mark.parametrize(
    ("text", "schema"), [("= broken", "schema_version = 1\n"), ("", "schema_version = 2\n"), ("", "")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, schema: str) -> None:
    path = write(tmp_path / "r.toml", text, schema)
    with pytest.raises(RegistryError, match=r"r\.toml"):
        Registry([path])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Writes a user's registry."""
    path = tmp_path / "mine.toml"
    monkeypatch.setenv("CODECBAY_REGISTRY", str(path))

    def write_own(text: str) -> Path:
        get_registry.cache_clear()
        return write(path, text)

    yield write_own
    get_registry.cache_clear()


def test_a_users_own_registry_names_codecs_on_disk(own: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "codec").symlink_to(package("musicgen-melody"))
    path = own(ENTRY.format(name="mine", source="./codec"))
    entry = get_registry().find("codec", "mine")
    assert entry is not None
    assert entry.origin == str(path)
    report = codecbay.check(package("musicgen-mono"), codec="mine")
    assert report.ok
    assert report.codec_name == "mine"
    assert report.codec.licence == "MIT"
    codec = codecbay.load_codec("mine", device="cpu")
    assert (codec.name, codec.spec.licence) == ("mine", "MIT")


def test_a_users_own_registry_names_models_on_disk(own: Callable[[str], Path]) -> None:
    own(ENTRY.format(name="mine", source=package("musicgen-mono")).replace("codecs", "models"))
    assert codecbay.check("mine").ok
    assert codecbay.check("mine").lm_name == "mine"


def test_what_does_not_lie_where_a_registry_says_is_an_error(own: Callable[[str], Path], tmp_path: Path) -> None:
    codec = ENTRY.format(name="mine", source="./gone")
    path = own(codec + codec.replace("codecs", "models"))
    for call in (lambda: codecbay.load_codec("mine"), lambda: codecbay.check("mine")):
        with pytest.raises(SourceError, match=re.escape(f"{tmp_path / 'gone'}: there is no") + ".*" + path.name):
            call()


def test_a_registry_names_no_references(own: Callable[[str], Path], tmp_path: Path) -> None:
    reference = tmp_path / "compression_state_dict.bin"
    reference.write_bytes(saved({"pretrained": "mine", "exported": True}))
    own(ENTRY.format(name="mine", source=f"./{reference.name}"))
    for source in ("mine", reference):
        with pytest.raises(SourceError, match="refers to a codec"):
            codecbay.load_codec(source)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("dac-24khz", "hf://descript/dac_24khz"),
        ("speechtokenizer", "hf://fnlp/SpeechTokenizer"),
        ("dac-44khz-16kbps", "https://github.com/descriptinc/.*pth"),
    ],
)
def test_what_is_published_is_looked_for_where_it_is_published(name: str, where: str) -> None:
    with pytest.raises(SourceError, match=rf"{where}: is not in the cache, and HF_HUB_OFFLINE is set"):
        codecbay.load_codec(name)


def test_a_registry_file_that_is_not_there_is_named_and_no_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = PluginInfo("theirs", "theirs", "theirs 1.0", "loaded")
    path = write(tmp_path / "theirs.toml", ENTRY.format(name="new", source="a/new"))
    monkeypatch.setattr("codecbay.plugins.get_plugins", lambda: Plugins(registries=[(info, path)]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECBAY_REGISTRY", "nope.toml")
    get_registry.cache_clear()
    with pytest.raises(RegistryError, match=rf"CODECBAY_REGISTRY names {tmp_path / 'nope.toml'}, which is not there"):
        get_registry()
    get_registry.cache_clear()


def test_one_path_in_two_files_is_two_places(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(write(tmp_path / name / "registry.toml", ENTRY.format(name=name, source="./codec")))
    entries = Registry(files).entries("codec")
    assert [entry.local_path for entry in entries] == [tmp_path / "one" / "codec", tmp_path / "two" / "codec"]


def test_a_registry_in_the_users_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "codecbay").mkdir()
    write(tmp_path / "codecbay" / "registry.toml", ENTRY.format(name="mine", source="me/mine"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    get_registry.cache_clear()
    assert get_registry().find("codec", "me/mine") is not None
    get_registry.cache_clear()


def test_a_plugins_registry_that_clashes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = PluginInfo("theirs", "theirs", "theirs 1.0", "loaded")
    paths = [write(tmp_path / f"{name}.toml", ENTRY.format(name=name, source=f"a/{name}")) for name in ("mimi", "new")]
    plugins = Plugins(registries=[(info, path) for path in paths])
    monkeypatch.setattr("codecbay.plugins.get_plugins", lambda: plugins)
    get_registry.cache_clear()
    with pytest.warns(UserWarning, match=r"'theirs' is left out, and.*'mimi' stands twice.*registry\.toml.*mimi\.toml"):
        registry = get_registry()
    get_registry.cache_clear()
    assert registry.find("codec", "a/mimi") is None
    assert registry.find("codec", "a/new") is not None


# ------------------------------------------------------------------------------------------------------- licences


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        *((name, True) for name in ("CC-BY-NC-4.0", "cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "CC BY-NC-ND 3.0")),
        *((name, True) for name in ("PolyForm-Noncommercial-1.0.0", "My Non-Commercial Licence", "research-only")),
        *((name, False) for name in ("MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "NCSA", "unknown")),
        *((name, False) for name in ("NVIDIA Open Model", "bsd-3-clause", "Boson community licence")),
    ],
)
def test_licences_that_forbid_commercial_use(licence: str, forbids: bool) -> None:
    assert forbids_commercial_use(licence) is forbids


def licensed(licence: str, kind: str = "codecs") -> str:
    """An entry by the name ``mine``."""
    text = ENTRY.format(name="mine", source=package("musicgen-mono"))
    return text.replace("codecs", kind).replace("MIT", licence)


def heard(call: Callable[[], Any]) -> list[str]:
    """What is said of licences."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught if str(warning.message).startswith("licence")]


@pytest.fixture
def untold() -> None:
    """Nothing was said so far."""
    _tell_licence.cache_clear()


@pytest.mark.usefixtures("untold")
def test_a_non_commercial_licence_is_said_once_at_assembly(own: Callable[[str], Path], tmp_path: Path) -> None:
    own(licensed("CC-BY-NC-4.0"))
    # A package that refers to the codec by its name.
    (tmp_path / "state_dict.bin").symlink_to(package("musicgen-mono") / "state_dict.bin")
    reference = {"pretrained": "mine", "exported": True, "version": "1"}
    (tmp_path / "compression_state_dict.bin").write_bytes(saved(reference))
    options: dict[str, Any] = {"text_encoder": TEXT_ENCODER, "device": "cpu"}

    assert not heard(lambda: codecbay.check(tmp_path))
    assert not heard(lambda: codecbay.load_codec(tmp_path, device="cpu"))
    (said,) = heard(lambda: codecbay.load(tmp_path, **options))
    assert said == "licence: the weights of the codec 'mine' are not for commercial use (CC-BY-NC-4.0)."
    assert not heard(lambda: codecbay.load(tmp_path, **options))
    assert not heard(lambda: codecbay.load(package("musicgen-melody"), codec="mine", **options))


@pytest.mark.usefixtures("untold")
def test_a_codec_that_was_built_brings_its_licence(own: Callable[[str], Path]) -> None:
    own(licensed("CC-BY-NC-4.0"))
    codec = codecbay.load_codec("mine", device="cpu")
    config = {"lm": str(package("musicgen-mono")), "codec": "mine", "text_encoder": str(TEXT_ENCODER)}
    assert len(heard(lambda: codecbay.load(config["lm"], codec, text_encoder=TEXT_ENCODER, device="cpu"))) == 1
    _tell_licence.cache_clear()
    assert len(heard(lambda: codecbay.assemble({**config, "device": "cpu"}))) == 1


@pytest.mark.usefixtures("untold")
@pytest.mark.parametrize("licence", ["MIT", "unknown", "CC-BY-4.0"])
def test_nothing_is_said_of_other_licences(licence: str, own: Callable[[str], Path]) -> None:
    own(licensed(licence) + licensed(licence, "models"))
    assert not heard(lambda: codecbay.load("mine", codec="mine", text_encoder=TEXT_ENCODER, device="cpu"))


@pytest.mark.usefixtures("untold")
def test_the_licence_of_a_model_is_said_too(own: Callable[[str], Path]) -> None:
    own(licensed("CC-BY-NC-4.0", "models"))
    (said,) = heard(lambda: codecbay.load("mine", text_encoder=TEXT_ENCODER, device="cpu"))
    assert said == "licence: the weights of the model 'mine' are not for commercial use (CC-BY-NC-4.0)."
    assert not heard(lambda: codecbay.load(package("musicgen-mono"), text_encoder=TEXT_ENCODER, device="cpu"))


def test_a_codec_that_is_not_at_hand_is_refused_before_a_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny.language_model(tmp_path / "lm", card=2048, n_q=4, sample_rate=32_000)
    monkeypatch.setattr("codecbay.lm.build.build_lm", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(CodecbayError, match="hf://facebook/encodec_32khz: is not in the cache"):
        codecbay.load(lm, "encodec-32khz", text_encoder=TEXT_ENCODER, device="cpu")
