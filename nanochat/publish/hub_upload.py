"""A folder's way to a model's page on the hub, through the hub's own library.

What is there already is known by its hash and not sent again, so that a second push sends nothing, and one
that was cut off goes on. The token (`HF_TOKEN`, or a stored login) stays with the library. Not here: which
files a model has, and whether its owner agrees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanochat.data.sources.hub_client import hub_address, require_online
from nanochat.errors import ConfigError, DataError, SourceUnavailable, http_status

_TOKEN_HINT = "set HF_TOKEN to a token that may write to {owner}'s models, or log in with `hf auth login`"
_CHUNK = 2**20


@dataclass(frozen=True)
class HubPage:
    """What a model's page has."""

    exists: bool
    private: bool
    marks: Mapping[str, str]  # path -> sha256 of a large file, git's hash of a small one
    commit: str | None = None  # the newest, where there is one


class HubModel:
    """One model on the hub, which may not be there yet."""

    def __init__(self, name: str) -> None:
        """Take owner/name."""
        from huggingface_hub import HfApi

        self.name = name
        self.address = f"{hub_address()}/{name}"
        require_online(self.address)
        self._api = HfApi(endpoint=hub_address(), library_name="nanochat")

    def account(self) -> str:
        """Return whose token is used; raise ConfigError if there is none that the hub knows."""
        with self._explained():
            return str(self._api.whoami()["name"])

    def page(self) -> HubPage:
        """Return what is there now."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._explained():
            try:
                info = self._api.model_info(self.name, files_metadata=True)
            except RepositoryNotFoundError:
                return HubPage(exists=False, private=True, marks={})
        marks = {f.rfilename: (f.lfs and f.lfs.sha256) or f.blob_id or "" for f in info.siblings or ()}
        return HubPage(exists=True, private=bool(info.private), marks=marks, commit=info.sha)

    def send(self, folder: Path, paths: Sequence[str], page: HubPage, *, private: bool, message: str) -> str:
        """Send files of a folder in one commit, to a new page if there is none; return the commit's address.

        A page that is not as it was seen is left alone. Raises DataError if it lacks the files afterwards.
        """
        from huggingface_hub import CommitOperationAdd

        with self._explained():
            self._api.create_repo(self.name, private=private, exist_ok=True)
            added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=folder / path) for path in paths]
            done = self._api.create_commit(
                self.name, added, commit_message=message, parent_commit=page.commit
            )
        if left := unsent(folder, paths, self.page().marks):
            raise DataError(f"{self.address} does not have {', '.join(left)} as sent", hint="push again")
        return str(done.commit_url)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the library's errors into ours."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

        hint = _TOKEN_HINT.format(owner=self.name.partition("/")[0])
        try:
            yield
        except LocalTokenNotFoundError:
            raise ConfigError(f"{self.address}: there is no token for the hub", hint=hint) from None
        except HFValidationError as error:
            raise ConfigError(f"{self.name!r} is not a name on the hub: {error}") from None
        except HfHubHTTPError as error:
            said = getattr(error, "server_message", None) or str(error).partition("\n")[0]
            if http_status(error) in (401, 403):
                raise ConfigError(f"{self.address}: refused: {said}", hint=hint) from None
            raise SourceUnavailable(
                f"{self.address}: {said}", hint="push again: what was sent is not sent twice"
            ) from None
        except (httpx2.TransportError, RuntimeError) as error:  # the latter for a file that was not taken
            raise SourceUnavailable(
                f"{self.address}: cut off: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
                hint="push again: what was sent is not sent twice",
            ) from None


def unsent(folder: Path, paths: Sequence[str], marks: Mapping[str, str]) -> list[str]:
    """Return those files of a folder that a page does not have, or has otherwise."""
    return [path for path in paths if path not in marks or marks[path] not in content_names(folder / path)]


def content_names(path: Path) -> tuple[str, str]:
    """Return what stores and the hub call a file by its content: its sha256, and git's hash of it."""
    whole, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
            git.update(chunk)
    return whole.hexdigest(), git.hexdigest()
