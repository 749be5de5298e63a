from __future__ import annotations

import threading

import numpy as np
import pytest

from nanochat.data.text.batches import PretrainBatches
from nanochat.data.text.prefetch import Prefetch
from nanochat.errors import DataError, Interrupted


class Maker:
    """Returns its step once it is allowed to, and remembers what it was asked for."""

    def __init__(self, open_=True):
        self.asked = []
        self.gate = threading.Event()
        if open_:
            self.gate.set()

    def __call__(self, step):
        self.asked.append(step)
        assert self.gate.wait(60)
        return f"batch {step}"


def settled(prefetch):
    """Wait until nothing more is under way."""
    for _, future in list(prefetch._pending):
        future.result(60)


def test_a_training_run_gets_the_batches_that_it_would_have_read(make_shard):
    shards = [make_shard([f"document {i} of many" for i in range(90)])]
    batches = PretrainBatches(shards, 3, 16, 1, 256)
    with Prefetch(batches.batch, 40, ahead=3) as batch:
        for step in (*range(12), 5, 6, 7, *range(30, 40)):  # a restart goes back, another one forward
            for a, b in zip(batch(step), batches.batch(step), strict=True):
                assert np.array_equal(a, b)


def test_so_many_results_are_ahead_and_never_more_nor_beyond_the_end():
    make = Maker()
    with Prefetch(make, 6, ahead=3) as batch:
        assert batch(0) == "batch 0"
        settled(batch)
        assert make.asked == [0, 1, 2, 3]
        assert batch(1) == "batch 1"
        settled(batch)
        assert make.asked == [0, 1, 2, 3, 4]
        for step in range(2, 6):
            assert batch(step) == f"batch {step}"
    assert make.asked == [0, 1, 2, 3, 4, 5]


def test_an_error_is_raised_at_its_own_step_and_a_later_call_tries_again():
    left = [1]

    def make(step):
        if step == 2 and left.pop():
            left.append(0)
            raise DataError("damaged")
        return step

    with Prefetch(make, 9, ahead=4) as batch:
        assert [batch(0), batch(1)] == [0, 1]
        with pytest.raises(DataError, match="damaged"):
            batch(2)
        assert [batch(2), batch(3)] == [2, 3]


def test_a_time_out_of_the_source_is_no_endless_wait():
    def make(step):
        raise TimeoutError("the source")

    with Prefetch(make, 1) as batch, pytest.raises(TimeoutError, match="the source"):
        batch(0)


def test_a_wait_ends_when_the_run_is_asked_to_stop_and_is_counted():
    make = Maker(open_=False)

    def stop():
        raise Interrupted("asked to stop")

    with Prefetch(make, 5, check_stop=stop) as batch:
        with pytest.raises(Interrupted):
            batch(0)
        assert batch.wait_s > 0
        make.gate.set()


def test_closing_ends_the_thread_and_drops_what_was_ahead():
    asked, under_way, gate = [], threading.Event(), threading.Event()

    def make(step):
        asked.append(step)
        if step:
            under_way.set()
            assert gate.wait(60)
        return step

    batch = Prefetch(make, 50, ahead=20)
    assert batch(0) == 0
    assert under_way.wait(60)
    batch.close()
    gate.set()
    for worker in batch._thread._threads:
        worker.join(60)
        assert not worker.is_alive()
    assert asked == [0, 1]
    with pytest.raises(RuntimeError):
        batch(1)


def test_a_step_outside_of_the_run_is_an_error():
    with Prefetch(Maker(), 3) as batch:
        for step in (-1, 3):
            with pytest.raises(IndexError, match=f"step {step} of 3"):
                batch(step)
