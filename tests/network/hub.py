"""A small Hugging Face Hub on loopback, for the real client: models, revisions, private and gated ones, pushes.

As on the real one, a file in git is answered through a redirect to a path of the same host, and a large one through a
redirect to the storage, which is another host (here another port) and takes no token.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote

from network.server import Blob, Request, Response, Server

Files = Mapping[str, bytes | Path | Blob | None] | Path
"""Content by path, ``None`` to delete; or a directory."""

_LFS_SUFFIXES = (".bin", ".ckpt", ".gz", ".npz", ".onnx", ".pt", ".pth", ".safetensors", ".zip")
_LFS_SIZE = 10 * 2**20
_FIRST_COMMIT = datetime.fromisoformat("2023-06-08T09:00:00+00:00")


class HubError(Exception):
    """A request that is not granted; the headers are those that the client tells errors apart by."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = _json({"error": message}, status, told)


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    oid: str
    files: Mapping[str, Blob]
    date: str
    message: str = ""


@dataclass
class Repository:
    """A model.

    Attributes:
        private: nobody else sees it.
        gated: everybody sees it, but its files are for those who were let in.
        readers: the users who may read it, if it is private or gated.
    """

    id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, Commit] = field(default_factory=dict)  # branches and tags

    def commit(self, files: Files, message: str = "", branch: str = "main") -> str:
        """Add, replace or delete files.

        Returns:
            the commit's hash.
        """
        parent = self.refs.get(branch)
        both = {**(parent.files if parent else {}), **_blobs(files)}
        tree = {path: blob for path, blob in sorted(both.items()) if blob is not None}
        identity = [parent.oid if parent else "", message, *((path, blob_oid(path, tree[path])) for path in tree)]
        oid = hashlib.sha1(json.dumps(identity).encode()).hexdigest()
        date = _FIRST_COMMIT + timedelta(hours=len(self.commits))
        self.refs[branch] = Commit(oid, tree, date.isoformat().replace("+00:00", ".000Z"), message)
        self.commits.append(self.refs[branch])
        return oid

    def tag(self, name: str, revision: str = "main") -> None:
        """Name a revision: a tag, or a branch that starts there."""
        commit = self.find(revision)
        assert commit is not None, revision
        self.refs[name] = commit

    def find(self, revision: str) -> Commit | None:
        """By branch, tag, or hash, which may be short."""
        if revision in self.refs:
            return self.refs[revision]
        return next((c for c in self.commits if len(revision) >= 7 and c.oid.startswith(revision)), None)


