"""One queue before several engines: each takes its share, and no more waits than may."""

from __future__ import annotations

import threading

import pytest

from nanochat.config import Sampling
from nanochat.serve.job_desk import AnswerJob, JobDesk, NoEngine, QueueFull


def jobs(count):
    return [AnswerJob((1,), Sampling(), lambda news: None) for _ in range(count)]


def desk(*, rows, queue, engines):
    made = JobDesk(rows=rows, queue=queue)
    for engine in range(engines):
        made.join(engine)
    return made


def test_jobs_are_taken_in_order_and_up_to_the_places():
    one, asked = desk(rows=2, queue=5, engines=1), jobs(4)
    one.put(asked)
    assert one.take(0) == asked[:2]
    assert (one.waiting, one.take(0)) == (2, [])
    one.done(0)
    assert one.take(0) == asked[2:3]


def test_an_engine_takes_no_job_while_another_has_fewer():
    two, asked = desk(rows=3, queue=9, engines=2), jobs(5)
    two.put(asked)
    taken = {0: [], 1: []}
    for engine in (0, 0, 1, 1, 0, 1, 0, 0, 1):
        taken[engine] += two.take(engine)
        assert abs(len(taken[0]) - len(taken[1])) <= 1
    assert sorted(map(len, taken.values())) == [2, 3]
    assert sorted(asked.index(job) for each in taken.values() for job in each) == list(range(5))


def test_what_finds_no_place_is_refused_whole():
    one = desk(rows=2, queue=1, engines=1)
    with pytest.raises(QueueFull):
        one.put(jobs(4))
    assert one.waiting == 0
    one.put(jobs(3))
    one.take(0)
    with pytest.raises(QueueFull):
        one.put(jobs(1))


def test_a_cancelled_job_makes_place_at_once():
    one, asked = desk(rows=1, queue=1, engines=1), jobs(2)
    one.put(asked)
    one.take(0)
    one.cancel(asked)
    assert one.waiting == 0 and asked[0].cancelled
    one.put(jobs(1))


def test_an_idle_engine_waits_until_there_is_a_job_or_the_end():
    one, found = desk(rows=1, queue=1, engines=1), []
    thread = threading.Thread(target=lambda: found.extend((one.take(0), one.done(0), one.take(0))))
    thread.start()
    asked = jobs(1)
    one.put(asked)
    one.close()
    thread.join(30)
    assert not thread.is_alive()
    assert found in ([asked, None, None], [None, None, None])
    with pytest.raises(NoEngine):
        one.put(jobs(1))


def test_the_last_engine_that_leaves_leaves_nobody_waiting():
    two, asked = desk(rows=1, queue=2, engines=2), jobs(2)
    two.put(asked)
    assert two.leave(0) == []
    assert two.leave(1) == asked
    with pytest.raises(NoEngine):
        two.put(jobs(1))
