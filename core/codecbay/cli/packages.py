"""``codecbay download``, ``export``, ``convert`` and ``push``: packages in, and packages out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from codecbay.cli.common import json_option, print_json

force_option = click.option("--force", is_flag=True, help="Take the place of what is there.")
_FORMATS = ("safetensors", "audiocraft", "transformers")


@click.command()
@click.argument("package")
@click.option("--codec", help="Another codec than the package's own, to fetch too.")
@click.option("--text-encoder", help="The T5 encoder: a directory, or a name on the Hugging Face Hub.")
@click.option("--revision", help="A branch, a tag or a commit of the package's repository.")
@json_option
def download(package: str, codec: str | None, text_encoder: str | None, revision: str | None, as_json: bool) -> None:
    """Fetch PACKAGE, its codec and its text encoder into the cache, so that it loads without a network."""
    from codecbay.factory import download as fetch

    files = [str(path) for path in fetch(package, codec, text_encoder=text_encoder, revision=revision)]
    if as_json:
        print_json({"package": package, "files": files})
    else:
        click.echo("\n".join(files))


@click.group()
def export() -> None:
    """Make a package of a training checkpoint of AudioCraft."""


@export.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path())
@click.option("--codec", help="The codec that the model was trained on; by default the one beside OUT.")
@force_option
@json_option
def lm(checkpoint: Path, out: str, codec: str | None, force: bool, as_json: bool) -> None:
    """Write the best language model of CHECKPOINT to OUT, a file or a directory."""
    from codecbay.export import export_lm

    _said(export_lm(checkpoint, out, codec=codec, overwrite=force), as_json)


@export.command()
@click.argument("source")
@click.argument("out", type=click.Path())
@force_option
@json_option
def codec(source: str, out: str, force: bool, as_json: bool) -> None:
    """Write the codec of SOURCE to OUT, a file or a directory.

    SOURCE is a training checkpoint (.th), a package, or the name of a published codec, which becomes a reference.
    """
    from codecbay.export import export_codec, export_pretrained_codec

    write: Any = export_codec if Path(source).suffix == ".th" else export_pretrained_codec
    _said(write(source, out, overwrite=force), as_json)


@click.command()
@click.argument("package")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", type=click.Choice(_FORMATS), default="safetensors", show_default=True)
@click.option("--codec", help="For transformers: the codec, where the package only refers to one.")
@click.option("--text-encoder", help="For transformers: the directory of the T5 encoder.")
@force_option
@json_option
def convert(
    package: str, out: Path, format: str, codec: str | None, text_encoder: str | None, force: bool, as_json: bool
) -> None:
    """Write PACKAGE in another layout to OUT, a directory.

    PACKAGE may be a directory of the transformers library with a MusicGen in it.
    """
    from codecbay.convert import convert_package, from_transformers, is_transformers_model, to_transformers

    if format == "transformers":
        written = to_transformers(package, out, text_encoder=text_encoder, codec=codec, overwrite=force)
    elif is_transformers_model(package):
        written = from_transformers(package, out, overwrite=force)
    else:
        written = convert_package(package, out, format=format, overwrite=force)
    _said(written, as_json)


@click.command()
@click.argument("package")
@click.argument("repository")
@click.option("--private", is_flag=True, help="Keep the repository private, if it is made now.")
@click.option("--licence", help="Of the weights, for the model card.")
@click.option("--format", type=click.Choice(_FORMATS[:2]), default="safetensors", show_default=True)
@json_option
def push(package: str, repository: str, private: bool, licence: str | None, format: str, as_json: bool) -> None:
    """Share PACKAGE on the Hugging Face Hub as REPOSITORY, owner/name, with a model card."""
    from codecbay.convert import push_package

    address = push_package(package, repository, private=private, licence=licence, format=format)
    if as_json:
        print_json({"repository": repository, "address": address})
    else:
        click.echo(address)


def _said(path: Path, as_json: bool) -> None:
    files = sorted(str(file) for file in path.rglob("*") if file.is_file()) if path.is_dir() else [str(path)]
    if as_json:
        print_json({"out": str(path), "files": files})
    else:
        click.echo("\n".join(files))
