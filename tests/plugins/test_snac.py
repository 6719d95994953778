"""SNAC: as its library computes it, laid out as uniform streams and back."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import codecbay
from codecbay.codec import measure
from codecbay.errors import CodecbayError, CodeRangeError, ConfigError, MissingDependencyError, WeightsError
from codecbay.package import read_package_file
from codecbay.testing import conformance_tests
from codecbay_snac import codecbay_backends
from codecbay_snac.backend import SnacBackend
from codecbay_snac.codec import SnacCodec
from codecbay_snac.layout import to_levels, to_streams
from models import noise
from plugins.packages import Damage, Package, configure, damages, edit, frame_rate_in_a_fresh_process
from tiny import snac_directory, snac_model

CHANGES: dict[str, dict[str, Any]] = {
    "24khz": {},
    "44khz": {"attn_window_size": 16, "vq_strides": [8, 4, 2, 1]},
    "short-window": {"attn_window_size": 2},
    "odd-window": {"attn_window_size": 3},
    "no-noise": {"noise": False, "attn_window_size": 4},
    "dense": {"depthwise": False, "vq_strides": [2, 2, 1], "codebook_size": 30},
}

PACKAGE = Package("snac", partial(snac_directory, **CHANGES["short-window"]))

test_conformance = conformance_tests(partial(codecbay.load_codec, PACKAGE), PACKAGE)


def load(path: Path, dtype: torch.dtype = torch.float32) -> SnacCodec:
    codec = SnacBackend().build(read_package_file(path, "codec"), device=torch.device("cpu"), dtype=dtype)
    assert isinstance(codec, SnacCodec)
    return codec


@pytest.fixture(params=list(CHANGES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """The library's model, and the directory that holds it."""
    model = snac_model(**CHANGES[request.param])
    return model, snac_directory(tmp_path / "snac", model, **CHANGES[request.param])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return PACKAGE.copy(tmp_path)


@torch.no_grad()
def test_codes_and_audio_are_those_of_the_library(case: tuple[Any, Path]) -> None:
    model, path = case
    codec = load(path)
    coarsest, size, streams = max(model.vq_strides), codec.frame_size, codec.config.streams
    assert size == 6 * coarsest
    whole = size * codec.config.whole_frames
    for samples in (1, size - 1, size, size + 1, whole, 3 * whole, 900):
        wav = noise(1, 1, samples, seed=samples)
        levels = model.encode(wav)
        codes, scale = codec.encode(wav)
        frames = -(-samples // size)
        assert scale is None
        assert codes.shape == (1, sum(streams), frames)
        for found, wanted, count in zip(to_levels(codes, streams), levels, streams, strict=True):
            assert torch.equal(found, wanted[:, : frames * count])
        wav = codec.decode(codes)
        assert wav.shape == (1, 1, frames * size)
        if samples % whole == 0:
            torch.manual_seed(0)  # the noise that the codec draws for itself
            torch.testing.assert_close(wav, model.decode(levels), rtol=0, atol=1e-6)


@torch.no_grad()
def test_frames_that_fill_no_window_are_followed_by_silence(path: Path) -> None:
    changes = {"attn_window_size": 16, "noise": False}
    model = snac_model(**changes)
    codec = load(snac_directory(path, model, **changes))
    assert codec.config.whole_frames == 4
    silence = to_streams(model.encode(torch.zeros(1, 1, 96)), (1, 2, 4))
    assert torch.equal(codec.silence, silence[..., 2:3])
    codes, _ = codec.encode(noise(1, 1, 5 * 24))
    padded = torch.cat([codes, codec.silence.expand(-1, -1, 3)], dim=-1)
    wanted = model.decode(to_levels(padded, (1, 2, 4)))[..., : 5 * 24]
    torch.testing.assert_close(codec.decode(codes), wanted, rtol=0, atol=1e-6)


def test_levels(case: tuple[Any, Path]) -> None:
    model, path = case
    codec, wav = load(path), noise(2, 1, 500)
    every, _ = codec.encode(wav)
    assert codec.num_codebooks == codec.total_codebooks == sum(codec.config.streams)
    for levels, n in enumerate(codec.spec.allowed_num_codebooks, 1):
        codec.set_num_codebooks(n)
        codes, _ = codec.encode(wav)
        assert torch.equal(codes, every[:, :n])
        latent = torch.zeros(())
        for part, level in zip(model.quantizer.quantizers, to_levels(codes, codec.config.streams), strict=False):
            latent = latent + part.out_proj(part.decode_code(level)).repeat_interleave(part.stride, -1)
        assert len(to_levels(codes, codec.config.streams)) == levels
        wanted = F.avg_pool1d(latent, max(model.vq_strides))
        torch.testing.assert_close(codec.decode_latent(codes), wanted, rtol=0, atol=1e-5)
        assert codec.decode(codes).shape == (2, 1, codes.shape[-1] * codec.frame_size)


def test_only_whole_levels(path: Path) -> None:
    codec = load(path)
    assert codec.spec.allowed_num_codebooks == (1, 3, 7)
    for n in (0, 2, 6, 8):
        with pytest.raises(CodecbayError, match="allows 1, 3, 7"):
            codec.set_num_codebooks(n)
    with pytest.raises(CodeRangeError, match="whole levels"):
        codec.decode(torch.zeros(1, 2, 3, dtype=torch.long))
    with pytest.raises(CodeRangeError, match="outside"):
        codec.decode(torch.full((1, 7, 3), 32))
    with pytest.raises(CodecbayError, match="no scale"):
        codec.decode(torch.zeros(1, 7, 3, dtype=torch.long), torch.ones(1, 1))


@given(
    strides=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=5),
    batch=st.integers(1, 3),
    frames=st.integers(1, 5),
    data=st.data(),
)
def test_the_layout_loses_nothing(strides: list[int], batch: int, frames: int, data: st.DataObject) -> None:
    streams = [max(strides) // stride for stride in strides]
    levels = [torch.randint(1000, (batch, frames * count)) for count in streams]
    codes = to_streams(levels, streams)
    assert codes.shape == (batch, sum(streams), frames)
    assert all(map(torch.equal, to_levels(codes, streams), levels))
    assert torch.equal(to_streams(to_levels(codes, streams), streams), codes)
    some = data.draw(st.integers(1, len(strides)))
    assert torch.equal(to_streams(levels[:some], streams), codes[:, : sum(streams[:some])])


def test_the_layout_is_by_level_and_in_time() -> None:
    levels = [torch.tensor([[0, 100]]), torch.tensor([[1, 2, 101, 102]]), torch.arange(3, 7).repeat(2)[None]]
    levels[2][:, 4:] += 100
    assert to_streams(levels, (1, 2, 4)).tolist() == [[[n, n + 100] for n in range(7)]]


def test_decoding_is_the_same_each_time_and_leaves_the_generator_alone(path: Path) -> None:
    codec = load(path)
    codes, _ = codec.encode(noise(3, 1, 300))
    torch.manual_seed(5)
    first = codec.decode(codes)
    assert torch.initial_seed() == 5
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first, codec.decode(codes))


