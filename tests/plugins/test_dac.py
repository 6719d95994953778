"""Descript's codec: as descript's library computes it, and the same by transformers."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codecbay.codec import measure
from codecbay.errors import CodecbayError, CodeRangeError, ConfigError, MissingDependencyError, WeightsError
from codecbay.imports import import_library
from codecbay.package import read_package_file
from codecbay_dac import codecbay_backends, models
from codecbay_dac.backend import DacBackend
from codecbay_dac.codec import DacCodec
from models import noise

KWARGS: dict[str, Any] = {
    "encoder_dim": 8,
    "encoder_rates": [2, 4, 5],
    "latent_dim": 24,
    "decoder_dim": 32,
    "decoder_rates": [5, 4, 2],
    "n_codebooks": 4,
    "codebook_size": 32,
    "codebook_dim": 4,
    "quantizer_dropout": 0.5,
    "sample_rate": 1000,
}
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "latent-of-old": {"latent_dim": None},
    "even-rates": {"encoder_rates": [2, 8], "decoder_rates": [4, 4]},
    "odd-rates": {"encoder_rates": [3, 3], "decoder_rates": [3, 3], "codebook_size": 64},
}
LIBRARIES = list(models.MODELS)


def descript(**changes: Any) -> Any:
    """Descript's own model with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            library = import_library("dac", needed_by="this test", install="pip install 'codecbay[dac]'")
        except MissingDependencyError as error:
            pytest.skip(str(error))
        torch.manual_seed(0)
        model = library.DAC(**(KWARGS | changes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.data.uniform_(0.5, 2.0)
        elif name.endswith("bias"):
            parameter.data.normal_(std=0.1)
        elif name.endswith("weight_g"):
            parameter.data *= torch.empty_like(parameter).uniform_(0.7, 1.2)
    return model


def write(path: Path, model: Any, kwargs: dict[str, Any]) -> Path:
    torch.save({"state_dict": model.state_dict(), "metadata": {"kwargs": kwargs}}, path)
    return path


def load(path: Path, dtype: torch.dtype = torch.float32) -> DacCodec:
    codec = DacBackend().build(read_package_file(path, "codec"), device=torch.device("cpu"), dtype=dtype)
    assert isinstance(codec, DacCodec)
    return codec


def only(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Make every other library look as if it was not installed."""

    def missing(_: Any) -> Any:
        raise MissingDependencyError("It is not installed.")

    monkeypatch.setattr(models, "MODELS", {n: f if n == library else missing for n, f in models.MODELS.items()})


@pytest.fixture(params=list(CHANGES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """Descript's model, and the file that holds it."""
    model = descript(**CHANGES[request.param])
    return model, write(tmp_path / "weights.pth", model, KWARGS | CHANGES[request.param])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "weights.pth", descript(), KWARGS)


@pytest.mark.parametrize("library", LIBRARIES)
@torch.no_grad()
def test_codes_and_audio_are_those_of_descript(
    case: tuple[Any, Path], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, library)
    model, path = case
    codec = load(path)
    assert codec.library == library
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
    model, codec, wav = descript(), load(path), noise(1, 1, 400)
    assert codec.num_codebooks == 4
    codec.set_num_codebooks(n)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, model.encode(wav, n_quantizers=n)[1])
    assert codec.decode(codes).shape == (1, 1, 400)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_batch_is_its_items(path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, library)
    codec, wav = load(path), noise(3, 1, 333)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, torch.cat([codec.encode(item[None])[0] for item in wav]))
    one_by_one = torch.cat([codec.decode(item[None]) for item in codes])
    torch.testing.assert_close(codec.decode(codes), one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision(path: Path, library: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, library)
    exact, codec = load(path), load(path, dtype)
    assert {p.dtype for p in codec.parameters()} == {dtype}
    assert codec.fingerprint() == exact.fingerprint()
    codes, _ = codec.encode(noise(1, 1, 400))
    wav = codec.decode(codes)
    assert wav.dtype == dtype
    torch.testing.assert_close(wav.float(), exact.decode(codes), rtol=0, atol=0.1)


def test_a_codebook_of_zeros_is_nearest_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The one case in which transformers' own sign error decides a code.
    model = descript()
    for part in model.quantizer.quantizers:
        part.codebook.weight.data[5] = 0
    path = write(tmp_path / "weights.pth", model, KWARGS)
    wav = noise(1, 1, 1000)
    only(monkeypatch, "transformers")
    assert torch.equal(load(path).encode(wav)[0], model.encode(wav)[1])


def test_recordings_come_back_as_long(path: Path) -> None:
    codec = load(path)
    encoded = codec.encode_audio(noise(2, 1501), 800)
    wav, rate = codec.decode_audio(encoded)
    assert (wav.shape, rate) == ((1, 2, 1501), 800)


def test_it_is_what_it_declares(path: Path) -> None:
    codec = load(path)
    measure(codec)
    assert not codec.training
    assert not any(p.requires_grad or p.is_meta for p in codec.parameters())
    with pytest.raises(CodeRangeError):
        codec.decode(torch.full((1, 4, 3), 32))
    with pytest.raises(CodecbayError, match="no scale"):
        codec.decode(torch.zeros(1, 4, 3, dtype=torch.long), torch.ones(1, 1))


def test_the_other_library_is_used_where_one_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(path).library == "descript-audio-codec"
    monkeypatch.setitem(sys.modules, "dac.model.dac", None)
    assert load(path).library == "transformers"
    monkeypatch.setitem(sys.modules, "transformers.models.dac.modeling_dac", None)
    with pytest.raises(MissingDependencyError, match=r"codecbay\[dac\]"):
        load(path)


@pytest.mark.parametrize("changes", [{"codebook_size": 30}, {"codebook_dim": [4, 4, 8, 4]}], ids=str)
def test_what_only_descript_builds(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "weights.pth", descript(**changes), KWARGS | changes)
    wav = noise(1, 1, 400)
    assert torch.equal(load(path).encode(wav)[0], descript(**changes).encode(wav)[1])
    only(monkeypatch, "transformers")
    with pytest.raises(MissingDependencyError, match=r"power of two.*codecbay\[dac\]"):
        load(path)


def edited(path: Path, edit: Callable[[dict[str, Tensor]], Any]) -> Path:
    content = torch.load(path, weights_only=False)
    edit(content["state_dict"])
    torch.save(content, path)
    return path


_BIAS = "encoder.block.1.block.0.block.1.bias"
_WEIGHT = "decoder.model.1.block.2.block.1.weight_g"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop(_BIAS), f"missing: {_BIAS}"),
        (lambda state: state.pop(_WEIGHT), f"missing: {_WEIGHT}"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda state: state.update({_BIAS: torch.zeros(9)}), f"'{_BIAS}' \\[9\\]"),
        (lambda state: state.update({_BIAS: torch.full((8,), torch.nan)}), "NaN"),
    ],
)
def test_weights_are_strict(
    path: Path,
    library: str,
    edit: Callable[[dict[str, Tensor]], Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, library)
    with pytest.raises(WeightsError, match=message):
        load(edited(path, edit))


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
    path = write(tmp_path / "weights.pth", descript(), KWARGS | changes)
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
    kwargs = kwargs | {"n_codebooks": cardinalities}
    spec = DacBackend().spec(read_package_file(write(tmp_path / "w.pth", descript(**kwargs), KWARGS | kwargs)).header)
    assert str(spec.frame_rate) == rate
    assert spec.num_codebooks == len(spec.cardinalities) == cardinalities


def test_the_spec_needs_neither_torch_nor_the_library(path: Path) -> None:
    code = (
        "import sys; from codecbay.package import read_package_file; from codecbay_dac import codecbay_backends; "
        f"from pathlib import Path; header = read_package_file(Path({str(path)!r})).header; "
        "(backend,) = codecbay_backends(); assert backend.claims(header); print(backend.spec(header).frame_rate); "
        "assert not {'torch', 'dac', 'transformers'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("25", "")
