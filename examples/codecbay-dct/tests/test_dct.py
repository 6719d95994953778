"""What the codec computes: against the definitions, spelled out."""

from __future__ import annotations

import math
import tomllib
from itertools import pairwise
from pathlib import Path

import codecbay
import pytest
import torch
from codecbay.audio import write_audio

import codecbay_dct
from codecbay_dct import fit
from codecbay_dct.backend import DctConfig
from codecbay_dct.codec import coefficients, cosine_basis

TINY = DctConfig(
    sample_rate=8000, channels=1, frame_size=8, num_coefficients=8, codebook_sizes=(4, 4), licence="CC0-1.0"
)


def test_the_transform_is_the_cosine_transform() -> None:
    wav = torch.randn(8, generator=torch.Generator().manual_seed(0))
    for k, found in enumerate(coefficients(wav[None, None], cosine_basis(8, 8))[0, 0]):
        norm = math.sqrt((1 if k == 0 else 2) / 8)
        expected = sum(norm * float(x) * math.cos(math.pi * k * (2 * n + 1) / 16) for n, x in enumerate(wav))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def test_all_coefficients_give_the_waveform_back() -> None:
    basis = cosine_basis(640, 640)
    wav = torch.randn(1, 1, 1280, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((coefficients(wav, basis) @ basis).flatten(1)[None], wav, rtol=0, atol=1e-4)


def test_codes_are_the_nearest_entries() -> None:
    codec = codecbay.load_codec("dct-32khz", device="cpu")
    wav = fit.notes(1, 32_000)[None]
    codes, _ = codec.encode(wav)
    for t, row in enumerate(coefficients(wav, cosine_basis(160, 640))[0][:20]):
        for code, entries in zip(codes[0, :, t], codec.codebooks(), strict=True):
            distances = [float((row - entry).square().sum()) for entry in entries]
            assert distances[int(code)] == pytest.approx(min(distances), rel=1e-4)
            row = row - entries[int(code)]


def test_every_codebook_makes_the_error_smaller() -> None:
    codec = codecbay.load_codec("dct-32khz", device="cpu")
    wav = fit.notes(4, 32_000)[None]
    codes, _ = codec.encode(wav)
    decoded = [codec.decode(codes[:, :n]) for n in range(1, 5)]
    errors = [float((estimate - wav).square().mean()) for estimate in (torch.zeros_like(wav), *decoded)]
    assert all(worse > better for worse, better in pairwise(errors))


def test_k_means_finds_clusters() -> None:
    centres = 10 * torch.eye(4, 8) @ cosine_basis(8, 8)  # waveforms of one coefficient each
    (first, second) = fit.fit([centres.repeat(5, 1).reshape(1, -1)], TINY)
    torch.testing.assert_close(first.sort(0).values, (10 * torch.eye(4, 8)).sort(0).values)
    torch.testing.assert_close(second, torch.zeros(4, 8), rtol=0, atol=1e-4)


def test_the_command_writes_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "notes.wav", fit.notes(2, 16_000), 16_000)
    arguments = f"fit {tmp_path}/fitted {tmp_path}/notes.wav --codebook-sizes 16 8 --channels 2"
    monkeypatch.setattr("sys.argv", arguments.split())
    fit.main()
    codec = codecbay.load_codec(tmp_path / "fitted", device="cpu")
    assert (codec.channels, codec.spec.cardinalities, codec.spec.licence) == (2, (16, 8), "unknown")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook_sizes": [4, 5]}, r"'codebook_sizes' asks for \[5, 8\], but the tensor 'entries.1' is \[4, 8\]"),
        ({"codebook_sizes": [4, 4, 4]}, "the tensor 'entries.2' .* is not in the package"),
        ({"codebook_sizes": []}, "names no codebook"),
        ({"num_coefficients": 9}, "'num_coefficients' is 9, expected 1 to 8"),
        ({"frame_rate": 50}, "'frame_rate' is not known"),
    ],
)
def test_a_configuration_that_contradicts_the_codebooks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(DctConfig, "to_json", lambda self: {**JSON, **change})
    fit.write_package(tmp_path, TINY, [torch.zeros(4, 8), torch.zeros(4, 8)])
    with pytest.raises(codecbay.ConfigError, match=message):
        codecbay.load_codec(tmp_path, device="cpu")


JSON = TINY.to_json()


def test_the_registry_says_what_the_package_is() -> None:
    file = Path(codecbay_dct.__file__).with_name("registry.toml")
    declared = tomllib.loads(file.read_text())["codecs"]["dct-32khz"]["spec"]
    declared["cardinalities"] = [declared.pop("cardinality")] * declared["num_codebooks"]
    assert declared.items() <= codecbay.load_codec("dct-32khz", device="cpu").spec.to_dict().items()
