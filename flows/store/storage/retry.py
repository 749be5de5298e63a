"""Retries store operations when that may help, and explains in our words what went wrong when it does not.

Which failures may pass is `nanochat.errors.is_transient`. No storage access of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import tenacity

from nanochat.errors import (
    Damaged,
    NanochatError,
    StoreError,
    StoreUnavailable,
    is_about_credentials,
    is_refusal,
    is_transient,
)
from nanochat.system_errors import FULL, REFUSED, words

T = TypeVar("T")
logger = logging.getLogger(__name__)


class ShortRead(OSError):
    """Fewer or other bytes arrived than the object holds."""


@dataclass(frozen=True)
class Retry:
    """How often and how patiently an operation is tried again."""

    attempts: int = 6  # at least 2
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0

    def call(self, what: str, operation: Callable[[], T]) -> T:
        """Run `operation`, again where that may help; `what` names it in messages.

        Raises:
            FileNotFoundError, FileExistsError: unchanged; they are answers.
            StoreError: anything else, with a hint.
        """
        try:
            return operation()  # the machinery of retries is paid for only where it is needed
        except Exception as error:
            if not _may_pass(error):
                self._raise(error, what)
            logger.debug("%s failed: %s: %s", what, type(error).__name__, error)
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts - 1),
            wait=tenacity.wait_exponential_jitter(
                multiplier=2 * self.first_wait_s, max=self.longest_wait_s, jitter=self.first_wait_s
            ),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=tenacity.before_sleep_log(logger, logging.DEBUG),
            reraise=True,
        )
        time.sleep(self.first_wait_s)
        try:
            return retrying(operation)
        except Exception as error:
            self._raise(error, what)

    def _raise(self, error: Exception, what: str) -> NoReturn:
        explained = explain(error, what)
        if explained is None:
            raise error
        raise explained from error


def _may_pass(error: BaseException) -> bool:
    return is_transient(error) and not isinstance(error, NanochatError)  # our own errors are final


def explain(error: Exception, what: str) -> NanochatError | None:
    """Return the error that a user should read instead of `error`; None: let it pass as it is."""
    if isinstance(error, NanochatError):
        return None
    code = service_code(error)
    if code == "NoSuchBucket":
        return StoreUnavailable(
            f"{what}: the bucket does not exist", hint="create the bucket or correct --store"
        )
    if isinstance(error, ShortRead):
        return Damaged(f"{what}: {error}", hint="`nanochat verify` names what else is damaged")
    if isinstance(error, FileNotFoundError | FileExistsError):
        return None
    if is_about_credentials(error) or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
        return StoreUnavailable(
            f"{what}: the credentials were refused ({code or error})",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and AWS_ENDPOINT_URL"
            " for a service other than AWS",
        )
    if isinstance(error, OSError) and error.errno in FULL:
        problem, hint = words(error)
        return StoreError(f"{what}: {problem}", hint=hint)
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in REFUSED):
        return StoreError(
            f"{what}: access denied ({error})",
            hint="the store is read-only for this user: choose another --store, or allow access to it",
        )
    if is_transient(error):
        return StoreUnavailable(
            f"{what}: no answer from the store ({type(error).__name__}: {error})",
            hint="check the network, the endpoint and that the service runs; finished stages are kept",
        )
    if isinstance(error, OSError) and error.errno is not None:
        problem, hint = words(error)
        return StoreError(f"{what}: {problem}", hint=hint)
    if isinstance(error, OSError) or is_refusal(error):
        return StoreError(f"{what}: {error}")
    return None


def service_code(error: BaseException) -> str | None:
    """Return the error code that an S3 service sent, if one did."""
    for source in (error, error.__cause__):
        response = getattr(source, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
    return None
