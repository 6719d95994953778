"""The https server of these tests: certificates, ranges, and what changes underneath."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping

import pytest

from network import faults
from network.conftest import Environment
from network.https import HttpsServer

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def url(https_server: HttpsServer) -> str:
    (https_server.directory / "a.bin").write_bytes(CONTENT)
    return f"{https_server.url}/a.bin"


def get(
    url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[int, Mapping[str, str], bytes]:
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)
    with urllib.request.urlopen(request, context=ssl.create_default_context(), timeout=5) as response:
        return response.status, response.headers, response.read()


def test_only_those_who_know_the_certificate_come_in(url: str, environment: Environment) -> None:
    assert get(url)[2] == CONTENT
    assert get(url.replace("127.0.0.1", "localhost"))[2] == CONTENT
    environment(SSL_CERT_FILE=None)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(url)


def test_parts_and_validators(https_server: HttpsServer, url: str) -> None:
    status, headers, _ = get(url, method="HEAD")
    assert (status, headers["Content-Length"], headers["Accept-Ranges"]) == (200, str(len(CONTENT)), "bytes")
    part = {"Range": "bytes=1000-"}
    for name in ("ETag", "Last-Modified"):
        assert get(url, {**part, "If-Range": headers[name]})[::2] == (206, CONTENT[1000:])
    with pytest.raises(urllib.error.HTTPError, match="304"):
        get(url, {"If-None-Match": headers["ETag"]})
    (https_server.directory / "a.bin").write_bytes(CONTENT[1:])
    assert get(url, {**part, "If-Range": headers["ETag"]})[::2] == (200, CONTENT[1:])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{https_server.url}/none.bin")


def test_a_plain_server(https_server: HttpsServer, url: str) -> None:
    https_server.misbehave("*", faults.WITHOUT_RANGES, faults.headers({"ETag": None, "Last-Modified": None}))
    status, headers, content = get(url, {"Range": "bytes=5-9"})
    assert (status, content) == (200, CONTENT)
    assert not {"ETag", "Last-Modified", "Accept-Ranges"} & set(headers)
    https_server.misbehave("*", faults.COMPRESSED)
    assert get(url, {"Accept-Encoding": "gzip"})[1]["Content-Encoding"] == "gzip"


def test_connections_that_end_early(https_server: HttpsServer, url: str) -> None:
    https_server.misbehave("/a.bin", faults.truncate(after=30_000), nth=1)
    https_server.misbehave("/a.bin", faults.cut(after=30_000), nth=2)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(url)
    assert caught.value.partial == CONTENT[:30_000]
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):  # OpenSSL tells some resets as an end
        get(url)
    assert get(url)[2] == CONTENT
    assert https_server.sent() == 60_000 + len(CONTENT)


def test_slow_and_late(https_server: HttpsServer, url: str) -> None:
    https_server.misbehave("/a.bin", faults.slow(9), nth=1)
    https_server.misbehave("/a.bin", faults.late(9), nth=2)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(url, context=ssl.create_default_context(), timeout=0.2).read()
    assert get(url)[2] == CONTENT
