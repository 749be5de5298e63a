"""A pipeline run in MLflow, shown without ever holding the run up.

`PipelineTracker` is made once per pipeline run: a parent run, and below it one run per stage. Its methods
only append to a bounded queue; one daemon thread imports MLflow (seconds of CPU), creates the runs and writes
in batches. Every MLflow error is caught and counted. A server that was never reached disables the tracker; an
outage during a run is waited out by the thread, not by the stage. The record of a stage is the JSONL file in
its artifact, never MLflow. Only `mlflow_sink` imports MLflow, and only in that thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

from nanochat.credentials import without_credentials
from nanochat.runtime import dotted
from nanochat.tracking.call_queue import CallQueue, Point, RunHandle
from nanochat.tracking.database import schema_problem
from nanochat.tracking.drain import Drain
from nanochat.tracking.made import Dataset, Made
from nanochat.tracking.mlflow_sink import MlflowSink, RunStatus
from nanochat.tracking.run_summary import PublishedModel
from nanochat.tracking.tags import CACHE_STATUS, CACHED, EXECUTED

_log = logging.getLogger(__name__)

_STOPPING_S = 2.0  # a run that was asked to stop waits for no window


class StageTracker:
    """The tracker of one stage's MLflow run; made by `PipelineTracker.stage`."""

    def __init__(self, queue: CallQueue, sink: MlflowSink, run: RunHandle) -> None:
        self._queue = queue
        self._sink = sink
        self.run = run
        self.logged: set[str] = set()  # names that have a history, which a last number would spoil

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Queue the numbers of a step."""
        self.logged.update(metrics)
        point = Point(dict(metrics), step, _now_ms())
        self._queue.put(self.run, self._sink.add_metrics, point, lossy=True)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Queue settings; nested ones get dotted names."""
        self._queue.put(self.run, partial(self._sink.add_params, params=_as_text(params)))

    def log_text(self, text: str, *, step: int) -> None:
        """Queue a sample."""
        self._queue.put(self.run, partial(self._sink.add_text, text=text, step=step), lossy=True)

    def close(self) -> None:
        """Do nothing: `PipelineTracker.finish_stage` ends the run, as only the engine knows how it went."""


