"""``codecbay encode`` and ``codecbay decode``: sound files to files of codes and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from codecbay.cli.common import (
    SOUNDS,
    check_output,
    device_option,
    json_option,
    num_codebooks_option,
    print_facts,
    print_json,
)
from codecbay.errors import SourceError
from codecbay.plugins import named_failure


@click.command()
@click.argument("sound", type=click.Path(path_type=Path))
@click.option("-c", "--codec", required=True, help="A codec's package, or a published codec's name.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="By default SOUND with the ending .codes.")
@num_codebooks_option
@device_option
@json_option
def encode(
    sound: Path, codec: str, output: Path | None, num_codebooks: int | None, device: str | None, as_json: bool
) -> None:
    """Encode SOUND (wav, flac, ogg, mp3 …) of any sample rate, channels and length."""
    path = check_output(output or sound.with_suffix(".codes"), ".codes")
    from codecbay.audio import read_audio
    from codecbay.factory import load_codec

    wav, sample_rate = read_audio(sound)
    model = load_codec(codec, device=device, num_codebooks=num_codebooks)
    with named_failure(f"The codec '{model.name}' failed in encode"):
        encoded = model.encode_audio(wav, sample_rate, progress=True)
    encoded.save(path)
    _print(_facts(path, encoded, model.name), as_json)


@click.command()
@click.argument("codes", type=click.Path(path_type=Path))
@click.option("-c", "--codec", help="The codec that made the codes; by default the one they name.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="By default CODES with the ending .wav.")
@device_option
@json_option
def decode(codes: Path, codec: str | None, output: Path | None, device: str | None, as_json: bool) -> None:
    """Decode CODES, with the codec that made them and no other, to the sample rate of the recording."""
    path = check_output(output or codes.with_suffix(".wav"), *SOUNDS)
    from codecbay.audio import write_audio
    from codecbay.codec import EncodedAudio
    from codecbay.factory import load_codec

    encoded = EncodedAudio.load(codes)
    try:
        model = load_codec(codec or encoded.codec, device=device)
    except SourceError as error:
        raise error if codec else SourceError(f"{error} Name the codec that made the codes with --codec.") from None
    with named_failure(f"The codec '{model.name}' failed in decode"):
        wav, sample_rate = model.decode_audio(encoded, progress=True)
    write_audio(path, wav[0], sample_rate)
    _print(_facts(path, encoded, model.name), as_json)


def _facts(path: Path, encoded: Any, codec: str) -> dict[str, Any]:
    _, codebooks, frames = encoded.codes.shape
    return {
        "file": str(path),
        "codec": codec,
        "fingerprint": encoded.fingerprint,
        "codebooks": codebooks,
        "frames": frames,
        "seconds": encoded.num_samples / encoded.sample_rate,
        "sample_rate": encoded.sample_rate,
        "channels": encoded.channels,
    }


def _print(facts: dict[str, Any], as_json: bool) -> None:
    (print_json if as_json else print_facts)(facts)
