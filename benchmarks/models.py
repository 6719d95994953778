"""What runs in workers: models of codecbay and of its peers, each built by its own loader, and called in its own way.

No function here imports what another one's environment lacks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.workers import Call

TEXT = "a calm song with a slow beat and a warm pad"  # 16 tokens
SEED = 0


# ------------------------------------------------------------------------------------------------- language models


def codecbay_lm(package: str, dtype: str = "float32", device: str = "cpu") -> Call:
    """Codes that are sampled under guidance, as ``MusicGen`` does by default."""
    import codecbay
    from codecbay.lm.conditioners import ConditioningAttributes

    model = codecbay.load(package, device=device, dtype=dtype)

    def run(batch: int, steps: int) -> Tensor:
        torch.manual_seed(SEED)
        conditions = [ConditioningAttributes({"description": TEXT})] * batch
        return _finished(model.lm.generate(conditions=conditions, max_gen_len=frames(steps)))

    return run


def audiocraft_lm(package: str, device: str = "cpu") -> Call:
    """The same by AudioCraft."""
    model = load_audiocraft_lm(package, device)
    attributes = importlib.import_module("audiocraft.modules.conditioners").ConditioningAttributes

    def run(batch: int, steps: int) -> Tensor:
        torch.manual_seed(SEED)
        conditions = [attributes(text={"description": TEXT}) for _ in range(batch)]
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):  # as its MusicGen does
            codes: Tensor = model.generate(conditions=conditions, max_gen_len=frames(steps))
        return _finished(codes)

    return run


def load_audiocraft_lm(package: str, device: str = "cpu") -> Any:
    """AudioCraft's language model; the text encoder lies in the package, and is not one that it knows by name."""
    peers.stand_in()
    t5 = importlib.import_module("audiocraft.modules.conditioners").T5Conditioner
    t5.MODELS.append("tiny-t5")
    t5.MODELS_DIMS["tiny-t5"] = 32
    before = os.getcwd()
    os.chdir(package)
    try:
        return importlib.import_module("audiocraft.models.loaders").load_lm_model(package, device=device)
    finally:
        os.chdir(before)


def transformers_lm(width: int, layers: int, heads: int, card: int, n_q: int, dtype: str, device: str = "cpu") -> Call:
    """The same by transformers: a model of these sizes with weights of its own, over a tiny codec."""
    config = transformers_class("MusicgenConfig")(
        text_encoder=transformers_class("T5Config")(
            vocab_size=105, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
        ),
        audio_encoder=transformers_class("EncodecConfig")(
            num_filters=2, hidden_size=16, codebook_size=card, sampling_rate=32_000, upsampling_ratios=[8, 5, 4, 4],
            target_bandwidths=[2.2], use_causal_conv=False,
        ),
        decoder=transformers_class("MusicgenDecoderConfig")(
            vocab_size=card, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * width,
            num_codebooks=n_q, pad_token_id=card, bos_token_id=card, dropout=0.0,
        ),
    )  # fmt: skip
    torch.manual_seed(SEED)
    with torch.device(device):  # where random weights of the large sizes take no minutes
        model = transformers_class("MusicgenForConditionalGeneration")(config).eval().to(getattr(torch, dtype))
    settings = {"do_sample": True, "top_k": 250, "guidance_scale": 3.0, "pad_token_id": card}

    def run(batch: int, steps: int) -> Tensor:
        torch.manual_seed(SEED)
        text = torch.randint(1, 105, (1, 16)).expand(batch, -1).to(device)
        audio: Tensor = model.generate(
            input_ids=text, attention_mask=torch.ones_like(text), decoder_start_token_id=card,
            max_new_tokens=steps, **settings,
        )  # fmt: skip
        return _finished(audio.float())

    return run


def frames(steps: int) -> int:
    """Frames of codes that so many steps give: the delay pattern takes three more."""
    return steps - 3


def codecbay_lm_steps(package: str, dtype: str, total: int) -> Call:
    """Seconds that a step takes near one place in a generation of ``total`` steps."""
    import codecbay
    from codecbay.lm.conditioners import ConditioningAttributes

    model = codecbay.load(package, device="cpu", dtype=dtype)
    conditions = [ConditioningAttributes({"description": TEXT})]

    class EnoughError(Exception):
        pass

    def run(start: int, count: int) -> dict[str, Any]:
        """Of ``count`` steps from ``start`` on; the frames before are a prompt."""
        torch.manual_seed(SEED)
        times: list[float] = []

        def tick(done: int, to_do: int) -> None:
            times.append(time.perf_counter())
            if len(times) == count:
                raise EnoughError

        prompt = torch.randint(model.lm.card, (1, model.lm.n_q, start)) if start else None
        with contextlib.suppress(EnoughError):
            model.lm.generate(prompt=prompt, conditions=conditions, max_gen_len=frames(total), callback=tick)
        return {"seconds": statistics.median(b - a for a, b in itertools.pairwise(times)), "steps": len(times)}

    return run


