"""Whether and when a source is asked again: after growing pauses, or when it asks to be (`Retry-After`).

What the caller asks for, and what a failure means to its user, is not decided here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import tenacity

_log = logging.getLogger(__name__)

STALL_S = 30.0
"""How long a web server may send nothing before it is asked again."""
_ATTEMPTS = 6
_LONGEST_ASKED_PAUSE_S = 300.0
_LOOK_S = 0.5  # how late a pause may notice that the run was asked to stop


def patience(
    check_stop: Callable[[], None], is_passing: Callable[[BaseException], bool], *, pause_s: float = 1.0
) -> tenacity.Retrying:
    """Return what retries a function while its errors are passing ones: six attempts, growing pauses."""
    backoff = tenacity.wait_exponential_jitter(multiplier=pause_s, max=30 * pause_s, jitter=pause_s)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), min(_asked_pause_s(error), _LONGEST_ASKED_PAUSE_S))

    def sleep(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            check_stop()
            time.sleep(min(left, _LOOK_S))

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=wait,
        sleep=sleep,
        retry=tenacity.retry_if_exception(is_passing),
        before_sleep=tenacity.before_sleep_log(_log, logging.WARNING),
        reraise=True,
    )


def _asked_pause_s(error: BaseException | None) -> float:
    """Return the seconds that the server asked to wait: `Retry-After` holds a number or a date."""
    headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None)
    asked = str((headers or {}).get("Retry-After", "")).strip()
    if asked.isdecimal():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
