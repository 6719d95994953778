"""What a server can be told to do wrong: see :meth:`network.server.Server.misbehave`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from network.server import Blob, Fault, Request, Response


def status(code: int, headers: Mapping[str, str] | None = None) -> Fault:
    """Fail with this status, and with headers such as ``Retry-After`` or ``X-Error-Code``."""
    body = Blob(json.dumps({"error": f"told to answer {code}"}).encode())
    failure = Response(code, {"Content-Type": "application/json", **(headers or {})}, body)
    return Fault(lambda request, response: failure)


def redirect(to: str | None = None) -> Fault:
    """Redirect to an address; without one to the same, for ever."""
    return Fault(lambda request, response: Response(302, {"Location": to or request.url}))


def late(seconds: float) -> Fault:
    """Answer late."""
    return Fault(lambda request, response: replace(response, delay=seconds))


def slow(seconds: float) -> Fault:
    """Send the body slowly: wait before every 16 KiB."""
    return Fault(lambda request, response: replace(response, pause=seconds), of_body=True)


def cut(after: int) -> Fault:
    """Reset the connection after so many bytes of the body; the client may lose the last of them."""
    return Fault(lambda request, response: replace(response, drop_after=after, reset=True), of_body=True)


def truncate(after: int) -> Fault:
    """End the body in good order after so many bytes, though Content-Length says more."""
    return Fault(lambda request, response: replace(response, drop_after=after), of_body=True)


def corrupt(at: int) -> Fault:
    """Send a body of the right size with one byte wrong."""

    def change(request: Request, response: Response) -> Response:
        data = bytearray(response.blob.read())
        data[at] ^= 0xFF
        return replace(response, blob=Blob(bytes(data)))

    return Fault(change, of_body=True)


def _compress(request: Request, response: Response) -> Response:
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return response
    headers = {**response.headers, "Content-Encoding": "gzip"}
    return replace(response, headers=headers, blob=Blob(gzip.compress(response.blob.read())), ranges=False)


def headers(changed: Mapping[str, str | None]) -> Fault:
    """Send other headers (a wrong ETag or size), or not those that are ``None``."""

    def change(request: Request, response: Response) -> Response:
        both = {**response.headers, **changed}
        return replace(response, headers={name: value for name, value in both.items() if value is not None})

    return Fault(change)


def afterwards(action: Callable[[], object]) -> Fault:
    """Do something once the answer is settled: a file changes, and the next request meets the new one."""

    def change(request: Request, response: Response) -> Response:
        action()
        return response

    return Fault(change)


WITHOUT_RANGES = Fault(lambda request, response: replace(response, ranges=False))
"""Send all of the content, whatever range was asked for."""

COMPRESSED = Fault(_compress, of_body=True)
"""Send the content compressed, and no ranges, to clients that accept it: the Hub does so with text."""