# --------------------------------------------------------------------------------------------------------- codecs


def codecbay_codec(source: str, dtype: str = "float32", device: str = "cpu") -> Call:
    """Codes of noise, and noise of codes."""
    import codecbay

    codec = codecbay.load_codec(source, device=device, dtype=dtype)
    return _both_ways(
        lambda wav: codec.encode(wav)[0], codec.decode, codec.sample_rate, codec.channels, codec.spec.cardinalities[0],
        codec.num_codebooks, codec.frame_size, device,
    )  # fmt: skip


def audiocraft_codec(source: str, device: str = "cpu") -> Call:
    """The same by AudioCraft's EnCodec."""
    peers.stand_in()
    codec = importlib.import_module("audiocraft.models.loaders").load_compression_model(source, device=device)
    return _both_ways(
        lambda wav: codec.encode(wav)[0], codec.decode, codec.sample_rate, codec.channels, codec.cardinality,
        codec.num_codebooks, codec.encoder.hop_length, device,
    )  # fmt: skip


def descript_codec(source: str, device: str = "cpu") -> Call:
    """The same by descript's DAC."""
    peers.stand_in()
    model = importlib.import_module("dac").DAC.load(source).eval().to(device)
    return _both_ways(
        lambda wav: model.encode(model.preprocess(wav, model.sample_rate))[1],
        lambda codes: model.decode(model.quantizer.from_codes(codes)[0]),
        model.sample_rate, 1, model.codebook_size, model.n_codebooks, model.hop_length, device,
    )  # fmt: skip


def transformers_codec(source: str, family: str, device: str = "cpu") -> Call:
    """The same by transformers, asked for as many codebooks as codecbay uses: all."""
    model = transformers_class(f"{family}Model").from_pretrained(source).eval().to(device)
    config = model.config
    rate: int = getattr(config, "sampling_rate", None) or config.sample_rate
    hop: int = getattr(config, "hop_length", None) or round(rate / config.frame_rate)
    most = {"bandwidth": config.target_bandwidths[-1]} if hasattr(config, "target_bandwidths") else {}
    codebooks = {"Dac": "n_codebooks"}.get(family, "num_quantizers")

    def encode(wav: Tensor) -> Tensor:
        codes: Tensor = model.encode(wav, **most).audio_codes
        return codes.reshape(len(wav), -1, codes.shape[-1])

    def decode(codes: Tensor) -> Tensor:
        audio: Tensor
        if family == "Encodec":
            audio = model.decode(codes[None], [None]).audio_values
        else:
            audio = model.decode(audio_codes=codes).audio_values
        return audio

    return _both_ways(
        encode, decode, rate, 1, config.codebook_size, getattr(config, codebooks), hop, device,
    )  # fmt: skip


def _both_ways(
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    sample_rate: int,
    channels: int,
    card: int,
    codebooks: int,
    frame_size: int,
    device: str,
) -> Call:
    @functools.cache
    def given(direction: str, batch: int, seconds: float) -> Tensor:
        torch.manual_seed(SEED)
        frames = math.ceil(seconds * sample_rate / frame_size)
        if direction == "encode":
            return 0.3 * torch.randn(batch, channels, frames * frame_size).to(device)
        return torch.randint(card, (batch, codebooks, frames)).to(device)

    @torch.no_grad()
    def run(direction: str, batch: int, seconds: float) -> Tensor:
        data = given(direction, batch, seconds)
        return _finished(encode(data) if direction == "encode" else decode(data).float())

    return run


# --------------------------------------------------------------------------------------------------------- pieces


def transformers_class(name: str) -> Any:
    """A class of transformers', which may import torchaudio for what is not needed here."""
    peers.stand_in()
    transformers = importlib.import_module("transformers")
    importlib.import_module("transformers.utils.logging").set_verbosity_error()
    return getattr(transformers, name)


def _finished(result: Tensor) -> Tensor:
    if result.is_cuda:
        torch.cuda.synchronize()
    return result