class PipelineTracker:
    """Shows one pipeline run in MLflow. Every method returns at once unless its docstring says otherwise.

    All waiting of a whole run, for whatever reason, comes out of one budget, `patience_s`.
    """

    def __init__(
        self, uri: str, experiment: str = "nanochat", *, capacity: int = 20_000, patience_s: float = 10.0
    ) -> None:
        self._uri = uri
        self.address = without_credentials(uri)  # as it is shown
        self.abandoned = False  # `close` left before everything was written
        self._queue = CallQueue(capacity)
        self._sink = MlflowSink(uri, experiment)
        self._drain = Drain(f"MLflow at {self.address}", self._queue, self._sink)
        self._patience_s = patience_s
        self._patience_lock = threading.Lock()
        self._root: RunHandle | None = None
        self._runs: dict[str, RunHandle] = {}

    @property
    def disabled(self) -> bool:
        """Whether the tracker gave up on its server."""
        return self._drain.gave_up

    @property
    def errors(self) -> int:
        """How many calls to MLflow failed."""
        return self._drain.errors

    @property
    def dropped(self) -> int:
        """How many events were lost: queue full, refused by the server, or server away."""
        return self._queue.dropped + self._drain.lost

    def start_run(self, name: str, params: Mapping[str, object], tags: Mapping[str, str | None]) -> None:
        """Begin the parent run and start the draining thread."""
        self._root = RunHandle(name)
        self._begin(self._root, tags, params)
        self._start()

    def join_run(self, run_id: str) -> None:
        """Show stages below a parent run that another process has begun and will end."""
        self._root = RunHandle("", run_id=run_id, foreign=True)
        self._root.created.set()
        self._start()

    def _start(self) -> None:
        if problem := schema_problem(self._uri):
            what, way_out = problem
            self._drain.refuse(
                f"{what}; this run is not shown there\nhint: {way_out}; a later run completes it"
            )
        else:
            self._drain.start()

    def stage(
        self,
        node_id: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        datasets: Sequence[Dataset] = (),
    ) -> StageTracker:
        """Begin the run of a stage that executes; `datasets` are (name, digest, source) of its inputs."""
        run = RunHandle(node_id, parent=self._root)
        self._runs[node_id] = run
        self._begin(run, {CACHE_STATUS: EXECUTED, **tags}, params)
        if datasets:
            self._queue.put(run, partial(self._sink.add_datasets, datasets=tuple(datasets)))
        self._drain.open_runs.add(run)
        self._drain.sample(run)
        return StageTracker(self._queue, self._sink, run)

    def cached(
        self,
        node_id: str,
        *,
        record_tags: Mapping[str, str],
        metrics: Mapping[str, object],
        made: Made | None = None,
    ) -> None:
        """Show a stage that was a hit, linked to the run that `made` it, which is completed if need be."""
        run = RunHandle(node_id, parent=self._root)
        self._runs[node_id] = run
        self._begin(run, {**record_tags, CACHE_STATUS: CACHED})
        self._end(run, "FINISHED", metrics)
        if made:
            self._queue.put(run, partial(self._sink.complete, made=made))

    def finish_stage(
        self,
        tracker: StageTracker,
        status: RunStatus,
        metrics: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """End the run of a stage with its last numbers and tags."""
        self._drain.open_runs.discard(tracker.run)
        self._drain.sample(tracker.run)
        if tags:
            self._queue.put(tracker.run, partial(self._sink.add_tags, tags=dict(tags)))
        last = {k: v for k, v in (metrics or {}).items() if k not in tracker.logged}
        self._end(tracker.run, status, last)

    def sum_up(self, metrics: Mapping[str, float], model: PublishedModel | None = None) -> None:
        """Queue the numbers by which whole runs are compared and the published model, if the run is ours."""
        if self._root is not None and not self._root.foreign and metrics:
            point = Point(dict(metrics), 0, _now_ms())
            self._queue.put(self._root, partial(self._sink.sum_up, point=point, model=model))

    @property
    def comparison(self) -> str | None:
        """Return the page that compares this run with earlier ones, once written, if there is a server."""
        page = self._sink.comparison
        return f"{self.address.rstrip('/')}/{page}" if page and self._on_server else None

    @property
    def _on_server(self) -> bool:
        return self.address.startswith(("http://", "https://"))

    def run_id(self, node_id: str | None = None, *, wait_s: float = 2.0) -> str | None:
        """Return the MLflow id of a node's run, or of the parent run; None when not known within `wait_s`.

        Never waits for MLflow's import: `nanochat.key` finds a run as well.
        """
        run = self._root if node_id is None else self._runs.get(node_id)
        if run is None:
            return None
        if self._drain.loaded:
            self._wait_created(run, wait_s)
        return run.run_id

    def root_id(self) -> str | None:
        """Return the MLflow id of the parent run, for another process; waits for it and MLflow's import."""
        if self._root is None:
            return None
        self._wait_created(self._root, self._patience_s)
        return self._root.run_id

    def _wait_created(self, run: RunHandle, limit_s: float) -> None:
        if run.created.is_set() or self.disabled:
            return
        with self._patience_lock:
            begun = time.monotonic()
            self._queue.hurry()
            run.created.wait(min(limit_s, self._patience_s))
            self._patience_s = max(self._patience_s - (time.monotonic() - begun), 0.0)

    def url(self, node_id: str | None = None) -> str | None:
        """Return the page of a run whose id is already known, if the tracker writes to a server."""
        run_id, experiment_id = self.run_id(node_id, wait_s=0.0), self._sink.experiment_id
        if run_id is None or experiment_id is None or not self._on_server:
            return None
        return f"{self.address.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    def close(self, status: RunStatus = "FINISHED") -> None:
        """End the parent run if it is ours; wait for the queue, at most for what is left of the patience."""
        if self._root is None:
            return
        for run in list(self._drain.open_runs):
            self._end(run, "KILLED" if status == "KILLED" else "FAILED", {})
        self._drain.open_runs.clear()
        if not self._root.foreign:
            self._end(self._root, status, {})
        self._queue.close()
        limit_s = min(self._patience_s, _STOPPING_S) if status == "KILLED" else self._patience_s
        self.abandoned = not (self.disabled or self._drain.join(limit_s))
        if self.abandoned:
            late = "MLflow at %s did not take everything in time; the next run completes it"
            _log.warning(late, self.address)
        elif self.dropped and not self.disabled:
            _log.warning(
                "MLflow at %s: %d events were not shown; the next run completes it",
                self.address,
                self.dropped,
            )

    def _begin(
        self, run: RunHandle, tags: Mapping[str, str | None], params: Mapping[str, object] | None = None
    ) -> None:
        known = {name: str(value) for name, value in tags.items() if value is not None}
        self._queue.put(run, partial(self._sink.begin, tags=known, time_ms=_now_ms()))
        if params is not None:
            self._queue.put(run, partial(self._sink.add_params, params=_as_text(params)))

    def _end(self, run: RunHandle, status: RunStatus, metrics: Mapping[str, object]) -> None:
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
        if numbers:
            self._queue.put(run, self._sink.add_metrics, Point(numbers, 0, _now_ms()))
        self._queue.put(run, partial(self._sink.end, status=status, time_ms=_now_ms()))


def _as_text(params: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in dotted(params).items()}


def _now_ms() -> int:
    return int(time.time() * 1000)
