"""The same text through two codecs, after a look at what would not fit.

python examples/swap_codec.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import codecbay
from codecbay.audio import write_audio

HERE = Path(__file__).parent


def main() -> None:
    """Check three codecs, and generate with the two that fit."""
    package = HERE / "tiny-musicgen"
    for codec in (None, HERE / "tiny-codec", "dac_44khz"):
        report = codecbay.check(package, codec)
        print(report)
        if not report.ok:
            continue
        model = codecbay.load(package, codec)
        model.set_generation_params(duration=2)
        torch.manual_seed(0)
        audio = model.generate(["warm synth pad, 90 bpm"])
        write_audio(f"{'own' if codec is None else 'swapped'}.wav", audio[0], model.sample_rate)


if __name__ == "__main__":
    main()
