from __future__ import annotations

import errno

import pytest

from flows.store.storage.retry import Retry, ShortRead
from nanochat.errors import Damaged, StoreError, StoreUnavailable

QUICK = Retry(attempts=4, first_wait_s=0.001)


class Failing:
    """Raises an error a number of times, then returns."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "done"


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        OSError(errno.EIO, "io"),
        ShortRead("cut"),
        OSError("no number"),
    ],
)
def test_transient_errors_are_tried_again(error):
    operation = Failing(error, 3)
    assert QUICK.call("read x", operation) == "done"
    assert operation.calls == 4


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FileNotFoundError("gone"), FileNotFoundError),
        (FileExistsError("there"), FileExistsError),
        (PermissionError("no"), StoreError),
        (OSError(errno.EROFS, "read-only"), StoreError),
        (OSError(errno.ENOSPC, "full"), StoreError),
        (OSError(errno.ENAMETOOLONG, "long"), StoreError),
        (Damaged("known"), Damaged),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
    ],
)
def test_what_will_not_change_is_raised_at_once(error, raised):
    operation = Failing(error, 99)
    with pytest.raises(raised):
        QUICK.call("read x", operation)
    assert operation.calls == 1


@pytest.mark.parametrize(
    ("error", "raised"),
    [(TimeoutError("slow"), StoreUnavailable), (ShortRead("3 of 9 bytes arrived"), Damaged)],
)
def test_what_does_not_get_better_is_told_with_a_hint(error, raised):
    operation = Failing(error, 99)
    with pytest.raises(raised, match="read x") as told:
        QUICK.call("read x", operation)
    assert operation.calls == 4 and told.value.hint
