"""Steps a second of decoding with classifier-free guidance, beside transformers' MusicGen, in one run.

    python benchmarks/lm_decode.py --size small --steps 64 --rounds 3 --json results.json

Both have random weights of the same size, decode greedily from the same conditions, and take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from codecbay.lm.conditioners import Condition, ConditioningProvider
from codecbay.lm.config import FuserConfig, LMConfig, PatternConfig, TransformerConfig
from codecbay.lm.model import LMModel
from codecbay.lm.patterns import get_pattern
from codecbay.lm.transformer import DecodingState

SIZES = {"tiny": (256, 4, 4), "small": (1024, 24, 16)}  # width, layers, heads
N_Q, CARD, TEXT = 4, 2048, 16


def own(dim: int, layers: int, heads: int, rows: int) -> Callable[[int], None]:
    transformer = TransformerConfig(
        dim=dim, num_heads=heads, num_layers=layers, dim_feedforward=4 * dim, norm_first=True, activation="gelu",
        bias_ff=False, bias_attn=False, cross_attention=True, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    config = LMConfig(
        kind="musicgen", n_q=N_Q, card=CARD, transformer=transformer, pattern=PatternConfig("delay"),
        fuser=FuserConfig({"cross": ("description",)}), max_duration=30.0, bias_proj=False,
    )  # fmt: skip
    model = LMModel(config, ConditioningProvider({})).eval()
    conditions: dict[str, Condition] = {"description": (torch.randn(rows, TEXT, dim), torch.ones(rows, TEXT))}

    def run(steps: int) -> None:
        state = DecodingState(transformer, rows, steps, torch.device("cpu"), torch.float32)
        token = torch.full((rows, N_Q, 1), CARD)
        get_pattern(config.pattern, N_Q, steps)
        for _ in range(steps):
            token = model(token, condition_tensors=conditions, state=state, last_only=True).argmax(-1)

    return run


def peer(dim: int, layers: int, heads: int, rows: int) -> Callable[[int], None]:
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    config = MusicgenDecoderConfig(
        vocab_size=CARD, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * dim,
        num_codebooks=N_Q, dropout=0.0,
    )  # fmt: skip
    model = MusicgenForCausalLM(config).eval()
    text = torch.randn(rows, TEXT, dim)

    def run(steps: int) -> None:
        tokens, cache = torch.full((rows * N_Q, 1), CARD), None
        for _ in range(steps):
            out = model(tokens, encoder_hidden_states=text, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            tokens = out.logits[:, -1:].argmax(-1)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()

    rows = 2 * args.batch  # with and without conditions
    columns = {"codecbay": own(*SIZES[args.size], rows), "transformers": peer(*SIZES[args.size], rows)}
    seconds: dict[str, list[float]] = {name: [] for name in columns}
    with torch.no_grad():
        for run in columns.values():
            run(4)  # warm up
        for _ in range(args.rounds):
            for name, run in columns.items():
                start = time.perf_counter()
                run(args.steps)
                seconds[name].append(time.perf_counter() - start)

    base = statistics.median(seconds["transformers"])
    figures = {
        name: {
            "steps_per_second": args.steps / statistics.median(values),
            "slowest": args.steps / max(values),
            "fastest": args.steps / min(values),
            "ratio_to_transformers": base / statistics.median(values),
        }
        for name, values in seconds.items()
    }
    print(f"{args.size}, batch {args.batch}, {args.steps} steps, {torch.get_num_threads()} threads, float32")
    for name, row in figures.items():
        print(
            f"{name:<13}{row['steps_per_second']:8.2f} steps/s "
            f"({row['slowest']:.2f} to {row['fastest']:.2f}), {row['ratio_to_transformers']:.2f} x transformers"
        )
    if args.json:
        with open(args.json, "w") as stream:
            json.dump({"settings": vars(args), "torch": torch.__version__, "figures": figures}, stream, indent=2)


if __name__ == "__main__":
    main()
