"""The registry: names, aliases, clashes, and files that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import codecbay
from codecbay.errors import RegistryError
from codecbay.registry import Registry, get_registry

ENTRY = """
[codecs.{name}]
source = "{source}"
licence = "MIT"
"""


def write(path: Path, text: str, schema: str = "schema_version = 1\n") -> Path:
    path.write_text(schema + text)
    return path


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
    assert get_registry().suggest("codec", "zzzzzz") == ""


def test_a_clash_of_names_shows_both_places(tmp_path: Path) -> None:
    one = write(tmp_path / "one.toml", ENTRY.format(name="x", source="a/b"))
    two = write(tmp_path / "two.toml", ENTRY.format(name="y", source="a/b"))
    with pytest.raises(RegistryError, match="stands twice") as error:
        Registry([one, two])
    assert str(one) in str(error.value)
    assert str(two) in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["[codecs.x]\nlicence = 'MIT'", "[codecs.x]\nsource = 'a/b'", ENTRY.format(name="x", source="a/b") + "extra = 1"],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(RegistryError, match=r"codecs\.x"):
        Registry([write(tmp_path / "r.toml", text)])


@pytest.mark.parametrize(
    ("text", "schema"), [("= broken", "schema_version = 1\n"), ("", "schema_version = 2\n"), ("", "")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, schema: str) -> None:
    path = write(tmp_path / "r.toml", text, schema)
    with pytest.raises(RegistryError, match=r"r\.toml"):
        Registry([path])


@pytest.fixture
def own(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's registry that names a codec on this disk."""
    (tmp_path / "codec").symlink_to(packages / "musicgen-melody")
    path = write(tmp_path / "mine.toml", ENTRY.format(name="mine", source="./codec"))
    monkeypatch.setenv("CODECBAY_REGISTRY", str(path))
    get_registry.cache_clear()
    yield path
    get_registry.cache_clear()


def test_a_users_own_registry_names_codecs_on_disk(own: Path, packages: Path) -> None:
    entry = get_registry().find("codec", "mine")
    assert entry is not None
    assert entry.origin == str(own)
    report = codecbay.check(packages / "musicgen-mono", codec="mine")
    assert report.ok
    assert report.codec_name == "mine"
    assert codecbay.load_codec("mine", device="cpu").name == "mine"


def test_a_registry_in_the_users_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "codecbay").mkdir()
    write(tmp_path / "codecbay" / "registry.toml", ENTRY.format(name="mine", source="me/mine"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    get_registry.cache_clear()
    assert get_registry().find("codec", "me/mine") is not None
    get_registry.cache_clear()
