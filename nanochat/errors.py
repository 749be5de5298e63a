"""The tree of errors that reach a user, and which failures may be temporary.

NanochatError
├── ConfigError          a recipe or setting that cannot work
├── DataError            input that cannot be read or is not what it claims to be
│   └── SourceUnavailable  it does not answer; trying again later may help
├── FileError            the system refuses to read or write a file (`nanochat.system_errors`)
├── StoreError           the artifact store cannot do what was asked
│   ├── StoreUnavailable   it cannot be reached (never taken for a miss)
│   ├── Damaged            bytes are missing or differ from their hash
│   └── LeaseLost          another holder took over this stage
├── TrainingError        a training step went wrong
│   └── RankKilled         somebody ended one of its processes; it goes on from its restart point
├── Interrupted          the user or the system asked to stop; work so far is kept
└── StageFailed          a stage of a run failed; names it and how to continue

Each message gives the problem, the value and the limit; `hint` gives the way out, shown on its own line.
What is tried again, by the store, by a transfer, by a run and for MLflow, is decided here alone; how often
and how patiently, by each of them.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from nanochat.credentials import without_credentials
from nanochat.printable import printable

_ANSWERS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_NETWORK = (TimeoutError, ConnectionError, EOFError, socket.gaierror)
_NETWORK_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "requests", "urllib3", "gcsfs", "httpx", "httpx2")
_TRY_AGAIN = {
    errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET,
    errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ENETDOWN, errno.ENETUNREACH,
    errno.EHOSTUNREACH, errno.ENETRESET, errno.EREMOTEIO,
}  # fmt: skip
_TRY_AGAIN_STATUSES = {408, 425, 429}
_CREDENTIALS = "NoCredentials PartialCredentials CredentialRetrieval TokenRetrieval UnauthorizedSSOToken"


class NanochatError(Exception):
    """Base of all errors that a user is meant to read: printable and without credentials, always."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(printable(without_credentials(message)))
        self.hint = hint and printable(without_credentials(hint))


class ConfigError(NanochatError):
    """A recipe, field or setting that cannot work."""


class DataError(NanochatError):
    """Input data that cannot be read or is not what it claims to be."""


class SourceUnavailable(DataError):
    """A source of data that does not answer; trying again later may help."""


class FileError(NanochatError):
    """A file that the system refuses to read or write: a full disk, a read-only folder, a broken link."""


class StoreError(NanochatError):
    """The artifact store cannot do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached: an error, never a miss."""


class Damaged(StoreError):
    """Stored bytes are missing or do not match their hash."""


class LeaseLost(StoreError):
    """Another holder took over this stage; nothing may be published."""


class TrainingError(NanochatError):
    """A training step that must not be taken, such as a loss that is not finite."""


class RankKilled(TrainingError):
    """A process of a training was ended from outside; another try goes on from the last restart point."""


class Interrupted(NanochatError):
    """The run was asked to stop; what is finished is kept."""


class StageFailed(NanochatError):
    """A stage of a run failed."""


def behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then all those that it was raised from or while handling."""
    pending, seen = [error], set[int]()
    while pending:
        one = pending.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            pending += [each for each in (one.__context__, one.__cause__) if each is not None]


def fit_to_keep(error: BaseException) -> BaseException:
    """Return the error, or one of ours with its words if they carry credentials, which Prefect would keep."""
    if without_credentials(str(error)) == str(error):
        return error
    kind = SourceUnavailable if is_transient(error) else StageFailed
    return kind(f"{type(error).__name__}: {error}")


def is_transient(error: BaseException) -> bool:
    """Return whether the same work may succeed a moment later.

    Of our own errors those that say so; of others timeouts, broken connections, I/O errors and short
    answers (an OSError without a number). Not a missing file, refused access, a full disk, or a bug.
    """
    if isinstance(error, NanochatError):
        return isinstance(error, StoreUnavailable | SourceUnavailable | RankKilled)
    if isinstance(error, _ANSWERS) or is_refusal(error) or is_about_credentials(error):
        return False
    if isinstance(error, _NETWORK) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES:
        return True
    return isinstance(error, OSError) and (error.errno is None or error.errno in _TRY_AGAIN)


def is_refusal(error: BaseException) -> bool:
    """Return whether a server understood and refused, so that asking again is useless."""
    status = http_status(error)
    return status is not None and 400 <= status < 500 and status not in _TRY_AGAIN_STATUSES


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that a web client's error carries, whichever client raised it."""
    if ask := getattr(error, "get_http_status_code", None):  # MLflow
        status = ask()
    else:
        of_answer = getattr(getattr(error, "response", None), "status_code", None)  # httpx, requests
        status = getattr(error, "status", None) or of_answer  # aiohttp
    return status if isinstance(status, int) else None


def is_about_credentials(error: BaseException) -> bool:
    """Return whether there are no credentials to ask with."""
    name = type(error).__name__.removesuffix("Error")
    return type(error).__module__.startswith("botocore") and name in _CREDENTIALS.split()
