"""The Hub of these tests does to the real client what the real Hub does; so later tests can stand on it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import pytest
from huggingface_hub import constants, hf_api
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.sha import git_hash

from network import faults
from network.conftest import Command, Environment
from network.hub import Hub, Repository

ID = "ada/tiny"
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"a": 1}\n', "state_dict.bin": WEIGHTS, "deep/er/notes.txt": b"notes"}


@pytest.fixture
def tiny(hub: Hub) -> Repository:
    return hub.add(ID, FILES)


def fetch(name: str, revision: str | None = None, token: str | None = None, force: bool = False) -> bytes:
    return Path(hf.hf_hub_download(ID, name, revision=revision, token=token, force_download=force)).read_bytes()


def test_files_arrive_and_what_is_there_is_not_fetched_again(hub: Hub, tiny: Repository) -> None:
    for name, content in FILES.items():
        assert fetch(name) == content
        assert hub.sent(f"*/{name}") == len(content)
    hub.requests.clear()
    for name, content in FILES.items():
        assert fetch(name) == content
    assert {request.method for request in hub.requests} == {"HEAD"}
    assert hub.sent() == 0


def test_the_cache_is_named_by_the_hashes(hub: Hub, tiny: Repository) -> None:
    path = Path(hf.hf_hub_download(ID, "state_dict.bin"))
    assert path.parent.name == tiny.refs["main"].oid
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    assert Path(hf.hf_hub_download(ID, "config.json")).resolve().name == git_hash(FILES["config.json"])


def test_branches_tags_and_commits(hub: Hub, tiny: Repository) -> None:
    first = tiny.refs["main"].oid
    tiny.tag("v1")
    tiny.tag("refs/pr/1")
    tiny.commit({"config.json": b"pr", "deep/er/notes.txt": None}, branch="refs/pr/1")
    second = tiny.commit({"config.json": b"new"})
    for revision in ("v1", first, first[:8]):
        assert fetch("config.json", revision=revision) == FILES["config.json"]
    assert fetch("config.json") == fetch("config.json", revision=second) == b"new"
    assert fetch("config.json", revision="refs/pr/1") == b"pr"
    assert "deep/er/notes.txt" not in hf.list_repo_files(ID, revision="refs/pr/1")
    assert hf.model_info(ID, revision="v1").sha == first


def test_listings_tell_sizes_and_hashes(hub: Hub, tiny: Repository) -> None:
    info = hf.model_info(ID, files_metadata=True)
    assert info.sha == tiny.refs["main"].oid
    assert not info.private
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert {name: sibling.size for name, sibling in siblings.items()} == {n: len(c) for n, c in FILES.items()}
    lfs = siblings["state_dict.bin"].lfs
    assert lfs is not None
    assert (lfs.size, lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert siblings["config.json"].blob_id == git_hash(FILES["config.json"])

    assert [entry.path for entry in hf.list_repo_tree(ID)] == ["config.json", "deep", "state_dict.bin"]
    assert [entry.path for entry in hf.list_repo_tree(ID, "deep", recursive=True)] == ["deep/er", "deep/er/notes.txt"]
    assert sorted(hf.list_repo_files(ID)) == sorted(FILES)
    assert [entry.path for entry in hf.get_paths_info(ID, ["state_dict.bin", "deep", "none"])] == [
        "state_dict.bin",
        "deep",
    ]
    assert hf.file_exists(ID, "config.json")
    assert not hf.file_exists(ID, "none")


def test_a_snapshot(hub: Hub, tiny: Repository) -> None:
    path = Path(hf.snapshot_download(ID, ignore_patterns=["deep/*"]))
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {
        name: FILES[name] for name in ("config.json", "state_dict.bin")
    }
    assert hub.sent("*/notes.txt") == 0


def test_what_is_missing_is_the_right_error(hub: Hub, tiny: Repository) -> None:
    with pytest.raises(RepositoryNotFoundError):
        hf.hf_hub_download("ada/none", "config.json")
    with pytest.raises(RepositoryNotFoundError):
        hf.model_info("ada/none", token=hub.add_user("ada"))
    with pytest.raises(RevisionNotFoundError):
        fetch("config.json", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        fetch("none.json")


def test_private_is_for_its_owner(hub: Hub, environment: Environment) -> None:
    hub.add(ID, FILES, private=True)
    ada, bob = hub.add_user("ada"), hub.add_user("bob")
    for token in (None, bob):
        with pytest.raises(RepositoryNotFoundError):
            fetch("config.json", token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        fetch("config.json", token="hf_nobody")
    environment(HF_TOKEN=ada)
    assert fetch("state_dict.bin") == WEIGHTS
    assert hf.whoami()["name"] == "ada"
    assert not any("Authorization" in request.headers for request in hub.asked("/storage/*"))


def test_gated_is_for_those_who_were_let_in(hub: Hub) -> None:
    repository = hub.add(ID, FILES, gated=True)
    bob = hub.add_user("bob")
    assert hf.model_info(ID).gated == "manual"
    for token, status in ((None, 401), (bob, 403)):
        with pytest.raises(GatedRepoError) as caught:
            fetch("config.json", token=token)
        assert caught.value.response.status_code == status
    repository.readers.add("bob")
    assert fetch("config.json", token=bob) == FILES["config.json"]


def test_ranges(hub: Hub, tiny: Repository) -> None:
    def get(wanted: str, name: str = "state_dict.bin") -> Any:
        hub.requests.clear()
        return hf.get_session().get(hf.hf_hub_url(ID, name), headers={"Range": f"bytes={wanted}"})

    for wanted, part in (("10-19", WEIGHTS[10:20]), ("-7", WEIGHTS[-7:]), (f"{len(WEIGHTS) - 3}-", WEIGHTS[-3:])):
        response = get(wanted)
        assert (response.status_code, response.content) == (206, part)
        assert hub.sent() == len(part)
    assert response.headers["Content-Range"] == f"bytes 102397-102399/{len(WEIGHTS)}"
    assert get("2-99", "config.json").content == FILES["config.json"][2:]
    beyond = get(f"{len(WEIGHTS)}-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(WEIGHTS)}")
    hub.misbehave("*", faults.WITHOUT_RANGES)
    assert get("10-19").content == WEIGHTS


def test_a_download_goes_on_where_it_ended(hub: Hub, tiny: Repository) -> None:
    step = hf.constants.DOWNLOAD_CHUNK_SIZE  # the client keeps what it has got in steps of this size
    large = bytes(step + 100_000)
    tiny.commit({"state_dict.bin": large})
    hub.misbehave("*/state_dict.bin", faults.truncate(after=step + 70_000), nth=1)
    assert fetch("state_dict.bin") == large
    assert [request.headers["Range"] for request in hub.asked("/storage/*")] == [None, f"bytes={step}-"]
    assert hub.sent("*/state_dict.bin") == step + 70_000 + 100_000


def test_faults_reach_the_client(hub: Hub, tiny: Repository) -> None:
    hub.misbehave("*/config.json", faults.status(429, {"Retry-After": "0"}), nth=1, method="GET")
    assert fetch("config.json") == FILES["config.json"]
    assert [request.status for request in hub.asked("*/config.json", "GET")] == [429, 200]

    hub.misbehave("*/state_dict.bin", faults.cut(after=20_000))
    with pytest.raises(HTTPError):
        fetch("state_dict.bin")
    hub.behave()

    hub.misbehave("/storage/*", faults.corrupt(at=-1), nth=1)
    hub.misbehave("*/resolve/*", faults.headers({"X-Linked-Size": "7"}), nth=2)
    assert fetch("state_dict.bin") == WEIGHTS[:-1] + b"\x00"  # the client compares sizes alone
    with pytest.raises(OSError, match="should be of size 7"):
        fetch("state_dict.bin", force=True)
    hub.behave()

    hub.misbehave("*/notes.txt", faults.redirect())
    with pytest.raises(HTTPError, match="redirect"):
        fetch("deep/er/notes.txt")


def test_offline(hub: Hub, tiny: Repository, environment: Environment) -> None:
    assert fetch("config.json") == FILES["config.json"]
    hub.requests.clear()
    environment(HF_HUB_OFFLINE="1")
    assert fetch("config.json") == FILES["config.json"]
    with pytest.raises(LocalEntryNotFoundError):
        fetch("state_dict.bin")
    assert not hub.requests
    environment(HF_HUB_OFFLINE=None)
    assert fetch("state_dict.bin") == WEIGHTS


def test_a_file_changes_between_two_requests(hub: Hub, tiny: Repository) -> None:
    change = faults.afterwards(lambda: tiny.commit({"state_dict.bin": b"new", "config.json": b"new"}))
    hub.misbehave("*/resolve/main/*", change, nth=1)
    assert [fetch("state_dict.bin"), fetch("state_dict.bin"), fetch("config.json")] == [WEIGHTS, b"new", b"new"]


def test_pushes(hub: Hub, tmp_path: Path, environment: Environment) -> None:
    ada, bob = hub.add_user("ada"), hub.add_user("bob")
    environment(HF_TOKEN=ada)
    hf.create_repo("ada/mine", private=True)
    hf.create_repo("ada/mine", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="rights"):
        hf.create_repo("ada/mine", token=bob)
    for name, content in {**FILES, "README.md": b"---\nlicense: mit\n---\n"}.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    commit = hf.upload_folder(repo_id="ada/mine", folder_path=tmp_path / "out", commit_message="First")
    assert hub.repositories["ada/mine"].refs["main"].oid == commit.oid
    assert hub.repositories["ada/mine"].private
    path = Path(hf.snapshot_download("ada/mine"))
    assert {name: (path / name).read_bytes() for name in FILES} == FILES

    hub.requests.clear()
    hf.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="again.bin", repo_id="ada/mine")  # is in the storage already
    hf.delete_file("config.json", "ada/mine")
    assert not hub.asked(method="PUT")
    assert "config.json" not in hf.list_repo_files("ada/mine")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        hf.upload_file(path_or_fileobj=b"late", path_in_repo="a.txt", repo_id="ada/mine", parent_commit=commit.oid)


def test_a_process_of_its_own_finds_the_hub(hub: Hub, tiny: Repository, python: Command, command: Command) -> None:
    code = f"import huggingface_hub as hf; print(open(hf.hf_hub_download({ID!r}, 'config.json')).read())"
    assert python("-c", code).json == {"a": 1}
    assert hub.sent("*/config.json") == len(FILES["config.json"])
    hub.requests.clear()
    assert python("-c", code, HF_HUB_OFFLINE="1").json == {"a": 1}
    assert not hub.requests
    assert command("--version").code == 0


def test_the_client_is_as_before_without_a_hub(environment: Environment) -> None:
    assert constants.ENDPOINT == hf_api.api.endpoint == "https://huggingface.co"
