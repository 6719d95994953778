"""The Hugging Face Hub: files of model repositories, through ``huggingface_hub`` and its cache, and nothing else."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from codecbay.errors import SourceError
from codecbay.files import make_parents, written_whole
from codecbay.remote.http import RangeFile

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class HubTree:
    """The files of a repository at one revision.

    Attributes:
        repo_id: ``owner/name``.
        revision: a branch, a tag or a commit; ``main`` where none is given.
    """

    repo_id: str
    revision: str | None = None

    @property
    def address(self) -> str:
        """``hf://owner/name@revision``."""
        return f"hf://{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    @cached_property
    def _info(self) -> Any:
        from huggingface_hub import HfApi

        with _told(self):
            return HfApi(library_name="codecbay").model_info(self.repo_id, revision=self.revision, files_metadata=True)

    @property
    def commit(self) -> str:
        """What the revision stands for now; the cached one, where the Hub cannot be asked."""
        snapshot = self._offline
        return snapshot.name if snapshot is not None else str(self._info.sha)

    @property
    def _cache(self) -> Path:
        """The repository's part of the cache: https://huggingface.co/docs/huggingface_hub/guides/manage-cache."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repo_id, repo_type="model")

    @property
    def _reference(self) -> Path:
        """The file of the cache that tells which commit the revision stands for."""
        from huggingface_hub import constants

        return self._cache / "refs" / (self.revision or constants.DEFAULT_REVISION)

    @cached_property
    def _offline(self) -> Path | None:
        """The directory of the cache that holds the revision, where the Hub must not be asked."""
        from huggingface_hub import constants

        if not constants.HF_HUB_OFFLINE:
            return None
        reference = self._reference
        commit = reference.read_text().strip() if reference.is_file() else reference.name
        snapshot = self._cache / "snapshots" / commit
        if not snapshot.is_dir():
            raise SourceError(
                f"{self.address}: is not in the cache, and HF_HUB_OFFLINE is set. Fetch it where there is a network: "
                f"'codecbay download {self.repo_id}'."
            )
        return snapshot

    def names(self) -> list[str]:
        """The paths of all files; offline, of those in the cache."""
        if self._offline is not None:
            return [path.relative_to(self._offline).as_posix() for path in self._offline.rglob("*") if path.is_file()]
        return [sibling.rfilename for sibling in self._info.siblings or ()]

    def size(self, name: str) -> int | None:
        """Bytes of a file, or ``None`` where there is no such file."""
        if self._offline is not None:
            path = self._offline / name
            return path.stat().st_size if path.is_file() else None
        return next((s.size or 0 for s in self._info.siblings or () if s.rfilename == name), None)

    def open(self, name: str) -> io.RawIOBase:
        """A file to read from: the one in the cache, or by ranges."""
        from huggingface_hub import hf_hub_url, try_to_load_from_cache
        from huggingface_hub.utils import build_hf_headers

        cached = try_to_load_from_cache(self.repo_id, name, revision=self.commit)
        if isinstance(cached, str):
            return io.FileIO(cached)
        size = self.size(name)
        if size is None:
            raise SourceError(f"{self.address}: there is no file '{name}' in the repository.")
        url = hf_hub_url(self.repo_id, name, revision=self.commit)
        return RangeFile(url, size, build_hf_headers(library_name="codecbay"))

    def fetch(self, name: str, *, progress: bool) -> Path:
        """The whole file, in the cache; one that was not there is compared with the hash that the Hub tells.

        Raises:
            SourceError: it cannot be fetched, or is not what the Hub says it is.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.utils import (
            disable_progress_bars,
            enable_progress_bars,
        )

        cached = try_to_load_from_cache(self.repo_id, name, revision=self.commit)
        if isinstance(cached, str):
            return Path(cached)
        if not progress:
            disable_progress_bars()
        try:
            with _told(self, name):
                path = Path(hf_hub_download(self.repo_id, name, revision=self.commit, library_name="codecbay"))
        finally:
            if not progress:
                enable_progress_bars()
        expected = next((s.lfs.sha256 for s in self._info.siblings or () if s.rfilename == name and s.lfs), None)
        if expected is not None and _sha256(path) != expected:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise SourceError(f"{self.address}/{name}: what came is not what the Hub says it is. Try again.")
        if self.revision != self.commit:  # offline, the cache is asked by the revision's own name
            make_parents(self._reference)
            with written_whole(self._reference) as file:
                file.write_text(self.commit)
        return path


def upload(directory: Path, repo_id: str, *, private: bool = False) -> str:
    """Make a repository, where there is none, and commit the files of a directory to it.

    Args:
        directory: with the files.
        repo_id: ``owner/name``.
        private: keep it private, if it is made now.

    Returns:
        The address of the commit.

    Raises:
        SourceError: the Hub does not take it.
    """
    from huggingface_hub import HfApi

    with _told(HubTree(repo_id)):
        api = HfApi(library_name="codecbay")
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message="Export with codecbay"))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _told(tree: HubTree, name: str = "") -> Iterator[None]:
    """Says what the Hub, or the way there, has against a request."""
    from huggingface_hub import errors

    repo, where = tree.repo_id, f"{tree.address}/{name}" if name else tree.address
    try:
        yield
    except errors.GatedRepoError:
        raise SourceError(
            f"{where}: access has to be asked for at https://huggingface.co/{repo}; then log in with 'hf auth login'."
        ) from None
    except errors.RepositoryNotFoundError:
        raise SourceError(
            f"{where}: there is no such model on the Hub, or it is private: then log in with 'hf auth login'."
        ) from None
    except errors.RevisionNotFoundError:
        raise SourceError(f"{where}: the repository has no revision '{tree.revision}'.") from None
    except errors.LocalEntryNotFoundError as error:
        raise SourceError(
            f"{where}: the Hub cannot be reached, and the cache does not hold the file: {_line(error)}"
        ) from None
    except errors.EntryNotFoundError:
        raise SourceError(f"{where}: there is no such file in the repository.") from None
    except errors.HfHubHTTPError as error:
        raise SourceError(f"{where}: the Hub refuses: {_line(error)}") from None
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        raise SourceError(f"{where}: the Hub cannot be reached: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
