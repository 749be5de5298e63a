from __future__ import annotations

import os
import signal
import time

import pytest

from nanochat.data.text.own_process import ProcessDied, in_own_process
from nanochat.errors import DataError


def add(a, b, report):
    report(1, 2)
    report(2, 2)
    return a + b, os.getpid()


def refuse(report):
    raise DataError("no", hint="another")


def die(report):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(marker, report):
    marker.write_text(str(os.getpid()))
    time.sleep(600)


def test_the_result_comes_from_another_process_with_its_reports():
    reports = []
    total, pid = in_own_process(add, 2, 3, report=lambda *report: reports.append(report))
    assert total == 5
    assert pid != os.getpid()
    assert reports == [(1, 2), (2, 2)]


def test_an_error_keeps_its_message_and_hint():
    with pytest.raises(DataError, match="no") as caught:
        in_own_process(refuse)
    assert caught.value.hint == "another"


def test_a_killed_process_is_an_error_and_no_endless_wait():
    with pytest.raises(ProcessDied, match="ended without an answer"):
        in_own_process(die)


def test_a_stop_ends_a_process_that_does_not_listen(tmp_path):
    marker = tmp_path / "pid"

    def stop():
        if marker.exists() and marker.read_text():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        in_own_process(wait_for_ever, marker, check_stop=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
