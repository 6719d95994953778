"""Requests over http, by the client that huggingface_hub has: its proxies, certificates and timeouts hold here too."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from codecbay.errors import SourceError
from codecbay.remote.paths import NoRangesError


class UnreachableError(SourceError):
    """There is no answer, or it broke off: another attempt may do better."""


class RefusedError(SourceError):
    """The server says no; ``status`` is its code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


_ATTEMPTS = 3  # of a part of a file, where the connection breaks
_TIMEOUT = 30.0  # seconds without an answer


@contextmanager
def response(method: str, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """The answer to a request, redirects followed, its body not read yet.

    Raises:
        UnreachableError: there is no answer.
        RefusedError: there is one that says no.
    """
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session

    # What is compressed on the way cannot be asked for in part.
    own = {"Accept-Encoding": "identity", **headers}
    try:
        with get_session().stream(method, url, headers=own, follow_redirects=True, timeout=_TIMEOUT) as answer:
            if answer.status_code >= 400 and answer.status_code != 416:
                message = f"{url}: the server answers {answer.status_code}{_hint(answer)}."
                raise RefusedError(message, answer.status_code)
            yield answer
    except HTTPError as error:
        raise UnreachableError(f"{url}: cannot be reached: {_cause(error)}.") from None


def _hint(answer: Any) -> str:
    hints = {
        401: " (it wants a token or password)",
        403: " (access is not allowed)",
        404: " (there is no such file)",
        429: f" (too many requests; it asks to wait {answer.headers.get('Retry-After', 'a while')})",
    }
    return hints.get(answer.status_code, " (try again later)" if answer.status_code >= 500 else "")


def _cause(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class RangeFile(io.RawIOBase):
    """A file on a server, of which only the parts that are read are moved.

    Args:
        url: of the file.
        size: in bytes.
        headers: to send.

    Raises:
        NoRangesError: when it is read, where the server sends whole files only.
        SourceError: when it is read, where it cannot be.
    """

    def __init__(self, url: str, size: int, headers: Mapping[str, str]) -> None:
        self._url = url
        self._size = size
        self._headers = headers
        self._position = 0
        self._tag: str | None = None
        self._direct: str | None = None  # where redirects led, so that they are followed once

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read from another place next."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("the place lies before the start of the file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; see :class:`io.RawIOBase`."""
        count = min(len(buffer), self._size - self._position)
        if count <= 0:
            return 0
        data = self._part(self._position, count)
        buffer[:count] = data
        self._position += count
        return count

    def _part(self, start: int, count: int) -> bytes:
        for left in reversed(range(_ATTEMPTS)):
            # Tokens are for the first server alone.
            headers = {"Range": f"bytes={start}-{start + count - 1}", **({} if self._direct else self._headers)}
            try:
                with response("GET", self._direct or self._url, headers) as answer:
                    return self._body(answer, start, count)
            except (UnreachableError, RefusedError) as error:
                if not left or (self._direct is None and isinstance(error, RefusedError)):
                    raise
                self._direct = None  # it may have been good for a while only
        raise AssertionError("the last attempt returns or raises")

    def _body(self, answer: Any, start: int, count: int) -> bytes:
        if answer.status_code == 200:
            raise NoRangesError(f"{self._url}: the server sends whole files only.")
        tag = answer.headers.get("ETag")
        if self._tag is not None and tag != self._tag:
            raise SourceError(f"{self._url}: the file has changed while it was read. Try again.")
        self._tag = tag
        told = answer.headers.get("Content-Range", "")
        if answer.status_code != 206 or not told.startswith(f"bytes {start}-{start + count - 1}/"):
            raise SourceError(f"{self._url}: the server answers another part ({told[:60]!r}) than it was asked for.")
        data = bytearray()
        for chunk in answer.iter_raw():
            data += chunk
            if len(data) > count:
                break
        if len(data) != count:
            raise UnreachableError(f"{self._url}: broke off: {len(data)} bytes came where {count} were asked for.")
        if str(answer.url) != self._url:
            self._direct = str(answer.url)
        return bytes(data)
