"""Building language models: what published packages hold beside what their configuration describes."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import codecbay
from codecbay.errors import ConfigError, UnresolvedReferenceError, WeightsError
from codecbay.lm.conditioners import ConditioningProvider, LUTConditioner
from codecbay.lm.text import NoopTokenizer


def with_window(package: Path, out: Path, window: torch.Tensor) -> Path:
    """The melody package with the spectrogram's window in its state, as torchaudio's Spectrogram puts it there."""
    shutil.copytree(package, out)
    content = torch.load(out / "state_dict.bin", weights_only=True)
    content["best_state"]["condition_provider.conditioners.self_wav.chroma.spec.window"] = window
    torch.save(content, out / "state_dict.bin")
    return out


@pytest.mark.filterwarnings("ignore:The melody is taken from the whole mix")
def test_a_stored_spectrogram_window_is_used(packages: Path, text_encoder: Path, tmp_path: Path) -> None:
    package = with_window(packages / "musicgen-melody", tmp_path / "p", torch.hann_window(1 << 14))
    tokens = []
    for source in (packages / "musicgen-melody", package):
        model = codecbay.load(source, text_encoder=text_encoder, device="cpu")
        model.set_generation_params(use_sampling=False, duration=0.3)
        assert isinstance(model, codecbay.MusicGen)
        melody = torch.sin(torch.arange(48000) * 0.1)[None]
        tokens.append(model.generate_with_chroma(["piano"], melody, 32000, return_tokens=True)[1])
    assert torch.equal(*tokens)


def test_a_stored_window_of_another_length_is_refused(packages: Path, text_encoder: Path, tmp_path: Path) -> None:
    package = with_window(packages / "musicgen-melody", tmp_path / "p", torch.hann_window(7))
    with pytest.raises(WeightsError, match=r"chroma\.spec\.window"):
        codecbay.load(package, text_encoder=text_encoder, device="cpu")


EVIL = "raise SystemExit('the code of a text encoder was run')"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
    ],
)
def test_the_code_of_a_text_encoder_is_not_run(
    packages: Path,
    text_encoder: Path,
    tmp_path: Path,
    file: str,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = shutil.copytree(text_encoder, tmp_path / "t5")
    settings = json.loads((encoder / file).read_text())
    (encoder / file).write_text(json.dumps(settings | changes))
    (encoder / "evil.py").write_text(EVIL)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    with contextlib.suppress(UnresolvedReferenceError):
        codecbay.load(packages / "musicgen-mono", text_encoder=encoder, device="cpu")


@pytest.mark.parametrize("name", ["training", "items", "_modules"])
def test_conditioners_cannot_have_the_names_of_a_module(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot have this name"):
        ConditioningProvider({name: LUTConditioner(2, 2, 2, NoopTokenizer(2))})


def test_training_does_not_touch_the_package(packages: Path, text_encoder: Path, tmp_path: Path) -> None:
    package = shutil.copytree(packages / "musicgen-mono", tmp_path / "p")
    model = codecbay.load(package, text_encoder=text_encoder, device="cpu")
    model.lm.train()
    (package / "state_dict.bin").write_bytes(b"")  # as saving over it does, before it writes
    state = model.lm.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
