"""How packages of every family are read: from the header alone, strictly, and without torchaudio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import codecbay
from codecbay.errors import WeightsError
from codecbay.package import read_package_file
from codecbay.plugins import Plugins
from codecbay_transformers.backend import TransformersBackend
from plugins.transformers.shared import PACKAGES, build, changed

NAMES = list(PACKAGES)


def test_spec_needs_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from codecbay_transformers import codecbay_backends;"
        "from codecbay.package import Config, Header, TensorInfo, read_package_file; backend, = codecbay_backends();"
        "[backend.spec(read_package_file(Path(p)).header) for p in sys.argv[1:]];"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *PACKAGES.values()], check=True)


def test_torchaudio_may_be_absent() -> None:
    code = (
        "import sys; from importlib.machinery import PathFinder; find = PathFinder.find_spec;"
        "PathFinder.find_spec = lambda name, *args: None if name == 'torchaudio' else find(name, *args);"
        "import codecbay, torch;"
        "[codecbay.load_codec(p, device='cpu').encode(torch.randn(1, 1, 5000)) for p in sys.argv[1:]];"
        "assert 'torchaudio' not in sys.modules"
    )
    packages = [PACKAGES[name] for name in ("xcodec2", "neucodec", "higgs_audio_v2")]
    subprocess.run([sys.executable, "-c", code, *packages], check=True)


@pytest.mark.parametrize("model_type", ["llama", 3, None, ["dac"], "pocket_tts_audio_tokenizer"])
def test_others_are_not_claimed(model_type: Any, tmp_path: Path) -> None:
    directory = changed(PACKAGES["dac_44khz"], tmp_path, model_type=model_type)
    assert not TransformersBackend().claims(read_package_file(directory).header)


def test_through_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TransformersBackend()
    monkeypatch.setattr("codecbay.factory.get_plugins", lambda: Plugins(backends={backend.name: backend}))
    for package in PACKAGES.values():
        fewest = package.spec.allowed_num_codebooks[0]
        codec = codecbay.load_codec(package, device="cpu", num_codebooks=fewest)
        assert codec.num_codebooks == fewest
        assert codec.name == str(package.path)


def with_tensors(name: str, target: Path, **tensors: torch.Tensor | None) -> Path:
    """The package with some tensors replaced, or left out."""
    path = PACKAGES[name].path
    state: dict[str, torch.Tensor | None] = {**load_file(path / "model.safetensors"), **tensors}
    target.mkdir(exist_ok=True)
    (target / "config.json").write_text((path / "config.json").read_text())
    kept = {key: value for key, value in state.items() if value is not None}
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    tensors = load_file(PACKAGES[name].path / "model.safetensors")
    for gone in {min(tensors), max(key for key in tensors if "codebook" in key or "quantizer" in key), max(tensors)}:
        directory = with_tensors(name, tmp_path / gone, **{gone: None})
        with pytest.raises(WeightsError, match=gone.rpartition("layers")[2].replace(".", r"\.")):
            build(directory)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", ["foo", "encoder.foo"])
def test_an_unexpected_tensor_is_named(name: str, extra: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="foo"):
        build(with_tensors(name, tmp_path, **{extra: torch.zeros(3)}))


@pytest.mark.parametrize("name", NAMES)
def test_a_misshapen_tensor_is_named(name: str, tmp_path: Path) -> None:
    wrong = next(key for key in load_file(PACKAGES[name].path / "model.safetensors") if key.endswith("bias"))
    with pytest.raises(WeightsError, match=wrong.rpartition("layers")[2].replace(".", r"\.")):
        build(with_tensors(name, tmp_path, **{wrong: torch.zeros(1001)}))


def test_what_could_run_code_never_reaches_the_library(tmp_path: Path) -> None:
    values = {"auto_map": {"AutoModel": "evil--code.Model"}, "quantization_config": {"quant_method": "gptq"}}
    codec = build(changed(PACKAGES["dac_44khz"], tmp_path, **values))
    assert not {"auto_map", "quantization_config"} & set(vars(codec.model.config))  # type: ignore[union-attr]
