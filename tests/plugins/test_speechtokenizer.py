"""SpeechTokenizer: as its library computes it, codebooks behind the batch."""

from __future__ import annotations

import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import codecbay
from codecbay.codec import measure
from codecbay.errors import (
    CodecbayError,
    CodeRangeError,
    ConfigError,
    MissingDependencyError,
    UnsafePickleError,
    WeightsError,
)
from codecbay.package import read_package_file
from codecbay.testing import conformance_tests
from codecbay_speechtokenizer import codecbay_backends
from codecbay_speechtokenizer.backend import SpeechTokenizerBackend
from codecbay_speechtokenizer.codec import SpeechTokenizerCodec
from models import noise
from plugins.packages import Damage, Package, configure, damages, edit, frame_rate_in_a_fresh_process
from tiny import speechtokenizer_directory, speechtokenizer_model

CHANGES: dict[str, dict[str, Any]] = {
    "hubert-avg": {},
    "snake": {"activation": "Snake"},
    "celu": {"activation": "CELU", "n_filters": 3},
    "one-way": {"bidirectional": False, "lstm_layers": 1},
    "no-lstm": {"bidirectional": False, "lstm_layers": 0},
    "no-transform": {"semantic_dimension": 16},
    "deep": {"n_residual_layers": 3, "residual_kernel_size": 4, "dilation_base": 3},
    "shallow": {"n_residual_layers": 0, "codebook_size": 30},
    "odd-strides": {"strides": [3, 1, 7]},
}
PUBLISHED = {"sample_rate": 16_000, "strides": [8, 5, 4, 2], "n_q": 8, "codebook_size": 1024}  # but not as wide
PACKAGE = Package("speechtokenizer", speechtokenizer_directory)
FILE = "SpeechTokenizer.pt"

test_conformance = conformance_tests(partial(codecbay.load_codec, PACKAGE), PACKAGE)


def load(path: Path, dtype: torch.dtype = torch.float32) -> SpeechTokenizerCodec:
    codec = SpeechTokenizerBackend().build(read_package_file(path, "codec"), device=torch.device("cpu"), dtype=dtype)
    assert isinstance(codec, SpeechTokenizerCodec)
    return codec