class Hub(Server):
    """The Hub; its ``url`` is for ``HF_ENDPOINT``.

    ::

        hub.add("ada/tiny", {"config.json": b"{}", "state_dict.bin": path})
        hub.misbehave("*/state_dict.bin", faults.truncate(after=1000), nth=1)
        …
        assert hub.sent("*/state_dict.bin") < 5000

    Attributes:
        repositories: by id.
        users: by token.
        objects: large files by SHA-256.
    """

    def __init__(self) -> None:
        super().__init__()
        self.storage_url = self.listen()
        self.repositories: dict[str, Repository] = {}
        self.users: dict[str, str] = {}
        self.objects: dict[str, Blob] = {}

    def add_user(self, name: str) -> str:
        """Make a user, who may write under that name.

        Returns:
            their token.
        """
        self.users[f"hf_{name}"] = name
        return f"hf_{name}"

    def add(self, repo_id: str, files: Files, *, private: bool = False, gated: bool = False) -> Repository:
        """Make a model with files on its branch ``main``."""
        repository = Repository(repo_id, private, gated, {repo_id.split("/")[0]})
        repository.commit(files)
        self.repositories[repo_id] = repository
        return repository

    def respond(self, request: Request) -> Response:
        try:
            return self._respond(request)
        except HubError as error:
            return error.response

    def _respond(self, request: Request) -> Response:
        match [request.method, *request.segments]:
            case ["GET" | "HEAD", owner, name, "resolve", revision, *path]:
                return self._resolve(request, f"{owner}/{name}", revision, "/".join(path))
            case ["GET" | "HEAD", "api", "resolve-cache", "models", owner, name, oid, *path]:
                commit, blob = self._file(request, f"{owner}/{name}", oid, "/".join(path))
                return Response(200, {"ETag": f'"{blob.git_oid}"', "X-Repo-Commit": commit.oid}, blob, ranges=True)
            case ["GET" | "HEAD", "storage", owner, name, oid, *_]:
                return self._stored(request, f"{owner}/{name}", oid)
            case ["GET", "api", "models", owner, name]:
                return self._info(request, f"{owner}/{name}", "main")
            case ["GET", "api", "models", owner, name, "revision", revision]:
                return self._info(request, f"{owner}/{name}", revision)
            case ["GET", "api", "models", owner, name, "tree", revision, *path]:
                return self._tree(request, f"{owner}/{name}", revision, "/".join(path))
            case ["POST", "api", "models", owner, name, "paths-info", revision]:
                return self._paths_info(request, f"{owner}/{name}", revision)
            case ["GET", "api", "whoami-v2"]:
                return self._whoami(request)
            case ["POST", "api", "repos", "create"]:
                return self._create(request)
            case ["POST", "api", "validate-yaml"]:
                return _json({"errors": [], "warnings": []})
            case ["POST", "api", "models", owner, name, "preupload", revision]:
                return self._preupload(request, f"{owner}/{name}", revision)
            case ["POST", owner, name, "info", "lfs", "objects", "batch"]:
                return self._batch(request, f"{owner}/{name.removesuffix('.git')}")
            case ["PUT", "storage", _, _, oid]:
                return self._store(request, oid)
            case ["POST", "api", "models", owner, name, "commit", branch]:
                return self._commit(request, f"{owner}/{name}", branch)
        raise HubError(404, f"this Hub knows no {request.method} {request.path}")

    # Who may do what

    def _user(self, request: Request) -> str | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.users.get(token)

    def _seen(self, request: Request, repo_id: str) -> Repository:
        user, repository = self._user(request), self.repositories.get(repo_id)
        if repository is None or (repository.private and user not in repository.readers):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, request: Request, repo_id: str) -> Repository:
        repository = self._seen(request, repo_id)
        self._check_owner(request, repo_id)
        return repository

    def _check_owner(self, request: Request, repo_id: str) -> str:
        user, owner = self._user(request), repo_id.split("/")[0]
        if user is None:
            raise HubError(401, "Invalid username or password.")
        if user != owner:
            raise HubError(403, f"You don't have the rights to write under the namespace {owner!r}")
        return user

    # Reading

    def _revision(self, request: Request, repo_id: str, revision: str) -> tuple[Repository, Commit]:
        repository = self._seen(request, repo_id)
        commit = repository.find(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, commit

    def _file(self, request: Request, repo_id: str, revision: str, path: str) -> tuple[Commit, Blob]:
        repository, user = self._seen(request, repo_id), self._user(request)
        if repository.gated and user not in repository.readers:
            message = f"Access to model {repo_id} is restricted. You must have access to it and be authenticated."
            raise HubError(403 if user else 401, message, "GatedRepo")
        _, commit = self._revision(request, repo_id, revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
        return commit, commit.files[path]

    def _resolve(self, request: Request, repo_id: str, revision: str, path: str) -> Response:
        commit, blob = self._file(request, repo_id, revision, path)
        if is_lfs(path, blob):
            self.objects[blob.sha256] = blob
            status, etag = 302, blob.sha256
            location = f"{self.storage_url}/storage/{repo_id}/{etag}/{quote(path)}"
        else:
            status, etag = 307, blob.git_oid
            location = f"/api/resolve-cache/models/{repo_id}/{commit.oid}/{quote(path)}"
        told = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(blob.size)}
        return Response(status, {"Location": location, **told}, ranges=True)

    def _stored(self, request: Request, repo_id: str, oid: str) -> Response:
        if "Authorization" in request.headers:
            raise HubError(400, "Only one auth mechanism allowed; the address is signed")
        if oid not in self.objects:
            raise HubError(404, "The specified key does not exist.")
        return Response(200, {"ETag": f'"{oid}"'}, self.objects[oid], ranges=True)

    def _info(self, request: Request, repo_id: str, revision: str) -> Response:
        repository, commit = self._revision(request, repo_id, revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in commit.files]
        if "blobs" in request.query:
            for sibling, (path, blob) in zip(siblings, commit.files.items(), strict=True):
                sibling |= {"size": blob.size, "blobId": blob_oid(path, blob)}
                if is_lfs(path, blob):
                    sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(_pointer(blob))}
        return _json(
            {
                "id": repo_id,
                "modelId": repo_id,
                "author": repo_id.split("/")[0],
                "sha": commit.oid,
                "lastModified": commit.date,
                "createdAt": repository.commits[0].date,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": [],
                "siblings": siblings,
            }
        )

    def _tree(self, request: Request, repo_id: str, revision: str, folder: str) -> Response:
        _, commit = self._revision(request, repo_id, revision)
        entries = _entries(commit)
        if folder and entries.get(folder, {}).get("type") != "directory":
            raise HubError(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        deep = request.query.get("recursive", "").lower() in ("true", "1")
        parent = PurePosixPath(folder)
        within = {path: PurePosixPath(path).parents for path in entries}
        return _json([entries[p] for p, above in within.items() if (parent in above if deep else parent == above[0])])

    def _paths_info(self, request: Request, repo_id: str, revision: str) -> Response:
        _, commit = self._revision(request, repo_id, revision)
        entries = _entries(commit)
        return _json([entries[path] for path in _form(request, "paths") if path in entries])

    def _whoami(self, request: Request) -> Response:
        name = self._user(request)
        if name is None:
            raise HubError(401, "Invalid username or password.")
        return _json({"type": "user", "name": name, "fullname": name, "orgs": []})

    # Writing

    def _create(self, request: Request) -> Response:
        asked = json.loads(request.body)
        owner = asked.get("organization") or self._user(request)
        repo_id = f"{owner}/{asked['name']}"
        self._check_owner(request, repo_id)
        told = {"url": f"{self.url}/{repo_id}", "name": repo_id}
        if repo_id in self.repositories:
            return _json({"error": "You already created this model repo", **told}, 409)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS_SUFFIXES)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.add(repo_id, {".gitattributes": attributes.encode()}, private=private)
        return _json(told)

    def _preupload(self, request: Request, repo_id: str, revision: str) -> Response:
        self._writable(request, repo_id)
        _, commit = self._revision(request, repo_id, revision)
        files = []
        for file in json.loads(request.body)["files"]:
            path, here = file["path"], commit.files.get(file["path"])
            lfs = path.endswith(_LFS_SUFFIXES) or file["size"] >= _LFS_SIZE
            told = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            files.append(told | ({"oid": here.sha256 if lfs else here.git_oid} if here else {}))
        return _json({"files": files})

    def _batch(self, request: Request, repo_id: str) -> Response:
        self._writable(request, repo_id)
        objects = []
        for told in json.loads(request.body)["objects"]:
            upload = {"href": f"{self.storage_url}/storage/{repo_id}/{told['oid']}", "header": {}}
            objects.append(told if told["oid"] in self.objects else {**told, "actions": {"upload": upload}})
        return _json({"transfer": "basic", "objects": objects})

    def _store(self, request: Request, oid: str) -> Response:
        blob = Blob(request.body)
        if blob.sha256 != oid:
            raise HubError(400, "The SHA-256 of the content does not match")
        self.objects[oid] = blob
        return Response(200, {"ETag": f'"{oid}"'})

    def _commit(self, request: Request, repo_id: str, branch: str) -> Response:
        repository = self._writable(request, repo_id)
        _, parent = self._revision(request, repo_id, branch)
        header: dict[str, Any] = {}
        files: dict[str, Blob | None] = {}
        for line in map(json.loads, request.body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    header = value
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]))
                case "lfsFile":
                    blob = self.objects.get(value["oid"])
                    if blob is None or blob.size != value.get("size", blob.size):
                        raise HubError(400, f"LFS object of {value['path']} was not uploaded")
                    files[value["path"]] = blob
                case "deletedFile":
                    files[value["path"]] = None
                case "deletedFolder":
                    folder = value["path"].rstrip("/") + "/"
                    files |= {path: None for path in parent.files if path.startswith(folder)}
        if header.get("parentCommit") not in (None, parent.oid):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        oid = repository.commit(files, header["summary"], branch)
        return _json({"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{repo_id}/commit/{oid}"})


