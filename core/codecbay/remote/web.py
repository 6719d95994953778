"""Files by their https address, kept in a cache, where they appear whole or not at all.

The cache is ``codecbay/web`` in ``$XDG_CACHE_HOME`` (``~/.cache``). A download that broke is taken up where it ended,
if the file on the server is still the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from codecbay.errors import SourceError
from codecbay.files import make_parents, written_whole
from codecbay.remote.http import RangeFile, RefusedError, UnreachableError, response

_HASH_IN_NAME = re.compile(r"-([a-f0-9]{8,64})\.")  # as torch.hub has it: name-<start of its SHA-256>.ext
_ATTEMPTS = 5


@dataclass(frozen=True)
class WebTree:
    """The files of a directory on an https server.

    Attributes:
        root: address of the directory, without a slash at its end.
        query: of the address, sent for every file.
        hashes: SHA-256 of files, by name, as far as they are known.
    """

    root: str
    query: str = ""
    hashes: tuple[tuple[str, str], ...] = ()
    _seen: dict[str, tuple[int, str] | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, address: str, sha256: str | None = None) -> tuple[WebTree, str]:
        """The tree that a file lies in, and the file's name; an empty one for the address of a directory.

        Raises:
            SourceError: it is no https address.
        """
        parts = urlsplit(address)
        if parts.scheme != "https" or not parts.hostname:
            raise SourceError(f"{address}: only https addresses are read.")
        directory, _, name = parts.path.rpartition("/")
        root = urlunsplit((parts.scheme, parts.netloc, directory, "", ""))
        return cls(root, parts.query, ((unquote(name), sha256),) if sha256 else ()), unquote(name)

    @property
    def address(self) -> str:
        """Of the directory."""
        return self.root

    def names(self) -> None:
        """Servers tell no list of files."""
        return

    def size(self, name: str) -> int | None:
        """Bytes of a file, or ``None`` where there is no such file."""
        facts = self._facts(name)
        return None if facts is None else facts[0]

    def open(self, name: str) -> io.RawIOBase:
        """A file to read from: the one in the cache, or by ranges."""
        facts = self._facts(name)
        if facts is None:
            raise SourceError(f"{self._url(name)}: there is no such file.")
        if self._is_cached(name, facts):
            return io.FileIO(self._cached(name))
        return RangeFile(self._url(name), facts[0], {})

    def fetch(self, name: str, *, progress: bool) -> Path:
        """The whole file, in the cache.

        Raises:
            SourceError: it cannot be fetched, is shorter than the server says, or its SHA-256 is another one.
            OutputError: the cache cannot be written.
        """
        from huggingface_hub.utils import WeakFileLock

        facts, path = self._facts(name), self._cached(name)
        if facts is None:
            raise SourceError(f"{self._url(name)}: there is no such file.")
        make_parents(path)
        with WeakFileLock(path.with_name(f"{path.name}.lock")):
            if self._is_cached(name, facts):
                return path
            part = path.with_name(f"{path.name}.part")
            self._download(name, part, facts, progress)
            self._check(name, part)
            with written_whole(path.with_name(f"{path.name}.json")) as file:
                file.write_text(json.dumps(facts))
            os.replace(part, path)
        return path

    def _url(self, name: str) -> str:
        return f"{self.root}/{name}" + (f"?{self.query}" if self.query else "")

    def _facts(self, name: str) -> tuple[int, str] | None:
        """Size and tag of a file; of the cached one, where the server must not be asked."""
        from huggingface_hub import constants

        if name not in self._seen:
            if constants.HF_HUB_OFFLINE:
                self._seen[name] = self._cached_facts(name)
                if self._seen[name] is None:
                    raise SourceError(f"{self._url(name)}: is not in the cache, and HF_HUB_OFFLINE is set.")
            else:
                self._seen[name] = self._ask(name)
        return self._seen[name]

    def _ask(self, name: str) -> tuple[int, str] | None:
        try:
            with response("HEAD", self._url(name), {}) as answer:
                size = answer.headers.get("Content-Length", "")
                tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                url = str(answer.url)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        if not url.startswith("https://"):
            raise SourceError(f"{self._url(name)}: leads to {url[:100]}, which is no https address.")
        if not size.isdecimal():
            raise SourceError(f"{self._url(name)}: the server does not tell how large the file is.")
        return int(size), tag

    def _cached(self, name: str) -> Path:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        key = hashlib.sha256(self._url(name).encode()).hexdigest()[:16]
        return home / "codecbay" / "web" / key / Path(name).name

    def _cached_facts(self, name: str) -> tuple[int, str] | None:
        path = self._cached(name)
        try:
            size, tag = json.loads(path.with_name(f"{path.name}.json").read_text())
            return (size, tag) if path.stat().st_size == size else None
        except (OSError, ValueError, TypeError):
            return None

    def _is_cached(self, name: str, facts: tuple[int, str]) -> bool:
        return self._cached_facts(name) == facts

    def _download(self, name: str, part: Path, facts: tuple[int, str], progress: bool) -> None:
        from tqdm import tqdm

        size, tag = facts
        note = part.with_name(f"{part.name}.tag")
        if not (part.is_file() and note.is_file() and note.read_text() == tag):
            part.unlink(missing_ok=True)
            note.write_text(tag)
        last = ""
        with tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=None if progress else True) as bar:
            for _ in range(_ATTEMPTS):
                done = part.stat().st_size if part.is_file() else 0
                if done > size:
                    part.unlink()
                    done = 0
                bar.n = done
                if done == size:
                    break
                try:
                    self._continue(name, part, done, tag, bar)
                except UnreachableError as error:
                    last = str(error)
            else:
                raise SourceError(f"{last or self._url(name)} The download is taken up from there next time.")
        note.unlink()

    def _continue(self, name: str, part: Path, done: int, tag: str, bar: Any) -> None:
        headers = {"Range": f"bytes={done}-", **({"If-Range": tag} if tag else {})} if done else {}
        with response("GET", self._url(name), headers) as answer:
            if (answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "") != tag:
                raise SourceError(f"{self._url(name)}: the file has changed while it was fetched. Try again.")
            mode = "ab" if answer.status_code == 206 else "wb"
            if mode == "wb":
                bar.n = 0
            with part.open(mode) as stream:
                for chunk in answer.iter_raw():
                    stream.write(chunk)
                    bar.update(len(chunk))

    def _check(self, name: str, part: Path) -> None:
        named = _HASH_IN_NAME.search(name)
        expected = dict(self.hashes).get(name) or (named and named[1])
        if expected:
            with part.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if not found.startswith(expected):
                part.unlink()
                raise SourceError(f"{self._url(name)}: its SHA-256 is {found}, expected {expected}. Try again.")
