"""The back-end for transformers, side by side with the library on small random models of the real structure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import codecbay
from codecbay.codec import Codec, measure
from codecbay.errors import CodecbayError, CodeRangeError, ConfigError, WeightsError
from codecbay.imports import harmless_torchaudio
from codecbay.package import Config, Header, TensorInfo, read_package_file
from codecbay.plugins import Plugins
from codecbay_transformers.backend import TransformersBackend
from codecbay_transformers.chunked import ChunkedCodec

with harmless_torchaudio():
    import transformers

_ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "encodec_24khz": ("Encodec", {**_ENCODEC, "target_bandwidths": [0.9, 1.8, 3.6]}),
    "encodec_32khz": (
        "Encodec",
        {
            **_ENCODEC,
            "sampling_rate": 32_000,
            "upsampling_ratios": [8, 5, 4, 4],
            "target_bandwidths": [1.2],
            "use_causal_conv": False,
            "use_conv_shortcut": False,
        },
    ),
    "encodec_48khz": (
        "Encodec",
        {
            **_ENCODEC,
            "sampling_rate": 48_000,
            "audio_channels": 2,
            "normalize": True,
            "chunk_length_s": 1.0,
            "overlap": 0.01,
            "norm_type": "time_group_norm",
            "use_causal_conv": False,
            "target_bandwidths": [0.9, 1.8, 3.6],
        },
    ),
    "dac_44khz": (
        "Dac",
        {
            "sampling_rate": 44_100,
            "encoder_hidden_size": 4,
            "decoder_hidden_size": 32,
            "downsampling_ratios": [2, 4, 8, 8],
            "n_codebooks": 4,
            "codebook_size": 64,
            "codebook_dim": 4,
        },
    ),
    "dac_24khz": (
        "Dac",
        {
            "sampling_rate": 24_000,
            "encoder_hidden_size": 4,
            "decoder_hidden_size": 32,
            "downsampling_ratios": [2, 4, 5, 8],
            "n_codebooks": 4,
            "codebook_size": 64,
            "codebook_dim": 4,
        },
    ),
    "mimi": (
        "Mimi",
        {
            "num_filters": 4,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "codebook_dim": 8,
            "codebook_size": 64,
            "num_quantizers": 4,
            "vector_quantization_hidden_dimension": 8,
            "upsample_groups": 32,
            "sliding_window": 20,
        },
    ),
    "xcodec": (
        "Xcodec",
        {
            "target_bandwidths": [0.3, 0.6, 1.2],
            "codebook_size": 64,
            "acoustic_model_config": {
                "model_type": "dac",
                "encoder_hidden_size": 4,
                "decoder_hidden_size": 32,
                "hidden_size": 16,
                "downsampling_ratios": [8, 5, 4, 2],
                "upsampling_ratios": [8, 5, 4, 2],
            },
            "semantic_model_config": {
                "model_type": "hubert",
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "conv_dim": [8] * 7,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        },
    ),
}
_HUBERT = CONFIGS["xcodec"][1]["semantic_model_config"]
CONFIGS["xcodec_wavlm"] = (
    "Xcodec",
    {**CONFIGS["xcodec"][1], "semantic_model_config": {**_HUBERT, "model_type": "wavlm"}},
)
NAMES = list(CONFIGS)
FACTS = {  # sample rate, channels, frame size, codebooks, allowed
    "encodec_24khz": (24_000, 1, 320, 8, (2, 4, 8)),
    "encodec_32khz": (32_000, 1, 640, 4, (4,)),
    "encodec_48khz": (48_000, 2, 320, 4, (1, 2, 4)),
    "dac_44khz": (44_100, 1, 512, 4, (1, 2, 3, 4)),
    "dac_24khz": (24_000, 1, 320, 4, (1, 2, 3, 4)),
    "mimi": (24_000, 1, 1920, 4, (1, 2, 3, 4)),
    "xcodec": (16_000, 1, 320, 4, (1, 2, 4)),
    "xcodec_wavlm": (16_000, 1, 320, 4, (1, 2, 4)),
}
UNCHUNKED = [name for name in NAMES if name != "encodec_48khz"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """For each name a directory, and the library's model in it."""
    transformers.utils.logging.disable_progress_bar()
    made = {}
    for name, (family, arguments) in CONFIGS.items():
        torch.manual_seed(1)
        with harmless_torchaudio():
            config = getattr(transformers, f"{family}Config")(**arguments)
            model = getattr(transformers, f"{family}Model")(config).eval()
        for key, value in model.state_dict().items():
            if key.endswith(("codebook.embed", "codebook.embed_sum")):
                value.normal_(std=0.1)  # the library leaves codebooks at zero
            if key.endswith("cluster_usage"):
                value.uniform_(0.5, 2)
        for module in model.modules():
            if hasattr(module, "embed_sum"):
                module._embed = None
        directory = tmp_path_factory.mktemp(name)
        model.save_pretrained(directory)
        made[name] = directory, model
    transformers.utils.logging.enable_progress_bar()
    return made


