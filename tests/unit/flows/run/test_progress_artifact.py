"""The bar in the Prefect UI, with the two calls to Prefect recorded, failing or hanging."""

from __future__ import annotations

import threading

import pytest

from flows.run import progress_artifact
from flows.run.progress_artifact import ProgressArtifact

PAGE = "http://127.0.0.1:5000/#/experiments/1/runs/abc"


@pytest.fixture
def bar(monkeypatch):
    def bar(send):
        monkeypatch.setattr(progress_artifact, "create_progress_artifact", send)
        monkeypatch.setattr(progress_artifact, "update_progress_artifact", lambda _, *a, **k: send(*a, **k))
        return ProgressArtifact("download/Part_0.c000", lambda: PAGE, every_s=0.0)

    return bar


def test_the_newest_numbers_are_shown_and_lead_to_the_metrics_in_mlflow(bar):
    sent = []

    def send(percent, **shown):
        sent.append((percent, shown))
        return "id"

    shown = bar(send)
    for step in (1, 2, 3, 4):
        shown.log({"train/loss": 0.5 + step}, step=step, total_steps=4)
    shown.close()
    assert sent[0][1]["key"] == "progress-download-part-0-c000"
    percent, last = sent[-1]
    assert percent == 100.0
    assert last["description"] == f"step 4/4: train/loss 4.5 — [metrics in MLflow]({PAGE})"


def test_a_server_that_hangs_holds_up_no_step(bar, monkeypatch):
    monkeypatch.setattr(progress_artifact, "_LAST_ONE_S", 0.0)
    answer = threading.Event()
    shown = bar(lambda percent, **_: answer.wait())
    for step in range(100):
        shown.log({}, step=step, total_steps=100)
    shown.close()
    assert not answer.is_set()
    answer.set()
    shown._thread.join(60)  # while what it calls is not Prefect's own, which would start a server
    assert not shown._thread.is_alive()


def test_after_a_failure_the_bar_is_sent_again(bar, caplog):
    sent, failed = [], threading.Event()

    def send(percent, **shown):
        if not failed.is_set():
            failed.set()
            raise ConnectionRefusedError("no server")
        sent.append(percent)
        return "id"

    shown = bar(send)
    shown.log({}, step=1, total_steps=4)
    assert failed.wait(60)
    shown.log({}, step=4, total_steps=4)
    shown.close()
    assert sent[-1] == 100.0  # what failed may have been sent again before
    assert caplog.text.count("does not reach Prefect") == 1
