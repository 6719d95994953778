"""Descript's codec computes what descript's library computes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import codecbay
from codecbay.codec import measure
from codecbay.errors import CodecbayError, CodeRangeError, ConfigError
from codecbay.package import read_package_file
from codecbay.testing import conformance_tests
from codecbay_dac import codecbay_backends
from codecbay_dac.backend import DacBackend
from codecbay_dac.codec import DacCodec
from models import noise
from plugins.packages import Damage, Package, damages, frame_rate_in_a_fresh_process
from tiny import descript_file, descript_model

CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "latent-of-old": {"latent_dim": None},
    "even-rates": {"encoder_rates": [2, 8], "decoder_rates": [4, 4]},
    "odd-rates": {"encoder_rates": [3, 3], "decoder_rates": [3, 3], "codebook_size": 64},
    "codebooks-of-other-widths": {"codebook_size": 30, "codebook_dim": [4, 4, 8, 4]},
}
PACKAGE = Package("weights.pth", descript_file)

test_conformance = conformance_tests(partial(codecbay.load_codec, PACKAGE), PACKAGE)


def load(path: Path, dtype: torch.dtype = torch.float32) -> DacCodec:
    codec = DacBackend().build(read_package_file(path, "codec"), device=torch.device("cpu"), dtype=dtype)
    assert isinstance(codec, DacCodec)
    return codec


@pytest.fixture(params=list(CHANGES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """Descript's model, and the file that holds it."""
    model = descript_model(**CHANGES[request.param])
    return model, descript_file(tmp_path / "weights.pth", model, **CHANGES[request.param])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return PACKAGE.copy(tmp_path)


