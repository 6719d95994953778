"""The pages of the documents: their blocks of code, and where their links lead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGINS = ROOT / "docs" / "plugins"

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^][]+\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of code; ``title`` is the path of the file that it shows, where it shows one."""

    language: str
    title: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [Block(language, title or None, text) for language, title, text in _BLOCK.findall(page.read_text())]


def write_files(page: Path, directory: Path) -> list[Path]:
    """Write the files that a page shows."""
    written = []
    for block in blocks(page):
        if block.title is not None:
            path = directory / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            written.append(path)
    return written


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The file and the anchor of each link that stays in the repository."""
    for target in _LINK.findall(_BLOCK.sub("", page.read_text())):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    """What links to a page may name: its headings, as they are turned into anchors."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