def build(directory: Path, dtype: torch.dtype = torch.float32) -> Codec:
    backend = TransformersBackend()
    file = read_package_file(directory, "codec")
    assert backend.claims(file.header)
    return backend.build(file, device=torch.device("cpu"), dtype=dtype)


@pytest.fixture(scope="module")
def codecs(packages: dict[str, tuple[Path, Any]]) -> dict[str, Codec]:
    return {name: build(directory) for name, (directory, _) in packages.items()}


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest, codecs: dict[str, Codec]) -> Iterator[Codec]:
    found = codecs[request.param]
    yield found
    found.set_num_codebooks(found.total_codebooks)


def noise(codec: Codec, samples: int, batch: int = 1) -> torch.Tensor:
    wav = torch.randn(batch, codec.channels, samples, generator=torch.Generator().manual_seed(samples))
    return 0.1 * wav * torch.linspace(0.5, 1, samples)


def library_codes(name: str, model: Any, wav: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if name.startswith("encodec"):
            codes = model.encode(wav, bandwidth=model.config.target_bandwidths[-1]).audio_codes[0]
        else:
            codes = model.encode(wav).audio_codes
    assert isinstance(codes, torch.Tensor)
    return codes


@pytest.mark.parametrize("name", NAMES)
def test_spec(name: str, packages: dict[str, tuple[Path, Any]]) -> None:
    header = read_package_file(packages[name][0], "codec").header
    spec = TransformersBackend().spec(header)
    rate, channels, frame_size, total, allowed = FACTS[name]
    assert (spec.sample_rate, spec.channels, spec.frame_size) == (rate, channels, frame_size)
    assert spec.frame_rate == Fraction(rate, frame_size)
    assert (spec.num_codebooks, spec.allowed_num_codebooks) == (total, allowed)
    assert spec.cardinalities == (64,) * total
    assert spec.has_scale is (name == "encodec_48khz")


def test_spec_needs_no_torch(packages: dict[str, tuple[Path, Any]]) -> None:
    code = (
        "import sys; from pathlib import Path; from codecbay_transformers import codecbay_backends;"
        "from codecbay.package import Config, Header, TensorInfo, read_package_file; backend, = codecbay_backends();"
        "[backend.spec(read_package_file(Path(p)).header) for p in sys.argv[1:]];"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *(str(path) for path, _ in packages.values())], check=True)


