"""Whole recordings: of any rate, channels and length, window by window, and in files of codes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import codecbay
from codecbay.audio import convert_audio
from codecbay.codec import Codec, EncodedAudio
from codecbay.errors import AudioError, CodecbayError, OutputError, PackageError
from codecbay.stereo import InterleavedStereo
from models import load_codec, noise, package

few = settings(max_examples=25, deadline=None, derandomize=True)


@lru_cache
def codecs() -> dict[str, Codec]:
    """Codecs of all sorts."""
    return {
        "mono": load_codec("shared-codec"),
        "causal stereo": load_codec("causal-codec"),
        "renormalizing": load_codec("codec-renormalize-stereo"),
        "odd frame rate": load_codec("codec-plain"),
        "interleaved": InterleavedStereo(load_codec("shared-codec")),
        "interleaved by step": InterleavedStereo(load_codec("shared-codec"), per_timestep=True),
    }


@few
@given(
    name=st.sampled_from(sorted(codecs())),
    rate=st.sampled_from([400, 800, 7_919, 16_000, 44_100, 48_000]),
    channels=st.integers(1, 3),
    samples=st.integers(200, 3_000),
    batch=st.integers(1, 2),
)
def test_what_comes_back_has_the_shape_of_what_went_in(
    name: str, rate: int, channels: int, samples: int, batch: int
) -> None:
    codec = codecs()[name]
    encoded = codec.encode_audio(noise(batch, channels, samples), rate)
    wav, found_rate = codec.decode_audio(encoded)
    assert found_rate == rate
    assert wav.shape == (batch, channels, samples)
    assert torch.isfinite(wav).all()
    assert wav.abs().max() > 0


@pytest.mark.parametrize("name", ["codec-plain", "encodec-24khz-causal"])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_shortest_recordings_come_back(name: str, samples: int) -> None:
    codec = load_codec(name)
    wav, _ = codec.decode_audio(codec.encode_audio(noise(1, samples), 48_000))
    assert wav.shape == (1, 1, samples)


def test_codes_are_those_of_the_converted_recording() -> None:
    codec = codecs()["causal stereo"]
    wav = noise(2, 1, 4_000)
    encoded = codec.encode_audio(wav, 1_600)
    assert torch.equal(encoded.codes, codec.encode(convert_audio(wav, 1_600, codec.sample_rate, 2))[0])
    assert (encoded.num_samples, encoded.sample_rate, encoded.channels) == (4_000, 1_600, 1)


@pytest.mark.parametrize("name", codecs())
def test_recordings_of_different_lengths_are_encoded_as_if_alone(name: str) -> None:
    codec = codecs()[name]
    wavs = [noise(2, samples) for samples in (1_500, 701, 1_500, 1)]
    found = codec.encode_many(wavs, 1_600)
    assert [encoded.num_samples for encoded in found] == [1_500, 701, 1_500, 1]
    for wav, encoded in zip(wavs, found, strict=True):
        alone = codec.encode_audio(wav, 1_600)
        assert torch.equal(encoded.codes, alone.codes)
        assert codec.decode_audio(encoded)[0].shape == (1, *wav.shape)


def test_no_more_recordings_are_encoded_together_than_a_window_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, sizes = codecs()["mono"], []
    encode = codec.encode

    def counted(wav: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        sizes.append(len(wav))
        return encode(wav)

    monkeypatch.setattr(codec, "encode", counted)
    codec.encode_many([noise(1, 8_000)] * 7 + [noise(1, 32_000)] * 2, 800)
    assert sizes == [3, 3, 1, 1, 1]


def test_no_recordings_give_no_codes() -> None:
    assert codecs()["mono"].encode_many([], 800) == []


def test_a_batch_is_not_one_recording() -> None:
    with pytest.raises(AudioError, match=r"recording 1 is a batch \[2, 1, 800\]"):
        codecs()["mono"].encode_many([noise(1, 800), noise(2, 1, 800)], 800)


def _windows(monkeypatch: pytest.MonkeyPatch, codec: Codec, window: int, context: int) -> None:
    """Have a codec work on windows of so many frames, as one does that cannot stream."""
    monkeypatch.setattr("codecbay_encodec.config.EncodecConfig.streams", False)
    frame = codec.frame_size / codec.sample_rate
    monkeypatch.setattr("codecbay.codec._WINDOW", window * frame)
    monkeypatch.setattr("codecbay.codec._CONTEXT", context * frame)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_windows_leave_no_trace_where_they_see_all_that_counts(monkeypatch: pytest.MonkeyPatch, extra: int) -> None:
    codec = load_codec("codec-plain")  # no LSTM: a code depends on 6 frames to either side at most
    wav = noise(1, 1, 100 * codec.frame_size + extra)
    codes, _ = codec.encode(wav)
    decoded = codec.decode(codes)[..., : wav.shape[-1]]
    _windows(monkeypatch, codec, window=25, context=8)
    encoded = codec.encode_audio(wav, codec.sample_rate)
    assert torch.equal(encoded.codes, codes)
    torch.testing.assert_close(codec.decode_audio(encoded)[0], decoded)


@pytest.mark.parametrize("per_timestep", [False, True])
def test_windows_cut_interleaved_codes_at_whole_frames(monkeypatch: pytest.MonkeyPatch, per_timestep: bool) -> None:
    codec = InterleavedStereo(load_codec("codec-plain"), per_timestep)
    wav = noise(1, 2, 60 * codec.frame_size)
    codes, _ = codec.encode(wav)
    _windows(monkeypatch, codec, window=25, context=8)
    assert torch.equal(codec.encode_audio(wav, codec.sample_rate).codes, codes)


def test_an_lstm_forgets_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_codec("shared-codec")
    wav = noise(1, 1, 90 * codec.frame_size)
    codes, _ = codec.encode(wav)
    _windows(monkeypatch, codec, window=30, context=20)
    assert (codec.encode_audio(wav, codec.sample_rate).codes == codes).float().mean() > 0.97


def test_every_window_has_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_codec("codec-renormalize-stereo")
    wav = noise(2, 2, 50 * codec.frame_size) * torch.linspace(0.1, 2.0, 50 * codec.frame_size)
    _windows(monkeypatch, codec, window=20, context=0)
    encoded = codec.encode_audio(wav, codec.sample_rate)
    parts = [codec.encode(part) for part in wav.split(20 * codec.frame_size, dim=-1)]
    scales = [scale for _, scale in parts if scale is not None]
    assert encoded.scale is not None
    assert encoded.scale.shape == (2, 1, 3)
    assert torch.equal(encoded.codes, torch.cat([codes for codes, _ in parts], dim=-1))
    torch.testing.assert_close(encoded.scale, torch.stack(scales, dim=-1))
    decoded = torch.cat([codec.decode(*part) for part in parts], dim=-1)
    torch.testing.assert_close(codec.decode_audio(encoded)[0], decoded)


@pytest.mark.parametrize("name", ["shared-codec", "musicgen-mono", "encodec-24khz-causal", "codec-plain"])
def test_a_codec_that_streams_gives_the_codes_of_one_pass(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    codec: Any = load_codec(name)
    wav = noise(2, codec.channels, 100 * codec.frame_size - 1)
    codes = codec.quantizer.encode(codec.encoder(wav), codec.num_codebooks)
    decoded = codec.decoder(codec.decode_latent(codes))
    monkeypatch.setattr(type(codec), "_piece", lambda codec, batch: 7)
    encoded = codec.encode_audio(wav, codec.sample_rate)
    assert codec.spec.chunked_tolerance == 0
    assert torch.equal(encoded.codes, codes)
    assert torch.equal(codec.encode(wav)[0], codes)
    torch.testing.assert_close(codec.decode_audio(encoded)[0], decoded[..., : wav.shape[-1]], rtol=1e-4, atol=1e-5)


@pytest.fixture
def encoded() -> EncodedAudio:
    return codecs()["renormalizing"].encode_audio(noise(1, 1, 3_000), 16_000)


def test_a_file_of_codes_holds_everything(tmp_path: Path, encoded: EncodedAudio) -> None:
    path = tmp_path / "a.codes"
    encoded.save(path)
    read = EncodedAudio.load(path)
    assert encoded.scale is not None
    assert read.scale is not None
    assert torch.equal(read.codes, encoded.codes)
    assert torch.equal(read.scale, encoded.scale)
    assert replace(read, codes=encoded.codes, scale=encoded.scale) == encoded
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.codes"]
    codec = codecs()["renormalizing"]
    assert torch.equal(codec.decode_audio(read)[0], codec.decode_audio(encoded)[0])


def test_a_file_that_cannot_be_written(tmp_path: Path, encoded: EncodedAudio) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        encoded.save(tmp_path / "missing" / "a.codes")
    (tmp_path / "folder.codes").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        encoded.save(tmp_path / "folder.codes")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.codes"]


FACTS = {
    "format": "codecbay.codes.1",
    "num_samples": "800",
    "sample_rate": "16000",
    "channels": "1",
    "codec": "x",
    "fingerprint": "f",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"num_samples": "0"},
        {"num_samples": "many"},
        {"sample_rate": "-1"},
        {"channels": "0"},
        {"fingerprint": None},
        {"codec": None},
    ],
    ids=str,
)
def test_facts_that_are_wrong_are_refused(tmp_path: Path, changes: dict[str, str | None]) -> None:
    facts = {key: value for key, value in {**FACTS, **changes}.items() if value is not None}
    path = tmp_path / "a.codes"
    save_file({"codes": torch.zeros(1, 1, 5, dtype=torch.long)}, path, facts)
    with pytest.raises(PackageError, match=r"a\.codes"):
        EncodedAudio.load(path)


@pytest.mark.parametrize("tensors", [{"other": torch.zeros(1, 1, 5)}, {"codes": torch.zeros(5)}], ids=["name", "rank"])
def test_tensors_that_are_wrong_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "a.codes"
    save_file(tensors, path, FACTS)
    with pytest.raises(PackageError, match=r"a\.codes"):
        EncodedAudio.load(path)


def test_damaged_files_are_refused(tmp_path: Path, encoded: EncodedAudio) -> None:
    path = tmp_path / "a.codes"
    encoded.save(path)
    whole = path.read_bytes()
    for content in (b"", b"RIFF nothing", whole[:40], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(PackageError, match="damaged"):
            EncodedAudio.load(path)
    with pytest.raises(PackageError, match="no such file"):
        EncodedAudio.load(tmp_path)


def test_another_codec_does_not_decode(encoded: EncodedAudio) -> None:
    with pytest.raises(CodecbayError, match="made by the codec"):
        codecs()["mono"].decode_audio(encoded)


def test_fingerprints_tell_codecs_apart() -> None:
    names = ["musicgen-mono", "audiogen", "shared-codec", "codec-prelu", "codec-circular"]
    fingerprints = [load_codec(name).fingerprint() for name in names]
    assert len(set(fingerprints)) == len(names)
    assert [load_codec(name).fingerprint() for name in names] == fingerprints


@pytest.mark.parametrize("options", [{"num_codebooks": 2}, {"dtype": "float16"}, {"dtype": "bfloat16"}], ids=str)
def test_a_fingerprint_does_not_depend_on_how_a_codec_is_used(options: dict[str, Any]) -> None:
    one, other = load_codec("musicgen-mono", **options), load_codec("musicgen-mono")
    assert one.fingerprint() == other.fingerprint()
    assert InterleavedStereo(one).fingerprint() == InterleavedStereo(other).fingerprint()


@pytest.mark.parametrize("k", range(4))
def test_a_fingerprint_rests_on_every_codebook(tmp_path: Path, k: int) -> None:
    file = tmp_path / "compression_state_dict.bin"
    content = torch.load(package("musicgen-mono") / file.name)
    content["best_state"][f"quantizer.vq.layers.{k}._codebook.embed"][-1, -1] += 1.0
    torch.save(content, file)
    changed = codecbay.load_codec(tmp_path, device="cpu")
    assert changed.fingerprint() != load_codec("musicgen-mono").fingerprint()


def test_a_fingerprint_tells_how_streams_are_interleaved() -> None:
    codec = load_codec("musicgen-mono")
    every = [codec, InterleavedStereo(codec), InterleavedStereo(codec, per_timestep=True)]
    assert len({one.fingerprint() for one in every}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"num_samples": 10_000_000},
        {"num_samples": 10**14},
        {"num_samples": 10**30},
        {"num_samples": 1},
        {"sample_rate": 1},
        {"scale": None},
        {"scale": torch.ones(1, 1, 2)},
        {"scale": torch.ones(3, 1, 1)},
    ],
    ids=lambda changes: f"{next(iter(changes))}",
)
def test_codes_that_do_not_make_up_their_recording_are_refused(changes: dict[str, Any]) -> None:
    codec = load_codec("encodec-48khz-stereo-renormalized")
    encoded = codec.encode_audio(noise(1, 2, 5000), 48000)
    assert codec.decode_audio(encoded)[0].shape == (1, 2, 5000)
    with pytest.raises(PackageError, match="are not those of a recording of"):
        codec.decode_audio(replace(encoded, **changes))


def test_a_scale_for_a_codec_without_one_is_refused() -> None:
    codec = load_codec("musicgen-mono")
    with pytest.raises(PackageError):
        codec.decode_audio(replace(codec.encode_audio(noise(1, 1, 700), 32000), scale=torch.ones(1, 1, 1)))


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("musicgen-mono", "4aee2731df56703251b321a2dce73742"),
        ("encodec-24khz-causal", "6f0da4f5120a6194c1b78f12a5dad00a"),
        ("encodec-48khz-stereo-renormalized", "c002ff4b2f109f189f9f82934a3b218c"),
    ],
)
def test_fingerprints_hold_for_ever(name: str, fingerprint: str) -> None:
    assert load_codec(name).fingerprint().startswith(fingerprint)