def test_a_batch_is_its_items(path: Path) -> None:
    with torch.no_grad():
        codec, wav = load(path), noise(3, 1, 333)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, torch.cat([codec.encode(item[None])[0] for item in wav]))
    one_by_one = torch.cat([codec.decode(item[None]) for item in codes])
    torch.testing.assert_close(codec.decode(codes), one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision(path: Path, dtype: torch.dtype) -> None:
    exact = load(path)
    with torch.no_grad():
        codec = load(path, dtype)
    assert {p.dtype for p in codec.parameters()} == {dtype}
    assert codec.fingerprint() == exact.fingerprint()
    codes, _ = codec.encode(noise(1, 1, 400))
    wav = codec.decode(codes)
    assert wav.dtype == dtype
    torch.testing.assert_close(wav.float(), exact.decode(codes), rtol=0, atol=0.1)


@pytest.mark.parametrize("noisy", [False, True])
def test_recordings(tmp_path: Path, noisy: bool) -> None:
    changes = {"attn_window_size": 16, "noise": noisy}
    codec = load(snac_directory(tmp_path / "snac", **changes))
    encoded = codec.encode_audio(noise(1, 70_001), 1000)
    assert torch.equal(encoded.codes, codec.encode(noise(1, 1, 70_001))[0])
    wav, _ = codec.decode_audio(encoded)
    whole = codec.decode(encoded.codes)[..., :70_001]
    torch.testing.assert_close(wav, whole, rtol=0, atol=1e-5)
    encoded = codec.encode_audio(noise(2, 1501), 800)
    wav, rate = codec.decode_audio(encoded)
    assert (wav.shape, rate) == ((1, 2, 1501), 800)


@pytest.mark.parametrize("window", [None, 32])
def test_windows_see_what_their_frames_depend_on_even_if_it_is_longer_than_a_second(
    tmp_path: Path, window: int | None
) -> None:
    changes = {"attn_window_size": window, "sampling_rate": 40}
    codec, wav = load(snac_directory(tmp_path / "snac", **changes)), noise(1, 1, 4800)
    encoded = codec.encode_audio(wav, 40)
    assert torch.equal(encoded.codes, codec.encode(wav)[0])
    torch.testing.assert_close(codec.decode_audio(encoded)[0], codec.decode(encoded.codes), rtol=0, atol=1e-5)


def test_it_is_what_it_declares(case: tuple[Any, Path]) -> None:
    codec = load(case[1])
    measure(codec)
    assert not codec.training
    assert not any(p.requires_grad or p.is_meta for p in codec.parameters())
    assert not any(buffer.is_meta for buffer in codec.buffers())


def test_names_of_weights_before_torch_2(case: tuple[Any, Path]) -> None:
    path = case[1]
    wav = noise(1, 1, 500)
    wanted = load(path).encode(wav)[0]

    def rename(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if "parametrizations" in name]:
            old = name.replace("parametrizations.weight.original0", "weight_g")
            state[old.replace("parametrizations.weight.original1", "weight_v")] = state.pop(name)

    edit(path / "pytorch_model.bin", rename)
    assert torch.equal(load(path).encode(wav)[0], wanted)


def test_a_missing_library_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snac", None)
    with pytest.raises(MissingDependencyError, match=r"codecbay\[snac\]"):
        load(path)


_BIAS = "encoder.block.1.block.0.block.1.bias"
_WEIGHT = "decoder.model.3.block.2.linear.parametrizations.weight.original0"
_POSITIONS = "encoder.block.3.rel_pos.inv_freq"


@damages(_BIAS, _WEIGHT, _POSITIONS)
def test_weights_are_strict(path: Path, name: str, damage: Damage) -> None:
    with damage.refused(path / "pytorch_model.bin", name):
        load(path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"encoder_dim": 32}, "encoder_dim"),
        ({"encoder_dim": 8}, "encoder_dim"),
        ({"encoder_dim": 1 << 40}, "encoder_dim"),
        ({"encoder_rates": []}, "encoder_rates"),
        ({"encoder_rates": [1, 6]}, "encoder_rates"),
        ({"encoder_rates": [3, 2]}, "encoder_rates"),
        ({"encoder_rates": [2] * 1000}, "encoder_rates"),
        ({"latent_dim": 32}, "latent_dim"),
        ({"decoder_dim": 128}, "decoder_dim"),
        ({"decoder_dim": 2}, "decoder_dim"),
        ({"decoder_dim": 96}, "decoder_dim"),
        ({"decoder_rates": [3, 3]}, "decoder_rates"),
        ({"decoder_rates": [2, 3]}, "decoder_rates"),
        ({"attn_window_size": 0}, "attn_window_size"),
        ({"attn_window_size": "4"}, "attn_window_size"),
        ({"attn_window_size": 4000}, "attn_window_size"),
        ({"codebook_size": 64}, "codebook_size"),
        ({"codebook_dim": 8}, "codebook_dim"),
        ({"vq_strides": [4, 2]}, "vq_strides"),
        ({"vq_strides": [4, 3, 1]}, "vq_strides"),
        ({"vq_strides": []}, "vq_strides"),
        ({"vq_strides": [1024, 2, 1]}, "vq_strides"),
        ({"vq_strides": None}, "vq_strides"),
        ({"noise": 1}, "noise"),
        ({"depthwise": False}, "decoder_dim"),
        ({"sampling_rate": 23}, "encoder_rates"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"attention": True}, "attention"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be(path: Path, changes: dict[str, Any], key: str) -> None:
    configure(path, changes)
    with pytest.raises(ConfigError, match=key):
        SnacBackend().spec(read_package_file(path, "codec").header)