@torch.no_grad()
def test_codes_and_audio_are_those_of_descript(case: tuple[Any, Path]) -> None:
    model, path = case
    codec = load(path)
    hop = int(model.hop_length)
    for samples in (1, hop - 1, hop, hop + 1, 7 * hop + 3, 1000):
        wav = noise(2, 1, samples, seed=samples)
        z, codes, *_ = model.encode(model.preprocess(wav, 1000))
        found, scale = codec.encode(wav)
        assert scale is None
        assert torch.equal(found, codes)
        assert found.shape == (2, 4, -(-samples // hop))
        torch.testing.assert_close(codec.decode_latent(found), z, rtol=0, atol=1e-5)
        audio = model.decode(model.quantizer.from_codes(codes)[0])
        decoded = codec.decode(found)
        assert decoded.shape == (2, 1, found.shape[-1] * hop)
        torch.testing.assert_close(decoded[..., : audio.shape[-1]], audio, rtol=0, atol=1e-5)
        assert not decoded[..., audio.shape[-1] :].any()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_codebooks(path: Path, n: int) -> None:
    model, codec, wav = descript_model(), load(path), noise(1, 1, 400)
    assert codec.num_codebooks == 4
    codec.set_num_codebooks(n)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, model.encode(wav, n_quantizers=n)[1])
    assert codec.decode(codes).shape == (1, 1, 400)


def test_a_batch_is_its_items(path: Path) -> None:
    codec, wav = load(path), noise(3, 1, 333)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, torch.cat([codec.encode(item[None])[0] for item in wav]))
    one_by_one = torch.cat([codec.decode(item[None]) for item in codes])
    torch.testing.assert_close(codec.decode(codes), one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision(path: Path, dtype: torch.dtype) -> None:
    exact, codec = load(path), load(path, dtype)
    assert {p.dtype for p in codec.parameters()} == {dtype}
    assert codec.fingerprint() == exact.fingerprint()
    codes, _ = codec.encode(noise(1, 1, 400))
    wav = codec.decode(codes)
    assert wav.dtype == dtype
    torch.testing.assert_close(wav.float(), exact.decode(codes), rtol=0, atol=0.1)


def test_a_vector_of_zeros_is_the_nearest_to_nothing(tmp_path: Path) -> None:
    model = descript_model()
    for part in model.quantizer.quantizers:
        part.codebook.weight.data[5] = 0
    path = descript_file(tmp_path / "weights.pth", model)
    wav = noise(1, 1, 1000)
    assert torch.equal(load(path).encode(wav)[0], model.encode(wav)[1])


def test_recordings_come_back_as_long(path: Path) -> None:
    codec = load(path)
    encoded = codec.encode_audio(noise(2, 1501), 800)
    wav, rate = codec.decode_audio(encoded)
    assert (wav.shape, rate) == ((1, 2, 1501), 800)


@torch.no_grad()
def test_a_signal_that_takes_many_pieces_is_that_of_one_pass(tmp_path: Path) -> None:
    # Of a frame, which is less than what a frame depends on.
    changes = {"encoder_rates": [5, 4, 2], "decoder_rates": [2, 4, 5], "sample_rate": 40}
    model, wav = descript_model(**changes), noise(1, 1, 4000)
    codec = load(descript_file(tmp_path / "weights.pth", model, **changes))
    codes = model.encode(wav)[1]
    encoded = codec.encode_audio(wav, 40)
    assert torch.equal(encoded.codes, codes)
    audio = model.decode(model.quantizer.from_codes(codes)[0])
    wav, _ = codec.decode_audio(encoded)
    torch.testing.assert_close(wav[..., : audio.shape[-1]], audio, rtol=0, atol=1e-5)


def test_it_is_what_it_declares(path: Path) -> None:
    codec = load(path)
    measure(codec)
    assert not codec.training
    assert not any(p.requires_grad or p.is_meta for p in codec.parameters())
    with pytest.raises(CodeRangeError):
        codec.decode(torch.full((1, 4, 3), 32))
    with pytest.raises(CodecbayError, match="no scale"):
        codec.decode(torch.zeros(1, 4, 3, dtype=torch.long), torch.ones(1, 1))


_BIAS = "encoder.block.1.block.0.block.1.bias"
_WEIGHT = "decoder.model.1.block.2.block.1.weight_g"


@damages(_BIAS, _WEIGHT)
def test_weights_are_strict(path: Path, name: str, damage: Damage) -> None:
    with damage.refused(path, name):
        load(path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"encoder_dim": 16}, "encoder_dim"),
        ({"encoder_dim": 1 << 40}, "encoder_dim"),
        ({"encoder_dim": True}, "encoder_dim"),
        ({"encoder_rates": []}, "encoder_rates"),
        ({"encoder_rates": [1, 8, 5]}, "encoder_rates"),
        ({"encoder_rates": [2, 5, 4]}, "encoder_rates"),
        ({"encoder_rates": "245"}, "encoder_rates"),
        ({"encoder_rates": [2] * 1000}, "encoder_rates"),
        ({"latent_dim": 25}, "latent_dim"),
        ({"decoder_dim": 4}, "decoder_dim"),
        ({"decoder_dim": 64}, "decoder_dim"),
        ({"decoder_rates": [5, 4, 4]}, "decoder_rates"),
        ({"decoder_rates": [4, 5, 2]}, "decoder_rates"),
        ({"n_codebooks": 5}, "n_codebooks"),
        ({"n_codebooks": -1}, "n_codebooks"),
        ({"codebook_size": 64}, "codebook_size"),
        ({"codebook_size": 2.0}, "codebook_size"),
        ({"codebook_dim": 8}, "codebook_dim"),
        ({"codebook_dim": [4, 4]}, "codebook_dim"),
        ({"sample_rate": 39}, "encoder_rates"),
        ({"sample_rate": 1 << 30}, "sample_rate"),
        ({"sample_rate": None}, "sample_rate"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    path = descript_file(tmp_path / "weights.pth", descript_model(), **changes)
    with pytest.raises(ConfigError, match=key):
        DacBackend().spec(read_package_file(path, "codec").header)


def test_claims(path: Path, packages: Path) -> None:
    (backend,) = codecbay_backends()
    assert backend.claims(read_package_file(path).header)
    assert not backend.claims(read_package_file(packages / "musicgen-mono" / "compression_state_dict.bin").header)


@pytest.mark.parametrize(
    ("kwargs", "rate", "cardinalities"),
    [
        ({"sample_rate": 44_100, "encoder_rates": [2, 4, 8, 8], "decoder_rates": [8, 8, 4, 2]}, "11025/128", 9),
        ({"sample_rate": 24_000, "encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2]}, "75", 32),
        ({"sample_rate": 16_000, "encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2]}, "50", 12),
    ],
    ids=["44khz", "24khz", "16khz"],
)
def test_published_rates(tmp_path: Path, kwargs: dict[str, Any], rate: str, cardinalities: int) -> None:
    path = descript_file(tmp_path / "weights.pth", **kwargs, n_codebooks=cardinalities)
    spec = DacBackend().spec(read_package_file(path).header)
    assert str(spec.frame_rate) == rate
    assert spec.num_codebooks == len(spec.cardinalities) == cardinalities


def test_the_spec_needs_neither_torch_nor_the_library(path: Path) -> None:
    assert frame_rate_in_a_fresh_process(path, "codecbay_dac", "dac", "transformers") == "25"
