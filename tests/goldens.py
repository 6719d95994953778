"""Golden packages: what AudioCraft computed from them, and the same computed here.

A golden is a tensor in ``golden.safetensors``; its key says what it is (see ``fixtures/README.md``).
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

import codecbay
from codecbay.audio import convert_audio
from codecbay.codec import Codec
from codecbay.generation import MusicGen
from codecbay.lm.conditioners import ConditioningAttributes

FIXTURES = Path(__file__).parent / "fixtures"
SHARED_CODEC = FIXTURES / "options" / "shared-codec"
_INPUTS = ("wav", "lm_codes", "cont_prompt", "melody_wav")


def packages(folder: str) -> list[Path]:
    """The packages of a folder of fixtures that AudioCraft computed something from."""
    return sorted(path.parent for path in (FIXTURES / folder).glob("*/golden.safetensors"))


def keys(directory: Path) -> list[str]:
    """What AudioCraft computed from a package."""
    with safe_open(directory / "golden.safetensors", "pt") as file:
        return [key for key in file.keys() if not key.startswith(_INPUTS)]  # noqa: SIM118


def tolerance(key: str) -> float:
    """How far a tensor may be from AudioCraft's; whole numbers and masks may not."""
    return 1e-3 if key == "lm_logits" else 1e-4


class Golden:
    """A package, with what AudioCraft computed from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.facts: dict[str, Any] = json.loads((directory / "golden.json").read_text())
        with safe_open(directory / "golden.safetensors", "pt") as file:
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    @property
    def has_codec(self) -> bool:
        """Whether it holds a codec of its own."""
        return (self.directory / "compression_state_dict.bin").exists()

    @cached_property
    def codec(self) -> Codec:
        """Its codec alone."""
        return codecbay.load_codec(self.directory, device="cpu")

    @cached_property
    def model(self) -> Any:
        """Its model, over the shared codec where it has none of its own."""
        codec = None if self.has_codec else SHARED_CODEC
        model = codecbay.load(self.directory, codec, text_encoder=FIXTURES / "tiny-t5", device="cpu")
        conditioners: Any = model.lm.condition_provider.conditioners
        if "self_wav" in conditioners:  # AudioCraft took the melody from the whole mix, too
            conditioners["self_wav"].separate = lambda wav, rate, target: convert_audio(wav, rate, target, 1)
        return model

    @property
    def prompts(self) -> list[str | None]:
        """The descriptions."""
        prompts: list[str | None] = self.facts["prompts"]
        return prompts

    def compute(self, key: str) -> Tensor:
        """The tensor of that key, computed here from AudioCraft's inputs."""
        if key.endswith("_n_q_2"):
            self.codec.set_num_codebooks(2)
            try:
                return self._codec_result(key.removesuffix("_n_q_2"), codes=self.tensors["codes_n_q_2"])
            finally:
                self.codec.set_num_codebooks(self.codec.total_codebooks)
        if key.startswith(("codes", "scale", "decoded", "latent")):
            return self._codec_result(key)
        if key.startswith("lm_"):
            return self._prediction(key)
        name, _, kind = key.rpartition("_")
        return self._generated[name][kind == "tokens"]

    def _codec_result(self, key: str, codes: Tensor | None = None) -> Tensor:
        what, _, signal = key.partition("_")
        suffix = f"_{signal}" if signal else ""
        codes = self.tensors[f"codes{suffix}"] if codes is None else codes
        match what:
            case "codes":
                return self.codec.encode(self.tensors[f"wav{suffix}"])[0]
            case "scale":
                scale = self.codec.encode(self.tensors[f"wav{suffix}"])[1]
                assert scale is not None
                return scale
            case "decoded":
                return self.codec.decode(codes, self.tensors.get(f"scale{suffix}"))
            case "latent":
                return self.codec.decode_latent(codes)
        raise KeyError(key)

    @torch.no_grad()
    def _prediction(self, key: str) -> Tensor:
        codes = self.tensors["lm_codes"]
        extra: dict[str, list[str | None]] = self.facts.get("extra_text", {})
        if extra:  # the public method knows the description alone
            attributes = [
                ConditioningAttributes({"description": prompt, **{name: texts[i] for name, texts in extra.items()}})
                for i, prompt in enumerate(self.prompts)
            ]
            output = self.model.lm.compute_predictions(codes, attributes)
        else:
            output = self.model.compute_predictions(codes, self.prompts)
        logits: Tensor = output.logits
        mask: Tensor = output.mask
        return mask if key == "lm_mask" else logits.masked_fill(~mask[..., None], 0.0)

    @cached_property
    def _generated(self) -> _Generated:
        return _Generated(self)


class _Generated(dict[str, tuple[Tensor, Tensor]]):
    """Audio and tokens by the name of what was generated, each generated when it is first asked for."""

    def __init__(self, golden: Golden) -> None:
        super().__init__()
        self.golden = golden

    def __missing__(self, name: str) -> tuple[Tensor, Tensor]:
        golden, model = self.golden, self.golden.model
        facts, tensors = golden.facts, golden.tensors
        model.set_generation_params(**self._parameters(name))
        torch.manual_seed(facts["sampling"]["seed"])
        what = "gen" if name.startswith("sampled_") else name.replace("_long", "")
        rate = facts["model_sample_rate"]
        match what:
            case "gen" | "long":
                result = model.generate(golden.prompts, return_tokens=True)
            case "uncond":
                result = model.generate_unconditional(2, return_tokens=True)
            case "cont":
                rate = facts.get("cont_prompt_sample_rate", rate)
                result = model.generate_continuation(tensors["cont_prompt"], rate, golden.prompts, return_tokens=True)
            case "melody":
                assert isinstance(model, MusicGen)
                rate = facts.get("melody_sample_rate", rate)
                melodies = tensors.get(
                    "melody_wav", [tensors.get(f"melody_wav_{i}") for i in range(len(golden.prompts))]
                )
                result = model.generate_with_chroma(golden.prompts, melodies, rate, return_tokens=True)
            case _:
                raise KeyError(name)
        self[name] = result
        return self[name]

    def _parameters(self, name: str) -> dict[str, Any]:
        facts, sampling = self.golden.facts, self.golden.facts["sampling"]
        parameters = {key: facts[key] for key in ("duration", "cfg_coef", "extend_stride")}
        parameters |= {"use_sampling": False, "two_step_cfg": facts.get("two_step_cfg", False)}
        if "long" in name:
            parameters["duration"] = facts["long_duration"]
        if name.startswith("sampled_"):
            top_k = {"top_k": sampling["top_k"], "temperature": sampling["temperature"]}
            top_p = {"top_k": sampling["top_k"], "top_p": sampling["top_p"]}
            settings = {"sampled_top_k_tokens": top_k, "sampled_top_p_tokens": top_p, **facts.get("sampling_extra", {})}
            parameters |= {"use_sampling": True, **settings[f"{name}_tokens"]}
        return parameters


@lru_cache(maxsize=4)
def open_golden(directory: Path) -> Golden:
    """A golden package, its models kept for the tests that follow."""
    return Golden(directory)
