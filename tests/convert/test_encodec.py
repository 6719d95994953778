"""EnCodec as transformers has it computes what AudioCraft's does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from codecbay.convert import encodec, names
from codecbay.convert.encodec import Encodec
from codecbay.imports import harmless_torchaudio
from codecbay.package import Section, read_package_file
from convert.peers import library
from goldens import open_golden
from models import package

CODECS = [
    "musicgen-mono",
    "audiogen",
    "encodec-24khz-causal",
    "encodec-48khz-stereo-renormalized",
    "codec-causal-trim0-reflect",
    "codec-causal-trim0.3",
    "codec-reflect-dilated",
]


def _encodec(name: str) -> tuple[Encodec, dict[str, Tensor]]:
    file = read_package_file(package(name) / "compression_state_dict.bin")
    codec, obstacles = encodec.read_audiocraft(file.header.config)
    assert not obstacles
    return codec, file.tensors()


@pytest.mark.parametrize("name", CODECS)
def test_codecs_are_audiocrafts(name: str) -> None:
    codec, stored = _encodec(name)
    with harmless_torchaudio():
        model = library().EncodecModel(library().EncodecConfig(**encodec.transformers_config(codec, 2))).eval()
    model.load_state_dict(names.to_transformers(encodec.pairs(codec), stored))
    golden = open_golden(package(name))
    suffix = "_odd" if "wav_odd" in golden.tensors else ""
    first, last = model.config.target_bandwidths
    with torch.no_grad():
        for bandwidth, key in ((first, "_n_q_2"), (last, suffix)):
            if f"codes{key}" in golden.tensors:
                codes = model.encode(golden.tensors["wav" if key == "_n_q_2" else f"wav{key}"], bandwidth=bandwidth)
                assert torch.equal(codes.audio_codes[0], golden.tensors[f"codes{key}"])
        wav = model.decode(golden.tensors[f"codes{suffix}"][None], [golden.tensors.get(f"scale{suffix}")]).audio_values
    assert torch.allclose(wav, golden.tensors[f"decoded{suffix}"], atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9, 31, 1024])
@pytest.mark.parametrize(
    ("rate", "ratios", "bins"), [(32_000, (8, 5, 4, 4), 2048), (44_100, (7, 3), 2), (850, (8, 4), 64)]
)
def test_transformers_makes_as_many_codebooks_of_a_bandwidth(
    rate: int, ratios: tuple[int, ...], bins: int, count: int
) -> None:

    codec = replace(_encodec("shared-codec")[0], sample_rate=rate, ratios=ratios, bins=bins, num_codebooks=1024)
    with harmless_torchaudio():
        config = library().EncodecConfig(**encodec.transformers_config(codec, count))
        from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer
    assert config.num_quantizers == 1024
    quantizer = EncodecResidualVectorQuantizer.__new__(EncodecResidualVectorQuantizer)
    quantizer.__dict__.update(codebook_size=bins, frame_rate=config.frame_rate, num_quantizers=1024)
    assert quantizer.get_num_quantizers_for_bandwidth(config.target_bandwidths[0]) == count
    again, _ = encodec.read_transformers(Section(encodec.transformers_config(codec, count), "", "config.json"))
    assert again == codec
