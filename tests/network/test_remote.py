"""Paths on the other side of a network: read in part, fetched whole, and what is said when that fails."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from pathlib import Path

import pytest

from codecbay.errors import SourceError
from codecbay.remote import HubTree, RemotePath, WebTree
from codecbay.remote.paths import NoRangesError
from network import faults
from network.conftest import Environment
from network.https import HttpsServer
from network.hub import Hub, Repository

ID = "ada/tiny"
LARGE = random.Random(0).randbytes(1_000_000)


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("data.pkl", b"small")
        file.writestr("data/0", LARGE)
        file.writestr("last", b"end")
    return stream.getvalue()


FILES = {"config.json": b'{"a": 1}\n', "state_dict.bin": archive(), "deep/er/notes.txt": b"notes"}


@pytest.fixture
def repository(hub: Hub) -> Repository:
    return hub.add(ID, FILES)


@pytest.fixture
def path(repository: Repository) -> RemotePath:
    return RemotePath(HubTree(ID))


# ------------------------------------------------------------------------------------------------------- the Hub


def test_a_path_has_the_manners_of_one_on_the_disk(path: RemotePath) -> None:
    assert str(path / "state_dict.bin") == "hf://ada/tiny/state_dict.bin"
    assert (path / "deep").is_dir()
    assert not (path / "deep").is_file()
    assert not (path / "absent").exists()
    assert [entry.name for entry in path.iterdir()] == ["config.json", "deep", "state_dict.bin"]
    assert [entry.name for entry in path.glob("*.bin")] == ["state_dict.bin"]
    file = path / "deep" / "er" / "notes.txt"
    assert (file.name, file.suffix, file.parent.name, file.parent.parent) == ("notes.txt", ".txt", "er", path / "deep")
    assert file.stat().st_size == 5
    with file.open(encoding="utf-8") as stream:
        assert stream.read() == "notes"


def test_only_what_is_read_is_moved(hub: Hub, path: RemotePath) -> None:
    with (path / "state_dict.bin").open("rb") as stream, zipfile.ZipFile(stream) as file:
        assert file.read("data.pkl") == b"small"
        assert file.read("last") == b"end"
    assert hub.sent("*/storage/*") < 300_000


def test_redirects_are_followed_once_and_again_where_they_no_longer_lead_anywhere(
    hub: Hub, repository: Repository, environment: Environment
) -> None:
    environment(HF_TOKEN=hub.add_user("ada"))
    with (RemotePath(HubTree(ID)) / "state_dict.bin").open("rb", buffering=0) as stream:
        for _ in range(4):
            assert len(stream.read(1_000)) == 1_000
        assert len(hub.asked("*/resolve/*")) == 1
        hub.misbehave("*/storage/*", faults.status(403), nth=1)
        stream.seek(500_000)
        assert stream.read(10) == FILES["state_dict.bin"][500_000:500_010]
    assert len(hub.asked("*/resolve/*")) == 2


def test_what_was_fetched_is_read_from_the_cache(hub: Hub, path: RemotePath) -> None:
    file = path / "state_dict.bin"
    assert file.fetch().read_bytes() == FILES["state_dict.bin"]
    hub.requests.clear()
    with file.open("rb") as stream:
        assert stream.read() == FILES["state_dict.bin"]
    assert file.fetch().read_bytes() == FILES["state_dict.bin"]
    assert hub.sent() == 0


def test_a_revision_stays_what_it_was(hub: Hub, repository: Repository) -> None:
    repository.tag("v1")
    path = RemotePath(HubTree(ID))
    first = path.tree.commit  # type: ignore[attr-defined]
    repository.commit({"config.json": b"new"})
    assert (path / "config.json").fetch().read_bytes() == FILES["config.json"]  # as when it was first looked at
    assert (RemotePath(HubTree(ID)) / "config.json").fetch().read_bytes() == b"new"
    for revision in ("v1", first):
        tree = HubTree(ID, revision)
        assert str(RemotePath(tree)) == f"hf://ada/tiny@{revision}"
        assert (RemotePath(tree) / "config.json").fetch().read_bytes() == FILES["config.json"]


def test_offline_the_cache_serves(hub: Hub, path: RemotePath, environment: Environment) -> None:
    (path / "state_dict.bin").fetch()
    hub.requests.clear()
    environment(HF_HUB_OFFLINE="1")
    offline = RemotePath(HubTree(ID))
    assert [entry.name for entry in offline.iterdir()] == ["state_dict.bin"]
    assert (offline / "state_dict.bin").fetch().read_bytes() == FILES["state_dict.bin"]
    with (offline / "state_dict.bin").open("rb") as stream:
        assert stream.read(2) == b"PK"
    assert not (offline / "config.json").is_file()
    with pytest.raises(SourceError, match=r"HF_HUB_OFFLINE is set.*codecbay download ada/other"):
        (RemotePath(HubTree("ada/other")) / "config.json").is_file()
    assert not hub.requests


def test_a_body_with_a_wrong_byte_is_not_kept(hub: Hub, path: RemotePath) -> None:
    hub.misbehave("*/storage/*", faults.corrupt(500_000), nth=1)
    with pytest.raises(SourceError, match="not what the Hub says it is"):
        (path / "state_dict.bin").fetch()
    assert (path / "state_dict.bin").fetch().read_bytes() == FILES["state_dict.bin"]


def test_a_broken_connection_is_tried_again(hub: Hub, path: RemotePath) -> None:
    hub.misbehave("*/storage/*", faults.cut(1_000), nth=1)
    with (path / "state_dict.bin").open("rb") as stream:
        assert stream.read(200_000) == FILES["state_dict.bin"][:200_000]


def test_a_server_without_ranges_is_not_read_to_the_end(hub: Hub, path: RemotePath) -> None:
    hub.misbehave("*/storage/*", faults.WITHOUT_RANGES)
    with (path / "state_dict.bin").open("rb") as stream, pytest.raises(NoRangesError):
        stream.read(100)
    assert hub.sent("*/storage/*") < len(LARGE)


def test_a_file_that_changes_under_the_reader_is_found_out(hub: Hub, path: RemotePath) -> None:
    hub.misbehave("*/storage/*", faults.headers({"ETag": '"another"'}), nth=2)
    with (path / "state_dict.bin").open("rb", buffering=0) as stream:
        stream.read(10)
        with pytest.raises(SourceError, match="has changed while it was read"):
            stream.read(10)


REFUSALS = {
    "gated": (faults.status(403, {"X-Error-Code": "GatedRepo"}), "access has to be asked for"),
    "private": (faults.status(401, {"X-Error-Code": "RepoNotFound"}), r"no such model.*hf auth login"),
    "no revision": (faults.status(404, {"X-Error-Code": "RevisionNotFound"}), "no revision"),
    "too many requests": (faults.status(429), "the Hub refuses: .*429"),
    "down": (faults.status(418), "the Hub refuses: .*418"),
    "loop": (faults.redirect(), "the Hub cannot be reached"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_hub_has_against_it_is_said(name: str, hub: Hub, path: RemotePath) -> None:
    fault, message = REFUSALS[name]
    hub.misbehave("/api/*", fault)
    with pytest.raises(SourceError, match=message) as error:
        (path / "config.json").is_file()
    assert "hf://ada/tiny" in str(error.value)


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(SourceError, match=r"hf://ada/absent: there is no such model on the Hub"):
        RemotePath(HubTree("ada/absent")).is_dir()


def test_a_private_repository_needs_a_token(hub: Hub, environment: Environment) -> None:
    token = hub.add_user("bea")
    hub.add("bea/secret", FILES, private=True)
    with pytest.raises(SourceError, match="hf auth login"):
        (RemotePath(HubTree("bea/secret")) / "config.json").fetch()
    environment(HF_TOKEN=token)
    with (RemotePath(HubTree("bea/secret")) / "state_dict.bin").open("rb") as stream:
        assert stream.read(2) == b"PK"
    assert (RemotePath(HubTree("bea/secret")) / "state_dict.bin").fetch().read_bytes() == FILES["state_dict.bin"]


# -------------------------------------------------------------------------------------------------------- https


@pytest.fixture
def served(https_server: HttpsServer, tmp_path: Path, environment: Environment) -> RemotePath:
    """A file of a megabyte on an https server, its neighbour, and an empty cache."""
    environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    (tmp_path / "served" / "a b").mkdir()
    (tmp_path / "served" / "a b" / "large.bin").write_bytes(LARGE)
    (tmp_path / "served" / "a b" / "small.bin").write_bytes(b"small")
    tree, name = WebTree.of(f"{https_server.url}/a%20b/large.bin")
    return RemotePath(tree, name)


def test_a_file_and_its_neighbours(served: RemotePath, https_server: HttpsServer) -> None:
    assert (served.name, served.is_file(), served.is_dir()) == ("large.bin", True, False)
    assert served.stat().st_size == len(LARGE)
    assert (served.parent / "small.bin").fetch().read_bytes() == b"small"
    assert not (served.parent / "absent.bin").is_file()
    with served.open("rb") as stream:
        stream.seek(-10, io.SEEK_END)
        assert stream.read() == LARGE[-10:]
    assert https_server.sent() < 100_000


def test_a_file_is_fetched_once(served: RemotePath, https_server: HttpsServer) -> None:
    assert served.fetch().read_bytes() == LARGE
    https_server.requests.clear()
    tree, name = WebTree.of(str(served))
    assert RemotePath(tree, name).fetch().read_bytes() == LARGE
    assert {request.method for request in https_server.requests} == {"HEAD"}


def test_a_file_that_is_new_on_the_server_is_fetched_again(served: RemotePath, tmp_path: Path) -> None:
    served.fetch()
    (tmp_path / "served" / "a b" / "large.bin").write_bytes(b"new")
    tree, name = WebTree.of(str(served))
    assert RemotePath(tree, name).fetch().read_bytes() == b"new"


def test_a_download_is_taken_up_where_it_broke(served: RemotePath, https_server: HttpsServer) -> None:
    https_server.misbehave("*/large.bin", faults.truncate(150_000), method="GET")
    with pytest.raises(SourceError, match="taken up from there"):
        served.fetch()
    https_server.behave()
    https_server.requests.clear()
    tree, name = WebTree.of(str(served))
    assert RemotePath(tree, name).fetch().read_bytes() == LARGE
    assert https_server.sent("*/large.bin") < len(LARGE) // 2


def test_a_file_that_changes_before_it_is_taken_up_starts_anew(
    served: RemotePath, https_server: HttpsServer, tmp_path: Path
) -> None:
    https_server.misbehave("*/large.bin", faults.truncate(100_000), method="GET")
    with pytest.raises(SourceError):
        served.fetch()
    https_server.behave()
    (tmp_path / "served" / "a b" / "large.bin").write_bytes(LARGE[::-1])
    tree, name = WebTree.of(str(served))
    assert RemotePath(tree, name).fetch().read_bytes() == LARGE[::-1]


def test_a_server_without_ranges_sends_it_all_again(served: RemotePath, https_server: HttpsServer) -> None:
    https_server.misbehave("*/large.bin", faults.truncate(400_000), method="GET", nth=1)
    https_server.misbehave("*/large.bin", faults.WITHOUT_RANGES)
    assert served.fetch().read_bytes() == LARGE


@pytest.mark.parametrize("right", [True, False])
def test_a_hash_in_the_name_is_held_against_the_content(right: bool, served: RemotePath, tmp_path: Path) -> None:
    digest = hashlib.sha256(LARGE).hexdigest()[:8] if right else "0" * 8
    name = f"codec-{digest}.bin"
    (tmp_path / "served" / "a b" / name).write_bytes(LARGE)
    if right:
        assert (served.parent / name).fetch().read_bytes() == LARGE
    else:
        with pytest.raises(SourceError, match="SHA-256"):
            (served.parent / name).fetch()


def test_a_known_hash_is_held_against_the_content(served: RemotePath) -> None:
    tree, name = WebTree.of(str(served), sha256="0" * 64)
    with pytest.raises(SourceError, match="its SHA-256 is"):
        RemotePath(tree, name).fetch()
    assert not list(Path(served.fetch()).parent.glob("*.part*"))


def test_offline_the_cache_of_addresses_serves(served: RemotePath, environment: Environment) -> None:
    served.fetch()
    environment(HF_HUB_OFFLINE="1")
    tree, name = WebTree.of(str(served))
    assert RemotePath(tree, name).fetch().read_bytes() == LARGE
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        (RemotePath(tree, name).parent / "small.bin").fetch()


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503])
def test_what_a_server_has_against_it_is_said(code: int, served: RemotePath, https_server: HttpsServer) -> None:
    https_server.misbehave("*", faults.status(code))
    with pytest.raises(SourceError, match=f"large.bin: the server answers {code}"):
        served.fetch()


@pytest.mark.parametrize("address", ["http://127.0.0.1/a.bin", "ftp://a/b.bin", "https:///a.bin", "file:///etc/passwd"])
def test_only_https_is_read(address: str) -> None:
    with pytest.raises(SourceError, match="only https addresses"):
        WebTree.of(address)


def test_a_redirect_to_plain_http_is_not_followed_to_the_end(
    served: RemotePath, https_server: HttpsServer, hub: Hub
) -> None:
    https_server.misbehave("*/large.bin", faults.redirect(f"{hub.url}/large.bin"))
    with pytest.raises(SourceError):
        served.fetch()


def test_a_server_that_is_not_there(environment: Environment) -> None:
    tree, name = WebTree.of("https://127.0.0.1:9/large.bin")
    with pytest.raises(SourceError, match=r"https://127\.0\.0\.1:9/large\.bin: cannot be reached"):
        RemotePath(tree, name).fetch()