@pytest.fixture(params=list(CHANGES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """The library's model, and the directory that holds it."""
    model = speechtokenizer_model(**CHANGES[request.param])
    return model, speechtokenizer_directory(tmp_path / "speechtokenizer", model, **CHANGES[request.param])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return PACKAGE.copy(tmp_path)


@torch.no_grad()
def test_codes_and_audio_are_those_of_the_library(case: tuple[Any, Path]) -> None:
    model, path = case
    codec = load(path)
    size = int(model.downsample_rate)
    assert codec.frame_size == size
    for samples in (1, 2, size - 1, size, size + 1, 7 * size + 3, 1000):
        wav = noise(2, 1, samples, seed=samples)
        codes = model.encode(wav)
        found, scale = codec.encode(wav)
        assert scale is None
        assert torch.equal(found, codes.transpose(0, 1))
        assert found.shape == (2, 4, -(-samples // size))
        assert torch.equal(codec.decode_latent(found), model.quantizer.decode(codes))
        wav = codec.decode(found)
        assert torch.equal(wav, model.decode(codes))
        assert wav.shape == (2, 1, found.shape[-1] * size)
    assert len(found.unique()) > 10


@pytest.mark.parametrize("n", [1, 2, 4])
@torch.no_grad()
def test_fewer_codebooks(path: Path, n: int) -> None:
    model, codec, wav = speechtokenizer_model(), load(path), noise(1, 1, 400)
    assert codec.num_codebooks == codec.total_codebooks == 4
    codec.set_num_codebooks(n)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, model.encode(wav, n_q=n).transpose(0, 1))
    assert torch.equal(codec.decode(codes), model.decode(model.encode(wav)[:n], st=0))


@torch.no_grad()
def test_the_semantic_codes_are_the_first(path: Path) -> None:
    model, codec, wav = speechtokenizer_model(), load(path), noise(1, 1, 400)
    codec.set_num_codebooks(1)
    (semantic,) = model.forward_feature(wav, layers=[0])
    assert torch.equal(codec.decode_latent(codec.encode(wav)[0]), semantic)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision(path: Path, dtype: torch.dtype) -> None:
    exact, codec = load(path), load(path, dtype)
    assert {p.dtype for p in codec.parameters()} == {dtype}
    assert codec.fingerprint() == exact.fingerprint()
    codes, _ = codec.encode(noise(1, 1, 400))
    wav = codec.decode(codes)
    assert wav.dtype == dtype
    torch.testing.assert_close(wav.float(), exact.decode(codes), rtol=0, atol=0.1)


def test_it_is_what_it_declares(case: tuple[Any, Path]) -> None:
    codec = load(case[1])
    measure(codec)
    assert not codec.training
    assert not any(p.requires_grad or p.is_meta for p in codec.parameters())
    assert not any(buffer.is_meta for buffer in codec.buffers())
    assert not any(name.endswith(("weight_g", "weight_v")) for name in codec.state_dict())
    assert codec.spec.lookahead is None
    with pytest.raises(CodeRangeError, match="outside"):
        codec.decode(torch.full((1, 4, 3), codec.cardinality))
    with pytest.raises(CodecbayError, match="no scale"):
        codec.decode(torch.zeros(1, 4, 3, dtype=torch.long), torch.ones(1, 1))


@torch.no_grad()
def test_a_checkpoint_as_published(tmp_path: Path) -> None:
    path = speechtokenizer_directory(tmp_path / "speechtokenizer", **PUBLISHED)
    codec = load(path)
    assert (str(codec.spec.frame_rate), codec.frame_size) == ("50", 320)
    assert codec.spec.cardinalities == (1024,) * 8
    assert codec.num_codebooks == 8
    own_class = type(speechtokenizer_model())
    model = own_class.load_from_checkpoint(str(path / "config.json"), str(path / FILE)).eval()
    wav = noise(1, 1, 3201)
    codes, _ = codec.encode(wav)
    assert torch.equal(codes, model.encode(wav).transpose(0, 1))
    assert torch.equal(codec.decode(codes), model.decode(codes.transpose(0, 1)))


def test_a_missing_library_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speechtokenizer", None)
    with pytest.raises(MissingDependencyError, match=r"Install it: pip install 'codecbay\[speechtokenizer\]'$"):
        load(path)


@damages(
    "decoder.model.3.convtr.convtr.weight_g",
    "encoder.model.10.lstm.bias_hh_l1_reverse",
    "quantizer.vq.layers.2._codebook.cluster_size",
    "transform.bias",
)
def test_weights_are_strict(path: Path, name: str, damage: Damage) -> None:
    with damage.refused(path / FILE, name):
        load(path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": ...}, "sample_rate"),
        ({"sample_rate": 19}, "strides"),
        ({"n_filters": 1}, "n_filters"),
        ({"n_filters": 8}, "n_filters"),
        ({"n_filters": 1 << 40}, "n_filters"),
        ({"n_filters": 1 << 14}, "n_filters"),
        ({"n_filters": True}, "n_filters"),
        ({"n_filters": None}, "n_filters"),
        ({"strides": []}, "strides"),
        ({"strides": [0, 5, 4]}, "strides"),
        ({"strides": [2, 5, 2]}, "strides"),
        ({"strides": [2, 2]}, "lstm_layers"),
        ({"strides": [5, 2, 2, 1]}, "strides"),
        ({"strides": [1] * 1000}, "strides"),
        ({"strides": "522"}, "strides"),
        ({"strides": None}, "strides"),
        ({"dimension": 8}, "dimension"),
        ({"dimension": 16.0}, "dimension"),
        ({"semantic_dimension": 768}, "semantic_dimension"),
        ({"semantic_dimension": -12}, "semantic_dimension"),
        ({"n_residual_layers": 0}, "strides"),
        ({"n_residual_layers": 2}, "n_residual_layers"),
        ({"n_residual_layers": 1 << 24}, "n_residual_layers"),
        ({"residual_kernel_size": 5}, "residual_kernel_size"),
        ({"residual_kernel_size": [3]}, "residual_kernel_size"),
        ({"dilation_base": 0}, "dilation_base"),
        ({"dilation_base": ...}, "dilation_base"),
        ({"lstm_layers": 0}, "bidirectional"),
        ({"lstm_layers": 0, "bidirectional": False}, "dimension"),
        ({"lstm_layers": 3}, "lstm_layers"),
        ({"lstm_layers": 1 << 24}, "lstm_layers"),
        ({"lstm_layers": -1}, "lstm_layers"),
        ({"bidirectional": False}, "bidirectional"),
        ({"bidirectional": "no"}, "bidirectional"),
        ({"activation": "Linear"}, "activation"),
        ({"activation": "Module.__init__"}, "activation"),
        ({"activation": None}, "activation"),
        ({"n_q": 5}, "n_q"),
        ({"n_q": 3}, "n_q"),
        ({"n_q": 0}, "n_q"),
        ({"codebook_size": 64}, "codebook_size"),
        ({"codebook_size": 10**12}, "codebook_size"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be(path: Path, changes: dict[str, Any], key: str) -> None:
    configure(path, {"semantic_dimension": 12, **changes})
    header = read_package_file(path, "codec").header
    with pytest.raises(ConfigError, match=f"'{key}'"):
        SpeechTokenizerBackend().spec(header)


def test_a_layer_that_looks_too_far(tmp_path: Path) -> None:
    path = speechtokenizer_directory(tmp_path / "speechtokenizer", n_residual_layers=3)
    configure(path, {"dilation_base": 1000})
    with pytest.raises(ConfigError, match="'dilation_base' is 1000, too much for 3"):
        SpeechTokenizerBackend().spec(read_package_file(path, "codec").header)


@pytest.mark.parametrize("changes", [{"lstm_layers": 1}, {"semantic_dimension": 16}], ids=str)
def test_configurations_that_the_weights_contradict(path: Path, changes: dict[str, Any]) -> None:
    configure(path, changes)
    with pytest.raises((ConfigError, WeightsError)):
        load(path)


def test_what_the_trainer_keeps_for_itself_is_ignored(path: Path) -> None:
    plain = load(path).fingerprint()
    configure(path, {"semantic_model_path": "/models/hubert", "betas": [0.9, 0.99], "fmax_for_loss": None})
    assert load(path).fingerprint() == plain


def test_no_pickle_is_run(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path / "touched",))

    (path / FILE).unlink()
    with (path / FILE).open("wb") as stream:
        torch.save({"a": Evil()}, stream, pickle_module=pickle)
    with pytest.raises(UnsafePickleError):
        read_package_file(path, "codec")
    assert not (path / "touched").exists()


def test_a_checkpoint_of_the_trainer_itself_is_refused(path: Path) -> None:
    edit(path / FILE, lambda state: state.update(generator=dict(state)))
    with pytest.raises(CodecbayError, match="'generator' is a dict"):
        load(path)


def test_claims(path: Path, packages: Path) -> None:
    (backend,) = codecbay_backends()
    assert backend.claims(read_package_file(path).header)
    assert not backend.claims(read_package_file(packages / "musicgen-mono" / "compression_state_dict.bin").header)
    for changes in ({"model_type": "another"}, {"semantic_dimension": ...}):
        other = PACKAGE.copy(path / "other" / next(iter(changes)))
        configure(other, changes)
        assert not backend.claims(read_package_file(other).header)


def test_the_spec_needs_neither_torch_nor_the_library(path: Path) -> None:
    libraries = ("speechtokenizer", "einops", "accelerate", "matplotlib", "transformers")
    assert frame_rate_in_a_fresh_process(path, "codecbay_speechtokenizer", *libraries) == "50"