def is_lfs(path: str, blob: Blob) -> bool:
    """Whether a file is in the storage, with a pointer to it in git."""
    return path.endswith(_LFS_SUFFIXES) or blob.size >= _LFS_SIZE


def blob_oid(path: str, blob: Blob) -> str:
    """What git calls the file: for a large one, the name of the pointer."""
    return Blob(_pointer(blob)).git_oid if is_lfs(path, blob) else blob.git_oid


def _pointer(blob: Blob) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{blob.sha256}\nsize {blob.size}\n".encode()


def _blobs(files: Files) -> dict[str, Blob | None]:
    if isinstance(files, Path):
        files = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}
    return {path: Blob(file) if isinstance(file, bytes | Path) else file for path, file in files.items()}


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Files and folders by path, as the Hub lists them."""
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in commit.files.items():
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            oid = hashlib.sha1(f"{commit.oid}/{folder}".encode()).hexdigest()
            entries[str(folder)] = {"type": "directory", "path": str(folder), "oid": oid, "size": 0}
        entries[path] = {"type": "file", "path": path, "oid": blob_oid(path, blob), "size": blob.size}
        if is_lfs(path, blob):
            entries[path]["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(_pointer(blob))}
    return entries


def _form(request: Request, name: str) -> list[str]:
    """The values of a field, sent as a form or as JSON."""
    if "json" in request.headers.get("Content-Type", ""):
        return list(json.loads(request.body)[name])
    return [value for key, value in parse_qsl(request.body.decode()) if key == name]


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = Blob(json.dumps(value).encode())
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)
