"""``codecbay generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from codecbay.cli.common import SOUNDS, check_output, device_option, json_option, num_codebooks_option, print_json
from codecbay.errors import GenerationError


@click.command()
@click.argument("package")
@click.argument("texts", nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out.wav"), show_default=True,
              help="The sound file; of several, OUTPUT-1, OUTPUT-2 …")  # fmt: skip
@click.option("--texts-from", type=click.Path(path_type=Path), help="A file with one description a line.")
@click.option("--prompt", type=click.Path(path_type=Path), help="A sound file to continue.")
@click.option("--melody", type=click.Path(path_type=Path), help="A sound file whose melody to follow.")
@click.option("--duration", type=float, default=10.0, show_default=True, help="Seconds, the prompt included.")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    help="The same command with the same seed gives the same files.",
)
@click.option("--greedy", is_flag=True, help="Take the likeliest token instead of drawing one.")
@click.option("--top-k", type=int, default=250, show_default=True, help="Draw among so many tokens; 0 for all.")
@click.option("--top-p", type=float, default=0.0, show_default=True, help="Draw among tokens of this probability.")
@click.option("--temperature", type=float, default=1.0, show_default=True)
@click.option("--cfg-coef", type=float, default=3.0, show_default=True, help="Strength of guidance by the text.")
@click.option("--two-step-cfg", is_flag=True, help="Guide in two runs of the model instead of one.")
@click.option("--extend-stride", type=float, help="Seconds to advance by, beyond what the model does at once.")
@click.option("--codec", help="Another codec than the package's own: a package, or a published codec's name.")
@num_codebooks_option
@click.option("--text-encoder", help="The T5 encoder: a directory, or a name on the Hugging Face Hub.")
@device_option
@click.option("--dtype", type=click.Choice(["auto", "float32", "float16", "bfloat16", "int8"]), default="auto")
@json_option
def generate(
    package: str,
    texts: tuple[str, ...],
    output: Path,
    texts_from: Path | None,
    prompt: Path | None,
    melody: Path | None,
    seed: int | None,
    greedy: bool,
    codec: str | None,
    num_codebooks: int | None,
    text_encoder: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    **params: Any,
) -> None:
    """Generate audio with the model in PACKAGE.

    Each of TEXTS describes one sound file. Without any, the audio is generated unconditionally.

    \b
    codecbay generate ./musicgen-small "warm synth pad, 90 bpm" -o pad.wav
    codecbay generate ./musicgen-melody "string quartet" --melody tune.wav
    codecbay generate ./musicgen-small --prompt intro.wav --duration 20
    """
    descriptions: list[str | None] = [*texts, *_read_texts(texts_from)] or [None]
    outputs = _outputs(output, len(descriptions))

    import torch

    from codecbay.audio import read_audio, write_audio
    from codecbay.factory import load
    from codecbay.generation import MusicGen, check_duration
    from codecbay.lm.sampling import Sampling

    if prompt is not None and melody is not None:
        raise click.UsageError("Give --prompt or --melody, not both.")
    # What makes no sense is refused before weights are read.
    check_duration(params["duration"])
    Sampling(not greedy, params["temperature"], params["top_k"], params["top_p"])
    sounds = {path: read_audio(path) for path in (prompt, melody) if path is not None}
    model = load(
        package,
        codec,
        num_codebooks=num_codebooks,
        text_encoder=text_encoder,
        device=device,
        dtype=dtype,
    )
    model.set_generation_params(use_sampling=not greedy, **params)
    seed = torch.seed() % 2**63 if seed is None else seed
    torch.manual_seed(seed)
    count = len(descriptions)
    if prompt is not None:
        wav, rate = sounds[prompt]
        audio = model.generate_continuation(wav[None].expand(count, -1, -1), rate, descriptions, progress=True)
    elif melody is not None:
        if not isinstance(model, MusicGen):
            raise GenerationError(f"The model '{package}' takes no melody.")
        wav, rate = sounds[melody]
        audio = model.generate_with_chroma(descriptions, [wav] * count, rate, progress=True)
    else:
        audio = model.generate(descriptions, progress=True)
    files = []
    for path, text, wav in zip(outputs, descriptions, audio, strict=True):
        write_audio(path, wav.float(), model.sample_rate)
        seconds = wav.shape[-1] / model.sample_rate
        files.append({"file": str(path), "text": text, "seconds": seconds, "sample_rate": model.sample_rate})
        if not as_json:
            click.echo(f"{path}  {seconds:g} s at {model.sample_rate} Hz, seed {seed}")
    if as_json:
        print_json({"package": package, "seed": seed, "files": files})


def _read_texts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GenerationError(f"{path}: the descriptions cannot be read: {error}") from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise GenerationError(f"{path}: the file holds no descriptions.")
    return texts


def _outputs(output: Path, count: int) -> list[Path]:
    """The files to write."""
    check_output(output, *SOUNDS)
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{i}") for i in range(1, count + 1)]
