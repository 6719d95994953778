"""The model card of a package that is shared: https://huggingface.co/docs/hub/model-cards."""

from __future__ import annotations

from collections.abc import Mapping

from codecbay.package.writing import Contents

_KINDS = {"state_dict": "language model", "compression_state_dict": "codec"}


def model_card(parts: Mapping[str, Contents], *, name: str, licence: str | None, origin: str) -> str:
    """The text of ``README.md``: licence, what the check compares, and where the weights come from.

    Args:
        parts: what the package's files are made of, by their names in AudioCraft's layout.
        name: of the repository.
        licence: of the weights, where it is known.
        origin: what the package was made from.
    """
    lines = ["---", "library_name: codecbay", "tags: [audio, codecbay]"]
    lines += [] if licence is None else [f"license: {licence.lower()}"]
    lines += [
        "---",
        "",
        f"# {name}",
        "",
        f"Made from `{origin}`. Load it with [codecbay](https://pypi.org/project/codecbay):",
        "",
    ]
    call = "load" if "state_dict.bin" in parts else "load_codec"
    lines += ["```python", "import codecbay", "", f'model = codecbay.{call}("hf://{name}")', "```"]
    for file, contents in parts.items():
        lines += ["", f"## The {_KINDS[file.partition('.')[0]]}", "", "| | |", "|---|---|"]
        facts = {key: value for key, value in contents.spec.items() if value not in (None, [], ())}
        if contents.reference is not None:
            facts["refers to"] = contents.reference
        facts["fingerprint of the codec"] = contents.fingerprint or "not known"
        facts["exported by"] = contents.version
        if contents.source is not None:
            facts["converted from"] = f"{contents.source[0]} (digest {contents.source[1][:12]})"
        lines += [f"| {key} | {_short(value)} |" for key, value in facts.items()]
    return "\n".join([*lines, ""])


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)) and len(set(value)) == 1 and len(value) > 1:
        return f"{value[0]} × {len(value)}"
    return str(value).replace("|", "\\|").replace("\n", " ")