@pytest.mark.parametrize("model_type", ["llama", 3, None, ["dac"], "pocket_tts_audio_tokenizer"])
def test_others_are_not_claimed(model_type: Any, packages: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    directory = changed(packages["dac_44khz"][0], tmp_path, model_type=model_type)
    assert not TransformersBackend().claims(read_package_file(directory).header)


def test_measured(codec: Codec) -> None:
    measure(codec)


@pytest.mark.parametrize("name", UNCHUNKED)
def test_equals_the_library(name: str, packages: dict[str, tuple[Path, Any]], codecs: dict[str, Codec]) -> None:
    model, codec = packages[name][1], codecs[name]
    wav = noise(codec, 12 * codec.frame_size, 2)
    codes, scale = codec.encode(wav)
    assert scale is None
    assert codes.dtype == torch.int64
    assert codes.shape == (2, codec.total_codebooks, 12)
    assert torch.equal(codes, library_codes(name, model, wav))
    assert len(codes.unique()) > 4
    with torch.no_grad():
        if name.startswith("encodec"):
            expected = model.decode(codes[None], [None]).audio_values
        elif name.startswith("dac"):
            expected = model.decode(audio_codes=codes).audio_values[:, None]
        else:
            expected = model.decode(codes).audio_values
    decoded = codec.decode(codes)
    assert decoded.shape == wav.shape
    torch.testing.assert_close(decoded[..., : expected.shape[-1]], expected[..., : decoded.shape[-1]])
    assert codec.decode_latent(codes).shape[::2] == (2, 12)


@pytest.mark.parametrize("name", UNCHUNKED)
@pytest.mark.parametrize("extra", [-1, 0, 1, 7])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_lengths(name: str, extra: int, frames: int, codecs: dict[str, Codec]) -> None:
    codec = codecs[name]
    samples = frames * codec.frame_size + extra
    codes, scale = codec.encode(noise(codec, samples))
    assert codes.shape[-1] == -(-samples // codec.frame_size)
    assert codec.decode(codes, scale).shape == (1, codec.channels, codes.shape[-1] * codec.output_frame_size)


def test_one_sample(codec: Codec) -> None:
    codes, scale = codec.encode(noise(codec, 1))
    assert codes.shape[-1] == 1
    assert codec.decode(codes, scale).shape == (1, codec.channels, codec.frame_size)


@pytest.mark.parametrize(("samples", "rate", "channels"), [(1, 8_000, 1), (22_051, 22_050, 2), (50_001, 48_000, 2)])
def test_recordings_keep_their_samples(codec: Codec, samples: int, rate: int, channels: int, tmp_path: Path) -> None:
    encoded = codec.encode_audio(0.1 * torch.randn(channels, samples), rate)
    encoded.save(tmp_path / "a.codes")
    wav, found = codec.decode_audio(type(encoded).load(tmp_path / "a.codes"))
    assert (wav.shape, found) == ((1, channels, samples), rate)


def test_batch_equals_single(codec: Codec) -> None:
    wav = noise(codec, 10 * codec.frame_size + 11, 3) * torch.tensor([1, 0.5, 2])[:, None, None]
    codes, scale = codec.encode(wav)
    for i in range(3):
        single, its_scale = codec.encode(wav[i : i + 1])
        assert (single[0] == codes[i]).double().mean() >= 0.999
        if scale is not None:
            assert its_scale is not None
            torch.testing.assert_close(its_scale[0], scale[i])
        decoded = codec.decode(codes, scale)[i]
        torch.testing.assert_close(
            codec.decode(codes[i : i + 1], None if scale is None else scale[i : i + 1])[0],
            decoded,
            atol=1e-5,
            rtol=1e-4,
        )


def test_fewer_codebooks_are_a_prefix(codec: Codec) -> None:
    wav = noise(codec, 6 * codec.frame_size)
    whole, scale = codec.encode(wav)
    for n in codec.spec.allowed_num_codebooks:
        codec.set_num_codebooks(n)
        codes, _ = codec.encode(wav)
        assert torch.equal(codes, whole[:, :n])
        assert codec.decode(codes, scale).shape == wav.shape
    with pytest.raises(CodecbayError, match="num_codebooks=5"):
        codec.set_num_codebooks(5)


def test_causal(codec: Codec) -> None:
    wav = noise(codec, 20 * codec.frame_size)
    other = wav.clone()
    other[..., 10 * codec.frame_size :] = 0.3
    same = bool((codec.encode(wav)[0][..., :10] == codec.encode(other)[0][..., :10]).all())
    assert same or not codec.spec.causal


def test_causal_where_it_is_declared(codecs: dict[str, Codec]) -> None:
    assert codecs["mimi"].spec.causal
    assert not codecs["encodec_24khz"].spec.causal


def test_through_the_factory(packages: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TransformersBackend()
    monkeypatch.setattr("codecbay.factory.get_plugins", lambda: Plugins(backends={backend.name: backend}))
    for directory, _ in packages.values():
        codec = codecbay.load_codec(directory, device="cpu", num_codebooks=FACTS[directory.name.rstrip("0")][4][0])
        assert codec.num_codebooks == FACTS[directory.name.rstrip("0")][4][0]
        assert codec.name == str(directory)


def test_codes_out_of_range(codec: Codec) -> None:
    codes = torch.full((1, 1, 3), 64)
    with pytest.raises(CodeRangeError, match="64"):
        codec.decode(codes)
    with pytest.raises(CodeRangeError):
        codec.decode_latent(codes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: torch.dtype, packages: dict[str, tuple[Path, Any]], codecs: dict[str, Codec]) -> None:
    codec, exact = build(packages[name][0], dtype), codecs[name]
    assert {parameter.dtype for parameter in codec.parameters()} == {dtype}
    assert not codec.training
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    wav = noise(codec, 5 * codec.frame_size)
    codes, scale = codec.encode(wav)
    decoded = codec.decode(codes, scale)
    assert decoded.dtype == dtype
    assert decoded.isfinite().all()
    assert codec.fingerprint() == exact.fingerprint()
    inverse = [buffer for key, buffer in codec.named_buffers() if key.endswith("inv_freq")]
    assert all(buffer.dtype == torch.float32 for buffer in inverse)


def test_chunks_equal_the_library(packages: dict[str, tuple[Path, Any]], codecs: dict[str, Codec]) -> None:
    model, codec = packages["encodec_48khz"][1], codecs["encodec_48khz"]
    assert isinstance(codec, ChunkedCodec)
    for samples in (30_001, 60_000, 100_003, 144_000):
        wav = noise(codec, samples, 2) * torch.tensor([1, 3])[:, None, None]
        codes, scale = codec.encode(wav)
        with torch.no_grad():
            output = model.encode(wav, bandwidth=3.6)
            expected = model.decode(*output.to_tuple()[:2], last_frame_pad_length=output.last_frame_pad_length)[0]
        chunks = list(output.audio_codes)
        chunks[-1] = chunks[-1][..., : chunks[-1].shape[-1] - output.last_frame_pad_length]
        assert torch.equal(codes, torch.cat(chunks, -1))
        assert scale is not None
        torch.testing.assert_close(scale, torch.cat(output.audio_scales, -1))
        decoded = codec.decode(codes, scale)
        torch.testing.assert_close(decoded, expected)
        assert codes.shape[-1] == codec.frames_of(samples)
        assert samples <= decoded.shape[-1] == codec.samples_of(codes.shape[-1]) < samples + codec.frame_size


@pytest.mark.parametrize("samples", [1, 320, 47_520, 47_521, 48_000, 48_001, 95_040, 95_520, 95_521, 142_561])
def test_chunks_of_any_length(samples: int, codecs: dict[str, Codec]) -> None:
    codec = codecs["encodec_48khz"]
    assert isinstance(codec, ChunkedCodec)
    wav = noise(codec, samples)
    codes, scale = codec.encode(wav)
    assert scale is not None
    assert scale.shape == (1, codec.chunks_of(codes.shape[-1]))
    assert samples <= codec.decode(codes, scale).shape[-1] < samples + codec.frame_size
    encoded = codec.encode_audio(wav[0], 48_000)
    assert torch.equal(encoded.codes, codes)
    assert codec.decode_audio(encoded)[0].shape == (1, 2, samples)


def test_codes_without_scale(codecs: dict[str, Codec]) -> None:
    codec = codecs["encodec_48khz"]
    codes, scale = codec.encode(noise(codec, 60_000))
    assert scale is not None
    torch.testing.assert_close(codec.decode(codes), codec.decode(codes, torch.ones_like(scale)))
    with pytest.raises(CodecbayError, match="expected"):
        codec.decode(codes, scale[:, :1])


def changed(directory: Path, target: Path, **values: Any) -> Path:
    """The package with other values in its configuration."""
    config = json.loads((directory / "config.json").read_text())
    for key, value in values.items():
        inner = config
        *path, last = key.split("__")
        for part in path:
            inner = inner[part]
        inner[last] = value
    (target / "config.json").write_text(json.dumps(config))
    (target / "model.safetensors").symlink_to(directory / "model.safetensors")
    return target


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor_is_named(name: str, packages: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    tensors = load_file(packages[name][0] / "model.safetensors")
    for gone in {min(tensors), max(key for key in tensors if "codebook" in key), max(tensors)}:
        directory = tmp_path / gone
        directory.mkdir()
        (directory / "config.json").write_text((packages[name][0] / "config.json").read_text())
        rest = {key: value for key, value in tensors.items() if key != gone}
        save_file(rest, directory / "model.safetensors", {"format": "pt"})
        with pytest.raises(WeightsError, match=gone.rpartition("layers")[2].replace(".", r"\.")):
            build(directory)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", ["foo", "encoder.foo"])
def test_an_unexpected_tensor_is_named(
    name: str, extra: str, packages: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    tensors = load_file(packages[name][0] / "model.safetensors")
    (tmp_path / "config.json").write_text((packages[name][0] / "config.json").read_text())
    save_file({**tensors, extra: torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="foo"):
        build(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_misshapen_tensor_is_named(name: str, packages: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    tensors = load_file(packages[name][0] / "model.safetensors")
    (tmp_path / "config.json").write_text((packages[name][0] / "config.json").read_text())
    wrong = next(key for key in tensors if key.endswith("bias"))
    save_file({**tensors, wrong: torch.zeros(1001)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=wrong.rpartition("layers")[2].replace(".", r"\.")):
        build(tmp_path)


def test_old_names_of_normalized_weights(
    packages: dict[str, tuple[Path, Any]], codecs: dict[str, Codec], tmp_path: Path
) -> None:
    tensors = load_file(packages["encodec_24khz"][0] / "model.safetensors")
    new, old = "parametrizations.weight.original", {"0": "weight_g", "1": "weight_v"}
    tensors = {(k[:-1].replace(new, old[k[-1]]) if new in k else k): v for k, v in tensors.items()}
    assert any(key.endswith("weight_g") for key in tensors)
    (tmp_path / "config.json").write_text((packages["encodec_24khz"][0] / "config.json").read_text())
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    codec = build(tmp_path)
    wav = noise(codec, 3200)
    assert torch.equal(codec.encode(wav)[0], codecs["encodec_24khz"].encode(wav)[0])


PUBLISHED = [  # what the published configurations say, where it is not the library's default
    ("encodec", {}, (24_000, 1, 32, 1024, Fraction(75), (2, 4, 8, 16, 32))),
    (
        "encodec",
        {"sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4], "codebook_size": 2048, "target_bandwidths": [2.2]},
        (32_000, 1, 4, 2048, Fraction(50), (4,)),
    ),
    (
        "encodec",
        {
            "sampling_rate": 48_000,
            "audio_channels": 2,
            "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
            "chunk_length_s": 1.0,
            "overlap": 0.01,
            "normalize": True,
        },
        (48_000, 2, 16, 1024, Fraction(150), (2, 4, 8, 16)),
    ),
    (
        "dac",
        {"sampling_rate": 44_100, "downsampling_ratios": [2, 4, 8, 8]},
        (44_100, 1, 9, 1024, Fraction(44_100, 512), tuple(range(1, 10))),
    ),
    ("mimi", {"frame_rate": 12.5}, (24_000, 1, 32, 2048, Fraction(25, 2), tuple(range(1, 33)))),
    ("xcodec", {}, (16_000, 1, 8, 1024, Fraction(50), (1, 2, 3, 4, 8))),
]


@pytest.mark.parametrize(("model_type", "values", "facts"), PUBLISHED)
def test_published_configurations(model_type: str, values: dict[str, Any], facts: tuple[Any, ...]) -> None:
    size, total = facts[3], facts[2]
    names = {
        "encodec": [(f"quantizer.layers.{k}.codebook.embed", 128) for k in range(total)],
        "dac": [(f"quantizer.quantizers.{k}.codebook.weight", 8) for k in range(total)],
        "mimi": [("quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum", 256)]
        + [(f"quantizer.acoustic_residual_vector_quantizer.layers.{k}.codebook.embed_sum", 256) for k in range(31)],
        "xcodec": [(f"quantizer.quantizers.{k}.codebook.embed", 1024) for k in range(total)],
    }[model_type]
    tensors = {name: TensorInfo((size, dim), "float32", "0", 0, (dim, 1)) for name, dim in names}
    config = Config({"model_type": model_type, **values}, "config.json")
    where = Path("package")
    header = Header(where, "transformers", "safetensors", "codec", config, tensors, where, {})
    spec = TransformersBackend().spec(header)
    assert (
        spec.sample_rate,
        spec.channels,
        spec.num_codebooks,
        spec.cardinalities[0],
        spec.frame_rate,
        spec.allowed_num_codebooks,
    ) == facts


HOSTILE = [0, -1, "many", 10**30, 1e300, True, [], {}, [[1]], [0], [-4, 2], ["a"], [10**9] * 3]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("encodec_24khz", key) for key in ("sampling_rate", "audio_channels", "hidden_size", "codebook_size")),
        *(("encodec_24khz", key) for key in ("num_filters", "kernel_size", "compress", "num_lstm_layers")),
        *(("dac_44khz", key) for key in ("sampling_rate", "n_codebooks", "codebook_dim", "encoder_hidden_size")),
        *(("mimi", key) for key in ("num_quantizers", "num_hidden_layers", "num_attention_heads", "sliding_window")),
        *(("xcodec", key) for key in ("sample_rate", "codebook_size", "acoustic_model_config__hidden_size")),
        *(("xcodec", f"semantic_model_config__{key}") for key in ("num_hidden_layers", "hidden_size")),
    ],
)
def test_hostile_numbers(name: str, key: str, packages: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    for i, value in enumerate(HOSTILE):
        directory = tmp_path / str(i)
        directory.mkdir()
        header = read_package_file(changed(packages[name][0], directory, **{key: value})).header
        with pytest.raises(ConfigError, match=key.rpartition("__")[2]):
            TransformersBackend().spec(header)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("encodec_24khz", "upsampling_ratios"),
        ("encodec_24khz", "target_bandwidths"),
        ("dac_44khz", "downsampling_ratios"),
        ("mimi", "upsampling_ratios"),
        ("xcodec", "target_bandwidths"),
        ("xcodec", "strides"),
    ],
)
def test_hostile_lists(name: str, key: str, packages: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    for i, value in enumerate([*HOSTILE, [2] * 100_000, [float("nan")]]):
        directory = tmp_path / str(i)
        directory.mkdir()
        header = read_package_file(changed(packages[name][0], directory, **{key: value})).header
        with pytest.raises((ConfigError, WeightsError)):
            TransformersBackend().spec(header)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("encodec_24khz", {"num_filters": 1 << 20}),
        ("encodec_24khz", {"pad_mode": "nowhere"}),
        ("encodec_24khz", {"num_residual_layers": 60}),
        ("encodec_48khz", {"overlap": 1.0}),
        ("encodec_48khz", {"overlap": None}),
        ("encodec_48khz", {"chunk_length_s": 0.00001}),
        ("dac_44khz", {"decoder_hidden_size": 1 << 22}),
        ("mimi", {"frame_rate": 1e-3}),
        ("mimi", {"_frame_rate": 1e-3}),
        ("mimi", {"compress": 1 << 20}),
        ("mimi", {"num_filters": 1 << 22}),
        ("mimi", {"rope_parameters": {"rope_type": "yarn"}}),
        ("mimi", {"encoder_config": None}),
        ("xcodec", {"semantic_model_config__intermediate_size": 1 << 24}),
        ("xcodec", {"semantic_model_config__model_type": "llama"}),
        ("xcodec", {"semantic_model_config__num_attention_heads": -1}),
        ("xcodec", {"semantic_model_config__conv_dim": [0] * 7}),
        ("xcodec", {"semantic_model_config__conv_stride": "five"}),
        ("xcodec", {"semantic_model_config__num_adapter_layers": 1 << 24, "semantic_model_config__add_adapter": True}),
        ("xcodec", {"acoustic_model_config__upsampling_ratios": [2, 2]}),
        ("dac_44khz", {"upsampling_ratios": [8, 8, 4, 4]}),
    ],
)
def test_hostile_models(
    name: str, values: dict[str, Any], packages: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, WeightsError)):
        build(changed(packages[name][0], tmp_path, **values))


def test_what_could_run_code_never_reaches_the_library(packages: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    values = {"auto_map": {"AutoModel": "evil--code.Model"}, "quantization_config": {"quant_method": "gptq"}}
    codec = build(changed(packages["dac_44khz"][0], tmp_path, **values))
    assert not {"auto_map", "quantization_config"} & set(vars(codec.model.config))  # type: ignore[union-attr]
