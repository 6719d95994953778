"""Files on the other side of a network: read in part, by ranges, or fetched as a whole into a cache.

A :class:`RemotePath` has the methods of :class:`pathlib.Path` that reading a package needs, so that a header is read
from the Hub by the same code as from the disk, and without the gigabytes beside it.
"""

from codecbay.remote.hub import HubTree
from codecbay.remote.paths import AnyPath, RemotePath
from codecbay.remote.web import WebTree

__all__ = ["AnyPath", "HubTree", "RemotePath", "WebTree"]
