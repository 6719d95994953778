"""A small HTTP server on loopback: it records what was asked and how much was sent, and misbehaves when told to."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

PART = 16 * 1024  # bytes that are written at once


class Blob:
    """Content that is served: bytes, or a file that is read as it is sent.

    Args:
        content: the bytes or the file.
        sha256: of the content, where it is too much to hash in a test (a sparse file of gigabytes).
    """

    def __init__(self, content: bytes | Path, sha256: str | None = None) -> None:
        self._content = content
        self.size = content.stat().st_size if isinstance(content, Path) else len(content)
        if sha256 is not None:
            self.sha256 = sha256

    def parts(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        stop = self.size if stop is None else stop
        if isinstance(self._content, bytes):
            for at in range(start, stop, PART):
                yield self._content[at : min(at + PART, stop)]
        else:
            with self._content.open("rb") as file:
                file.seek(start)
                for at in range(start, stop, PART):
                    yield file.read(min(PART, stop - at))

    def read(self) -> bytes:
        return b"".join(self.parts())

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part)
        return digest.hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """What git calls the content."""
        return hashlib.sha1(b"blob %d\0" % self.size + self.read()).hexdigest()


@dataclass
class Request:
    """What was asked, and how it was answered."""

    method: str
    url: str
    headers: Message
    body: bytes
    status: int = 0  # of the answer
    sent: int = 0  # bytes of its body

    @cached_property
    def path(self) -> str:
        return unquote(urlsplit(self.url).path)

    @cached_property
    def segments(self) -> list[str]:
        """The path in parts; a slash within one (the revision ``refs%2Fpr%2F1``) does not divide it."""
        return [unquote(part) for part in urlsplit(self.url).path.strip("/").split("/")]

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))


@dataclass(frozen=True)
class Response:
    """An answer; the range that was asked for is taken out of the content when it is sent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    blob: Blob = field(default_factory=lambda: Blob(b""))
    ranges: bool = False  # parts of the content are given
    delay: float = 0  # seconds before the answer
    pause: float = 0  # seconds before each part of the body
    drop_after: int | None = None  # bytes of the body; then the connection goes
    reset: bool = False  # with a reset, not an orderly end


@dataclass(frozen=True)
class Fault:
    """One way to misbehave: it changes the answer. Those of the body pass over answers that carry none."""

    change: Callable[[Request, Response], Response]
    of_body: bool = False


@dataclass
class _Rule:
    pattern: str
    fault: Fault
    nth: range | None
    method: str | None
    seen: int = 0


class Server:
    """Answers by :meth:`respond`, on any number of ports of 127.0.0.1, until the ``with`` block ends.

    Attributes:
        url: of the first port.
        requests: all that was asked, in order.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # of the server itself; stop() raises the first
        self.stopping = threading.Event()
        self._tls = tls
        self._listeners: list[_Listener] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.url = self.listen()

    def respond(self, request: Request) -> Response:
        """The answer of a server that behaves."""
        raise NotImplementedError

    def misbehave(
        self, pattern: str, *faults: Fault, nth: int | range | None = None, method: str | None = None
    ) -> None:
        """Misbehave from now on.

        Args:
            pattern: of the paths, with ``*`` for anything (``*/state_dict.bin``).
            faults: what to do, one after the other.
            nth: which of the requests that a fault is for, from 1 on; without it all of them.
            method: only requests of this method.
        """
        nth = range(nth, nth + 1) if isinstance(nth, int) else nth
        self._rules += [_Rule(pattern, fault, nth, method) for fault in faults]

    def behave(self) -> None:
        """Forget all faults."""
        self._rules.clear()

    def asked(self, pattern: str = "*", method: str | None = None) -> list[Request]:
        """The requests so far whose path matches."""
        return [
            request
            for request in self.requests
            if fnmatch.fnmatchcase(request.path, pattern) and method in (None, request.method)
        ]

    def sent(self, pattern: str = "*") -> int:
        """Bytes of bodies that were sent so far for the paths that match."""
        return sum(request.sent for request in self.asked(pattern))

    def answer(self, request: Request) -> Response:
        """Record the request; respond, with the faults that are due."""
        with self._lock:
            self.requests.append(request)
        response = self.respond(request)
        for rule in list(self._rules):
            if not fnmatch.fnmatchcase(request.path, rule.pattern) or rule.method not in (None, request.method):
                continue
            if rule.fault.of_body and (request.method == "HEAD" or response.status != 200 or not response.blob.size):
                continue
            with self._lock:
                rule.seen += 1
                due = rule.nth is None or rule.seen in rule.nth
            if due:
                response = rule.fault.change(request, response)
        return response

    def listen(self) -> str:
        """Listen on one more port; its URL."""
        listener = _Listener(self, self._tls)
        self._listeners.append(listener)
        threading.Thread(target=listener.serve_forever, args=[0.01]).start()
        return listener.url

    def stop(self) -> None:
        self.stopping.set()
        for listener in self._listeners:
            listener.shutdown()
            listener.hang_up()
            listener.server_close()  # waits for the threads
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Listener(socketserver.ThreadingTCPServer):
    """One port, with a thread for each connection."""

    request_queue_size = 64

    def __init__(self, owner: Server, tls: ssl.SSLContext | None) -> None:
        self.owner = owner
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        # Little is on its way when a client hangs up, so that what was sent is near to what was taken.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PART)
        if self._tls:  # the handshake comes with the first read, in the connection's own thread
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        connection = cast(socket.socket, request)
        self._open.discard(connection)
        connection.close()  # without an orderly shutdown before, which would hide a reset

    def hang_up(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError | ssl.SSLError):  # not: the client has gone
            self.owner.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body wait for each other

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        listener = cast(_Listener, self.server)
        request = Request(self.command, listener.url + self.path, self.headers, self._body())
        response = listener.owner.answer(request)
        listener.owner.stopping.wait(response.delay)
        response, span = _requested(request, response)
        headers = {"Content-Length": str(len(span)), **response.headers}
        if response.ranges:
            headers = {"Accept-Ranges": "bytes", **headers}
        request.status = response.status
        self.send_response(response.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = span.stop if response.drop_after is None else min(span.stop, span.start + response.drop_after)
        for part in response.blob.parts(span.start, stop):
            listener.owner.stopping.wait(response.pause)
            request.sent += len(part)  # before the client can see it
            self.wfile.write(part)
        if request.sent != int(headers["Content-Length"]):
            self.close_connection = True
            if response.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def _requested(request: Request, response: Response) -> tuple[Response, range]:
    """The answer for what was asked for: all of the content, a part of it (206), or none (304, 416)."""
    size = response.blob.size
    whole = range(size)
    if response.status != 200 or request.method not in ("GET", "HEAD"):
        return response, whole
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    if etag is not None and request.headers.get("If-None-Match") == etag:
        return replace(response, status=304), range(0)
    asked = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", request.headers.get("Range", ""))
    if not response.ranges or asked is None or request.method == "HEAD":
        return response, whole
    if request.headers.get("If-Range") not in (None, etag, modified):
        return response, whole
    first, last, suffix = asked.groups()
    if suffix:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
    if start >= stop:
        headers = {**response.headers, "Content-Range": f"bytes */{size}"}
        return replace(response, status=416, headers=headers), range(0)
    headers = {**response.headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return replace(response, status=206, headers=headers), range(start, stop)
