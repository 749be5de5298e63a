"""Which jail this machine can build: the strongest whose trial works.

A trial judges one tiny program, so whatever the system forbids (user namespaces in a container, an old
kernel) is found out by doing it. Nothing is weakened silently: without a jail, model-written code runs only
where the user has allowed it.
"""

from __future__ import annotations

import functools
import logging
import sys

from nanochat.evals.jail.judging import Attempt, JailError, Level, judge

log = logging.getLogger(__name__)

LEVELS: tuple[Level, ...] = ("seatbelt",) if sys.platform == "darwin" else ("namespaces", "landlock")
ALLOW = "--allow-unsafe-code"

_TRIAL = Attempt(program="def one(): return 1", test="def check(f): assert f() == 1", entry_point="one")


def strongest(*, allow_unsafe_code: bool) -> Level:
    """Return the strongest level that works here; raises JailError where none does and none is needed."""
    level, reasons = _tried()
    if level is not None:
        return level
    if not allow_unsafe_code:
        raise JailError(
            f"code that a model wrote cannot be jailed on this machine ({'; '.join(reasons)})",
            hint="use Linux 5.13 or later with Landlock, or evaluate.chat_tasks without humaneval;"
            f" {ALLOW} runs the code all the same, and it can do whatever you can",
        )
    log.warning("model-written code runs without a jail (%s): %s", ALLOW, "; ".join(reasons))
    return "none"


@functools.cache
def _tried() -> tuple[Level | None, tuple[str, ...]]:
    reasons = []
    for level in LEVELS:
        try:
            verdict = judge(_TRIAL, level)
        except JailError as error:
            reasons.append(f"{level}: {error}")
        else:
            if verdict.status == "success":
                return level, tuple(reasons)
            reasons.append(f"{level}: a trial ended with {verdict.status}, {verdict.detail}")
    return None, tuple(reasons)
