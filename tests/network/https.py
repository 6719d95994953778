"""A file server over https with a certificate of its own, for addresses of packages."""

from __future__ import annotations

import email.utils
import ssl
from pathlib import Path

import trustme

from network.server import Blob, Request, Response, Server


class HttpsServer(Server):
    """Serves the files of a directory as static file servers do: with ranges, ETag and Last-Modified.

    For a server that has none of these, see :data:`network.faults.WITHOUT_RANGES` and :func:`network.faults.headers`.

    Attributes:
        directory: what is served.
        authority: the PEM of who signed the certificate, for clients to trust (``SSL_CERT_FILE``).
    """

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        super().__init__(context)
        self.directory = directory
        self.authority = authority.cert_pem.bytes()

    def respond(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, {"Allow": "GET, HEAD"})
        path = self.directory.joinpath(*request.segments)
        if ".." in request.segments or not path.is_file():
            return Response(404)
        status = path.stat()
        headers = {
            "Content-Type": "application/octet-stream",
            "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            "Last-Modified": email.utils.formatdate(status.st_mtime, usegmt=True),
        }
        return Response(200, headers, Blob(path), ranges=True)
