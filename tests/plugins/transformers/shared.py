"""Shared by the tests of the back-end for transformers: small random models of each family, and their packages."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from codecbay.codec import Codec
from codecbay.errors import ConfigError, WeightsError
from codecbay.imports import harmless_torchaudio
from codecbay.package import Config, Header, TensorInfo, read_package_file
from codecbay.spec import CodecSpec
from codecbay_transformers.backend import TransformersBackend
from plugins.packages import Package
from tiny import TRANSFORMERS, transformers_directory, transformers_model

_HUBERT = TRANSFORMERS["xcodec"][1]["semantic_model_config"]
_WAVLM = {
    **_HUBERT,
    "model_type": "wavlm",
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "num_buckets": 16,
    "max_bucket_distance": 50,
}
_ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64}
_FSQ = {
    "encoder_hidden_size": 4,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "quantization_dim": 48,
    "quantization_levels": [4, 4, 3, 5],
    "semantic_model_config": {
        "model_type": "wav2vec2-bert",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_depthwise_kernel_size": 7,
    },
}
# Of the library's configuration class by name, scaled down.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    **TRANSFORMERS,
    # Of chunks that are few frames, and no whole number of them.
    "encodec_chunks": (
        "Encodec",
        {**_ENCODEC, "normalize": True, "chunk_length_s": 0.07, "overlap": 0.3, "target_bandwidths": [0.9, 1.8]},
    ),
    "xcodec_wavlm": ("Xcodec", {**TRANSFORMERS["xcodec"][1], "semantic_model_config": _WAVLM}),
    "xcodec2": ("Xcodec2", _FSQ),
    "neucodec": ("NeuCodec", _FSQ),
    "higgs_audio_v2": (
        "HiggsAudioV2Tokenizer",
        {
            "target_bandwidths": [0.3, 0.6],
            "codebook_size": 64,
            "codebook_dim": 8,
            "acoustic_model_config": {
                **TRANSFORMERS["xcodec"][1]["acoustic_model_config"],
                "downsampling_ratios": [8, 5, 4, 2, 3],
                "upsampling_ratios": [8, 5, 4, 2, 3],
            },
            "semantic_model_config": {**_HUBERT, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False},
        },
    ),
}
FSQ = ("xcodec2", "neucodec")
CHUNKED = ("encodec_48khz", "encodec_chunks")
UNCHUNKED = [name for name in CONFIGS if name not in CHUNKED]
HOSTILE = [0, -1, "many", 10**30, 1e300, True, [], {}, [[1]], [0], [-4, 2], ["a"], [10**9] * 3]


class Random(Package):
    """A random codec of the library, and the directory that it is saved in.

    Args:
        name: in ``CONFIGS``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, lambda path: transformers_directory(path, self.model))

    @cached_property
    def model(self) -> Any:
        """The library's."""
        model = transformers_model(*CONFIGS[self.name])
        if self.name in FSQ:
            _enliven(model)
        return model

    @cached_property
    def codec(self) -> Codec:
        """Ours, built from the directory."""
        return build(self.path)

    @property
    def spec(self) -> CodecSpec:
        """From the header."""
        return spec_of(self.path)


