"""What fewer bits cost: language model and codecs in bfloat16 and int8 against themselves in float32.

The language model is led over a long sequence of random tokens, step by step as it generates, guidance included. The
weights are random, with channels of very different size; a trained model's logits are more peaked, so that agreement
is higher there.
"""

from __future__ import annotations

from typing import Any

from benchmarks import packages
from benchmarks.measure import Bench, Facts, Figure
from benchmarks.workers import Call

PEERS = ()


def run(bench: Bench) -> list[Figure]:
    package = str(packages.musicgen(bench.directory, bench.size))
    figures = []
    for batch, steps in ((1, 32), (2, 16)) if bench.tiny else ((1, 750), (4, 200)):
        for dtype in ("bfloat16", "int8"):
            worker = bench.own("quality:lm", package=package, dtype=dtype, batch=batch, steps=steps)
            name = f"language model, batch {batch}, {steps} steps"
            figures.append(Figure(name, dtype, facts=worker()["facts"]))
            worker.close()
    for name, write in {"EnCodec 32 kHz": packages.encodec, "DAC 44 kHz": packages.dac}.items():
        source, seconds = str(write(bench.directory, bench.size)), 1 if bench.tiny else 10
        worker = bench.own("quality:codec", source=source, dtype="bfloat16", seconds=seconds)
        figures.append(Figure(f"{name}, {seconds} s", "bfloat16", facts=worker()["facts"]))
        worker.close()
    return figures


def lm(package: str, dtype: str, steps: int, batch: int = 1, device: str = "cpu") -> Call:
    """Runs in a worker: logits that a sequence of random tokens leads to, here and on the CPU in float32."""

    def run() -> dict[str, Facts]:
        expected = _logits(package, "float32", steps, batch, "cpu").double()
        found = _logits(package, dtype, steps, batch, device).double()
        log_p, log_q = expected.log_softmax(-1), found.log_softmax(-1)
        return {
            "facts": {
                "relative error of logits": float((found - expected).norm() / expected.norm()),
                "top-1 agreement": f"{float((found.argmax(-1) == expected.argmax(-1)).double().mean()):.2%}",
                "KL to float32, nats": float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
                "entropy, nats": float(-(log_p.exp() * log_p).sum(-1).mean()),
            }
        }

    return run


def _logits(package: str, dtype: str, steps: int, batch: int, device: str) -> Any:
    """Guided logits ``[steps, B, K, card]`` of every step, as sampling sees them."""
    import torch
    from torch import Tensor

    import codecbay
    from benchmarks.models import TEXT, frames
    from codecbay.lm.conditioners import ConditioningAttributes
    from codecbay.lm.sampling import Sampling

    tokens = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []

    class Led(Sampling):
        def __call__(self, logits: Tensor) -> Tensor:
            seen.append(logits.cpu().clone())
            return torch.randint(logits.shape[-1], logits.shape[:-1], generator=tokens).to(logits.device)

    model = codecbay.load(package, device=device, dtype=dtype)
    conditions = [ConditioningAttributes({"description": TEXT})] * batch
    model.lm.generate(conditions=conditions, max_gen_len=frames(steps), sampling=Led())
    return torch.stack(seen)


def codec(source: str, dtype: str, seconds: int, device: str = "cpu") -> Call:
    """Runs in a worker: codes of noise and audio of codes, here and on the CPU in float32."""
    import torch

    import codecbay

    @torch.no_grad()
    def run() -> dict[str, Facts]:
        torch.manual_seed(0)
        exact = codecbay.load_codec(source, device="cpu")
        other = codecbay.load_codec(source, device=device, dtype=dtype)
        wav = 0.3 * torch.randn(1, exact.channels, seconds * exact.sample_rate)
        codes, scale = exact.encode(wav)
        equal = (other.encode(wav.to(device))[0].cpu() == codes).double()
        audio = exact.decode(codes, scale).double()
        error = other.decode(codes.to(device), scale).cpu().double() - audio
        return {
            "facts": {
                "equal codes": f"{float(equal.mean()):.2%}",
                "of the first codebook": f"{float(equal[:, 0].mean()):.2%}",
                "SNR of decoded audio, dB": float(10 * torch.log10(audio.square().mean() / error.square().mean())),
            }
        }

    return run