@pytest.mark.parametrize(
    "changes", [{"noise": False}, {"attn_window_size": None}], ids=["noise-undeclared", "attention-undeclared"]
)
def test_configurations_that_the_weights_contradict(path: Path, changes: dict[str, Any]) -> None:
    configure(path, changes)
    with pytest.raises((ConfigError, WeightsError)):
        load(path)


def test_claims(path: Path, packages: Path) -> None:
    (backend,) = codecbay_backends()
    assert backend.claims(read_package_file(path).header)
    assert not backend.claims(read_package_file(packages / "musicgen-mono" / "compression_state_dict.bin").header)
    configure(path, {"vq_strides": ...})
    assert backend.claims(read_package_file(path).header)
    configure(path, {"attn_window_size": ..., "depthwise": ...})
    assert backend.claims(read_package_file(path).header)
    configure(path, {"model_type": "another"})
    assert not backend.claims(read_package_file(path).header)


@pytest.mark.parametrize(
    ("changes", "rate", "streams"),
    [
        ({"sampling_rate": 24_000, "encoder_rates": [2, 4, 8, 8], "decoder_rates": [8, 8, 4, 2]}, "375/32", 7),
        (
            {
                "sampling_rate": 32_000,
                "encoder_rates": [2, 3, 8, 8],
                "decoder_rates": [8, 8, 3, 2],
                "attn_window_size": 32,
                "vq_strides": [8, 4, 2, 1],
            },
            "125/12",
            15,
        ),
    ],
    ids=["24khz", "32khz"],
)
def test_published_rates(tmp_path: Path, changes: dict[str, Any], rate: str, streams: int) -> None:
    spec = SnacBackend().spec(read_package_file(snac_directory(tmp_path / "snac", **changes)).header)
    assert str(spec.frame_rate) == rate
    assert spec.num_codebooks == len(spec.cardinalities) == streams


def test_the_spec_needs_neither_torch_nor_the_library(path: Path) -> None:
    assert frame_rate_in_a_fresh_process(path, "codecbay_snac", "snac", "transformers") == "125/3"
