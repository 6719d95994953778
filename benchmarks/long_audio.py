"""A recording of 10 minutes, encoded and decoded: what memory it takes, and whether a second of it takes longer."""

from __future__ import annotations

from typing import Any

from benchmarks import packages
from benchmarks.measure import Bench, Figure
from benchmarks.workers import Call

PEERS = ()


def run(bench: Bench) -> list[Figure]:
    short, long = (1, 40) if bench.tiny else (10, 600)
    figures = []
    for name, write in {"EnCodec 32 kHz": packages.encodec, "DAC 44 kHz": packages.dac}.items():
        for direction in ("encode", "decode"):
            worker = bench.own("long_audio:recording", source=str(write(bench.directory, bench.size)))
            before = worker.anonymous_bytes()  # the weights, and the interpreter with torch
            worker(direction=direction, seconds=short)  # lays the weights out
            once = Figure(f"{name}, {direction}", f"{short} s")
            whole = Figure(f"{name}, {direction}", f"{long} s")
            turns = [(once, short)] * bench.rounds
            for figure, seconds in (*turns, (whole, long), *turns):
                figure.result, peak = worker.watch(direction=direction, seconds=seconds)
                figure.seconds.append(figure.result["seconds"])
                above = (peak - before - figure.result["audio bytes"]) / 1e6
                figure.facts |= {"ms a second": 1000 * figure.median / seconds, "MB above weights and audio": above}
            whole.facts["over the short one"] = whole.facts["ms a second"] / once.facts["ms a second"]
            figures += [once, whole]
            worker.close()
    return figures


def recording(source: str) -> Call:
    """Runs in a worker: ``encode_audio`` of noise, and ``decode_audio`` of random codes, float32."""
    import torch

    import codecbay
    from codecbay.codec import EncodedAudio

    codec = codecbay.load_codec(source, device="cpu")

    def run(direction: str, seconds: int) -> dict[str, Any]:
        torch.manual_seed(0)
        samples = seconds * codec.sample_rate
        size = 4 * samples * codec.channels
        if direction == "encode":
            wav = torch.randn(codec.channels, samples).mul_(0.3)
            codes = codec.encode_audio(wav, codec.sample_rate).codes
            return {"shape": list(codes.shape), "audio bytes": size}
        codes = torch.randint(codec.cardinality, (1, codec.num_codebooks, codec.frames_of(samples)))
        encoded = EncodedAudio(
            codes=codes, scale=None, num_samples=samples, sample_rate=codec.sample_rate, channels=codec.channels,
            codec=codec.name, fingerprint=codec.fingerprint(),
        )  # fmt: skip
        return {"shape": list(codec.decode_audio(encoded)[0].shape), "audio bytes": size}

    return run
