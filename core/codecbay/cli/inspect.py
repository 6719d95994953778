"""``codecbay info`` and ``codecbay check``: from headers alone."""

from __future__ import annotations

import sys
from typing import Any

import click

from codecbay import sources
from codecbay.cli.common import json_option, num_codebooks_option, print_facts, print_json
from codecbay.errors import CodecbayError, PackageError
from codecbay.factory import check as check_pair
from codecbay.factory import resolve_codec
from codecbay.lm.config import read_lm_config
from codecbay.package import PackageFile, read_package_file
from codecbay.package.checkpoint import read_checkpoint
from codecbay.remote import AnyPath


@click.command()
@click.argument("package")
@json_option
def info(package: str, as_json: bool) -> None:
    """Say what PACKAGE (a directory or a file) is and what it declares.

    Exit code 0 if it can be used, 1 if not.
    """
    files = [_facts(path, part) for path, part in _files(package)]
    if as_json:
        print_json({"package": package, "files": files})
    else:
        for i, facts in enumerate(files):
            if i:
                click.echo()
            print_facts(facts)
    sys.exit(any("problem" in facts for facts in files))


def _files(package: str) -> list[tuple[AnyPath, str | None]]:
    """The files of a package, with the part, of one that holds several."""
    path = sources.locate(package)
    if path is None and sources.is_hub_id(package):
        path = sources.hub_path(package)
    if path is None:
        raise sources.missing(package)
    if sources.is_transformers_codec(path):
        return [(path, None)]
    names = (sources.LM_TWIN, sources.LM_FILE, sources.CODEC_TWIN, sources.CODEC_FILE, sources.ALL_IN_ONE)
    files = sources.find_files(path, *names)
    if files[0].suffix != ".pt":
        return [(file, None) for file in files]
    return [(files[0], part) for part in (sources.LM_FILE, sources.CODEC_FILE)]


def _facts(path: AnyPath, part: str | None) -> dict[str, Any]:
    try:
        file = read_package_file(path, part=part)
    except PackageError:
        checkpoint = _checkpoint(path)
        if checkpoint is None:
            raise
        return checkpoint
    header = file.header
    if str(header.config.get("model_type") if header.layout == "transformers" else "").startswith("musicgen"):
        return {
            "file": str(path),
            "is": "a MusicGen of the transformers library",
            "problem": f"it has to be converted: codecbay convert {path} OUT --format audiocraft",
        }
    facts: dict[str, Any] = {
        "file": str(path),
        "is": {"lm": "language model", "codec": "codec", "reference": "reference to a codec"}[header.role],
        "part": header.part,
        "container": header.container,
        "codec_fingerprint": header.codec_fingerprint,
        "exported_by": header.version,
    }
    if header.role == "reference":
        facts["refers_to"] = header.reference
    else:
        facts["tensors"] = len(header.tensors)
        facts["megabytes"] = round(header.num_bytes / 1e6, 3)
        facts["dtypes"] = sorted({tensor.dtype for tensor in header.tensors.values()})
    return facts | _declared(file)


def _checkpoint(path: AnyPath) -> dict[str, Any] | None:
    """What a training checkpoint is; ``None`` where the file is none."""
    try:
        header = read_checkpoint(path)
    except PackageError:
        return None
    return {
        "file": str(path),
        "is": f"training checkpoint of a {'language model' if header.role == 'lm' else 'codec'}",
        "tensors": len(header.tensors),
        "megabytes": round(header.num_bytes / 1e6, 3),
        "problem": f"it has to be exported: codecbay export {header.role} {path} OUT",
    }


def _declared(file: PackageFile) -> dict[str, Any]:
    try:
        if file.header.role != "lm":
            codec = resolve_codec(file)
            return {"backend": codec.backend.name if codec.backend else None, **codec.spec.to_dict()}
        config = read_lm_config(file.header)
    except CodecbayError as error:
        return {"problem": str(error)}
    return {
        **config.spec.to_dict(),
        "pattern": config.pattern.name,
        "conditioners": {name: conditioner.model for name, conditioner in config.conditioners.items()},
        "dim": config.transformer.dim,
        "num_layers": config.transformer.num_layers,
        "num_heads": config.transformer.num_heads,
    }


@click.command()
@click.argument("package")
@click.option("--codec", help="Another codec than the package's own: a package, or a published codec's name.")
@num_codebooks_option
@json_option
def check(package: str, codec: str | None, num_codebooks: int | None, as_json: bool) -> None:
    """Say whether a codec fits under the language model of PACKAGE.

    Exit code 0 if it does, 1 if not.
    """
    report = check_pair(package, codec, num_codebooks)
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else 1)
