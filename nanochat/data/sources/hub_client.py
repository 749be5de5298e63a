"""The model hub through its own library: where it is, who may read it, and what a data set has at a revision.

So the library's settings hold: `HF_ENDPOINT` names a mirror, `HF_TOKEN` (or a stored login) opens private and
gated data sets, `HF_HUB_OFFLINE` forbids asking. The token goes to addresses below the hub's own and to no
other. The files themselves are fetched by `nanochat.data.sources.transfer`. The library is imported late:
a plan needs none of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from nanochat.data.sources.patience import STALL_S, patience
from nanochat.errors import ConfigError, DataError, SourceUnavailable, http_status, is_refusal, is_transient

_DEFAULT = "https://huggingface.co"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKEN_HINT = "if it is private or gated, set HF_TOKEN to the token of an account that may read it"


@dataclass(frozen=True)
class HubFile:
    """One file of a data set."""

    path: str
    size_bytes: int | None
    sha256: str | None  # of large files only
    mark: str  # identifies its content


@dataclass(frozen=True)
class HubListing:
    """All files of a data set at one commit."""

    commit: str
    files: tuple[HubFile, ...]


def hub_address() -> str:
    """Return the address of the hub: that of `HF_ENDPOINT`, or the public one."""
    address = str(_constants().ENDPOINT) or _DEFAULT
    if not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"HF_ENDPOINT is {address!r}, which is not a web address",
            hint="use https://host of a mirror, or unset it",
        )
    return address


def at_mirror(url: str) -> str:
    """Return where to fetch an address of the public hub: from the mirror, if `HF_ENDPOINT` names one."""
    return hub_address() + url.removeprefix(_DEFAULT) if url.startswith(f"{_DEFAULT}/") else url


def access_headers(url: str, hub: str | None = None) -> dict[str, str]:
    """Return the headers with the user's token for an address of the hub, and none for any other.

    Raises ConfigError for the hub's own where the user has forbidden asking it.
    """
    if not url.startswith(f"{hub or hub_address()}/"):
        return {}
    require_online(url)
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented

    return build_hf_headers(library_name="nanochat")


def require_online(address: str) -> None:
    """Raise ConfigError if the user has forbidden asking the hub."""
    if _constants().is_offline_mode():
        name = next((name for name in _OFFLINE if os.environ.get(name)), _OFFLINE[0])
        raise ConfigError(
            f"{address}: not asked, since {name} is {os.environ.get(name)}",
            hint=f"unset {name}, or name a folder that has the files instead of the hub",
        )


def list_data_set(repo: str, revision: str, hub: str, check_stop: Callable[[], None]) -> HubListing:
    """Return the files of a data set at the commit that `revision` means now.

    Raises DataError if there is none that the user may read, SourceUnavailable if the hub does not answer.
    """
    page = f"{hub}/datasets/{repo}"
    require_online(page)
    import httpx2  # the library lets this client's errors through
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    asked = (HfHubHTTPError, httpx2.TransportError)
    retry = patience(check_stop, lambda error: isinstance(error, asked) and is_transient(error))
    api = HfApi(endpoint=hub, library_name="nanochat")
    try:
        info = retry(api.dataset_info, repo, revision=revision, files_metadata=True, timeout=STALL_S)
        files = tuple(
            HubFile(
                path=file.rfilename,
                size_bytes=file.size,
                sha256=file.lfs.sha256 if file.lfs else None,
                mark=(file.lfs and file.lfs.sha256) or file.blob_id or revision,
            )
            for file in info.siblings or ()
        )
    except asked as error:
        raise _explained(error, page, revision) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{page}: not answered with a listing of files: {type(error).__name__}: {error}",
            hint="does tasks.source or HF_ENDPOINT name a hub?",
        ) from error
    return HubListing(info.sha or revision, files)


def file_address(repo: str, path: str, commit: str, hub: str) -> str:
    """Return where the bytes of a data set's file are."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, path, repo_type="dataset", revision=commit, endpoint=hub)


def _explained(error: Exception, page: str, revision: str) -> DataError:
    """Return the error that explains an answer of the hub to the user."""
    from huggingface_hub import errors

    said = getattr(error, "server_message", None) or str(error).partition("\n")[0]
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError(f"{page}: no revision {revision!r}: {said}", hint="is tasks.revision right?")
    if isinstance(error, errors.GatedRepoError):
        hint = f"ask for access on {page}, and set HF_TOKEN to a token of the account that has it"
        return DataError(f"{page}: gated: {said}", hint=hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        return DataError(f"{page}: not a data set that you can read: {said}", hint=TOKEN_HINT)
    if http_status(error) in (401, 403):
        return DataError(f"{page}: access refused: {said}", hint="is HF_TOKEN right? " + TOKEN_HINT)
    if is_refusal(error):
        return DataError(f"{page}: cannot be listed: {said}", hint="does tasks.source name a hub?")
    return SourceUnavailable(
        f"{page}: no answer: {type(error).__name__}: {said}",
        hint="check the address and the network; what has arrived is kept, and the next run continues there",
    )


def _constants() -> ModuleType:
    """Import the library's settings, which it reads from the environment once; telemetry is off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants

    return constants