@torch.no_grad()
def _enliven(model: Any) -> None:
    """Give a model weights with which sounds have codes that differ; the library's have one code for all."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    seen: list[torch.Tensor] = []
    project = model.quantizer.project_in
    hook = project.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    model.encode(0.1 * torch.randn(1, 1, 16_000), input_features=torch.randn(1, 50, 160))
    hook.remove()
    std, mean = torch.std_mean(seen[0], dim=0)
    project.weight /= std[:, None]
    project.bias.copy_(-mean / std)


PACKAGES = {name: Random(name) for name in CONFIGS}


def library(module: str) -> Any:
    """A module below ``transformers.models``, whatever the state of torchaudio."""
    with harmless_torchaudio():
        return importlib.import_module(f"transformers.models.{module}")


def build(directory: Path, dtype: torch.dtype = torch.float32) -> Codec:
    """The codec in a directory, by the back-end."""
    backend = TransformersBackend()
    file = read_package_file(directory, "codec")
    assert backend.claims(file.header)
    return backend.build(file, device=torch.device("cpu"), dtype=dtype)


def spec_of(directory: Path) -> CodecSpec:
    """What the header of a package says."""
    return TransformersBackend().spec(read_package_file(directory, "codec").header)


def published(model_type: str, values: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> CodecSpec:
    """What a configuration says, where the tensors that are looked at have these shapes."""
    infos = {name: TensorInfo(shape, "float32", "0", 0, (shape[1], 1)) for name, shape in shapes.items()}
    config, where = Config({"model_type": model_type, **values}, "config.json"), Path("package")
    header = Header(where, "transformers", "safetensors", "codec", config, infos, where, {})
    return TransformersBackend().spec(header)


def noise(codec: Codec, samples: int, batch: int = 1) -> torch.Tensor:
    """Noise that gets louder, ``[batch, C, samples]``."""
    wav = torch.randn(batch, codec.channels, samples, generator=torch.Generator().manual_seed(samples))
    return 0.1 * wav * torch.linspace(0.5, 1, samples)


def changed(package: Random, target: Path, **values: Any) -> Path:
    """The package with other values in its configuration; two underscores lead into a section."""
    config = json.loads((package.path / "config.json").read_text())
    for key, value in values.items():
        inner = config
        *path, last = key.split("__")
        for part in path:
            inner = inner[part]
        inner[last] = value
    (target / "config.json").write_text(json.dumps(config))
    (target / "model.safetensors").symlink_to(package.path / "model.safetensors")
    return target


def compare(
    package: Random,
    encode: Callable[[torch.Tensor], torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
    frames: int = 12,
    extra: int = 0,
) -> None:
    """Our codec gives the codes and the waveforms that the library does.

    Args:
        package: the codec.
        encode: the library's codes ``[B, K, T]`` of a waveform ``[B, C, S]``.
        decode: the library's waveform ``[B, C, S]`` of codes.
        frames: of the waveform.
        extra: samples after them.
    """
    codec = package.codec
    wav = noise(codec, frames * codec.frame_size + extra, 2)
    codes, scale = codec.encode(wav)
    assert scale is None
    assert codes.dtype == torch.int64
    assert codes.shape == (2, codec.num_codebooks, codec.frames_of(wav.shape[-1]))
    with torch.no_grad():
        expected = encode(wav)
        assert frames <= expected.shape[-1] <= codes.shape[-1] + 1
        shared = min(expected.shape[-1], codes.shape[-1])
        assert torch.equal(codes[..., :shared], expected[..., :shared])
        assert frames < 12 or len(codes.unique()) > 4
        sound = decode(codes)
    decoded = codec.decode(codes)
    assert decoded.shape == (2, codec.channels, codec.samples_of(codes.shape[-1]))
    torch.testing.assert_close(decoded[..., : sound.shape[-1]], sound[..., : decoded.shape[-1]])
    assert codec.decode_latent(codes).shape[::2] == (2, codes.shape[-1])


def refuse_hostile(package: Random, key: str, target: Path, *values: Any) -> None:
    """Each of the values at ``key`` is refused by name, from the header alone; hostile numbers, if none are given."""
    for i, value in enumerate(values or HOSTILE):
        directory = target / str(i)
        directory.mkdir()
        header = read_package_file(changed(package, directory, **{key: value})).header
        with pytest.raises(ConfigError, match=key.rpartition("__")[2]):
            TransformersBackend().spec(header)


def refuse_hostile_lists(package: Random, key: str, target: Path) -> None:
    """Hostile lists at ``key`` are refused, from the header alone."""
    for i, value in enumerate([*HOSTILE, [2] * 100_000, [float("nan")]]):
        directory = target / str(i)
        directory.mkdir()
        header = read_package_file(changed(package, directory, **{key: value})).header
        with pytest.raises((ConfigError, WeightsError)):
            TransformersBackend().spec(header)


def refuse(package: Random, target: Path, **values: Any) -> None:
    """The package with other values in its configuration is not built."""
    with pytest.raises((ConfigError, WeightsError)):
        build(changed(package, target, **values))
