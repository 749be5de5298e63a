"""Trackers, and the MLflow window: a view of a pipeline run that can never hold it up.

`MlflowWindow` is made once per pipeline run: a parent run, and below it one run per stage. Its methods only
append to a bounded queue; one daemon thread imports MLflow (seconds of CPU), creates the runs and writes in
batches. Every MLflow error is caught and counted. A server that was never reached disables the window; an
outage in mid-run is waited out by the thread, not by the stage. The record of a stage is the JSONL file in
its artifact, never MLflow. This is the only module that imports MLflow, and only in that thread.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from nanochat.trackers import MemoryTracker, MultiTracker
from nanochat.tracking_database import database_file, database_ready
from nanochat.tracking_drain import Drain
from nanochat.tracking_queue import (
    AddDatasets,
    AddMetrics,
    AddParams,
    AddTags,
    AddText,
    BeginRun,
    Dataset,
    EndRun,
    RunHandle,
    RunStatus,
    TrackingEvent,
    TrackingQueue,
)

__all__ = ["MemoryTracker", "MlflowWindow", "MultiTracker", "StageTracker", "run_tags"]

_log = logging.getLogger(__name__)

# Defaults, so that what the user has set wins. MLflow's own would block each call for four minutes.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
_PROMPT_S = 0.2  # what each answer may take: a run has up to thousands of stages
_DIGEST_CHARS = 36  # what MLflow keeps of a data set's digest; the whole one is in the input's tags
_MAX_PARAM_CHARS, _MAX_TAG_CHARS, _MAX_PER_BATCH, _MAX_METRICS, _MAX_DATASETS = 6000, 8000, 100, 1000, 1000


class StageTracker:
    """The tracker of one stage's MLflow run; made by `MlflowWindow.stage`."""

    def __init__(self, queue: TrackingQueue, run: RunHandle) -> None:
        self._queue = queue
        self.run = run
        self.logged: set[str] = set()  # names that have a history, which a last number would spoil

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Queue the numbers of a step."""
        self.logged.update(metrics)
        self._queue.put(AddMetrics(self.run, dict(metrics), step, _now_ms()))

    def log_params(self, params: Mapping[str, object]) -> None:
        """Queue settings; nested ones get dotted names."""
        self._queue.put(AddParams(self.run, _flat(params)))

    def log_text(self, text: str, *, step: int) -> None:
        """Queue a sample."""
        self._queue.put(AddText(self.run, text, step))

    def close(self) -> None:
        """Do nothing: `MlflowWindow.finish_stage` ends the run, as only the engine knows how it went."""


class MlflowWindow:
    """Shows one pipeline run in MLflow. Every method returns at once unless its docstring says otherwise.

    All waiting on a server that does not answer promptly comes out of one budget, `patience_s`.
    """

    def __init__(
        self, uri: str, experiment: str = "nanochat", *, capacity: int = 20_000, patience_s: float = 10.0
    ) -> None:
        self.uri = uri
        self.abandoned = False  # `close` left before everything was written
        self._queue = TrackingQueue(capacity)
        self._drain = Drain(f"MLflow at {uri}", self._queue, lambda: _load(uri, experiment))
        self._patience_s = patience_s
        self._patience_lock = threading.Lock()
        self._root: RunHandle | None = None
        self._runs: dict[str, RunHandle] = {}

    @property
    def disabled(self) -> bool:
        """Whether the window gave up on its server."""
        return self._drain.gave_up

    @property
    def errors(self) -> int:
        """How many calls to MLflow failed."""
        return self._drain.errors

    @property
    def dropped(self) -> int:
        """How many events were lost: queue full, refused by the server, or server away."""
        return self._queue.dropped + self._drain.rejected

    def start_run(self, name: str, params: Mapping[str, object], tags: Mapping[str, str | None]) -> None:
        """Begin the parent run and start the draining thread."""
        self._root = RunHandle(name)
        self._begin(self._root, tags)
        self._queue.put(AddParams(self._root, _flat(params)))
        self._drain.start()

    def join_run(self, run_id: str) -> None:
        """Show stages below a parent run that another process has begun and will end."""
        self._root = RunHandle("", run_id=run_id, foreign=True)
        self._root.created.set()
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
        self._begin(run, {"cache.status": "executed", **tags})
        self._queue.put(AddParams(run, _flat(params)))
        if datasets:
            self._queue.put(AddDatasets(run, tuple(datasets)))
        self._drain.open_runs.add(run)
        self._drain.sample(run)
        return StageTracker(self._queue, run)

    def cached(self, node_id: str, *, record_tags: Mapping[str, str], metrics: Mapping[str, object]) -> None:
        """Show a stage that was a hit; see `run_tags` for the link to the run that made it."""
        run = RunHandle(node_id, parent=self._root)
        self._runs[node_id] = run
        self._begin(run, {**record_tags, "cache.status": "cached"})
        self._end(run, "FINISHED", metrics)

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
            self._queue.put(AddTags(tracker.run, dict(tags)))
        last = {k: v for k, v in (metrics or {}).items() if k not in tracker.logged}
        self._end(tracker.run, status, last)

    def run_id(self, node_id: str | None = None, *, wait_s: float = 2.0) -> str | None:
        """Return the MLflow id of a node's run, or of the parent run; None when not known within `wait_s`.

        Never waits for MLflow's import: `nanochat.key` finds a run as well.
        """
        run = self._root if node_id is None else self._runs.get(node_id)
        if run is None:
            return None
        if not run.created.is_set() and self._drain.loaded and not self.disabled:
            with self._patience_lock:
                begun = time.monotonic()
                self._queue.hurry()
                run.created.wait(min(wait_s, self._patience_s))
                self._patience_s -= max(time.monotonic() - begun - _PROMPT_S, 0.0)
        return run.run_id

    def root_id(self, limit_s: float = 30.0) -> str | None:
        """Return the MLflow id of the parent run, for another process; waits for it and MLflow's import."""
        if self._root is None:
            return None
        self._queue.hurry()
        self._root.created.wait(limit_s)
        return self._root.run_id

    def url(self, node_id: str | None = None) -> str | None:
        """Return the page of a run whose id is already known, if the window looks at a server."""
        run_id = self.run_id(node_id, wait_s=0.0)
        if run_id is None or not self.uri.startswith(("http://", "https://")):
            return None
        sink = cast(_Sink, self._drain.sink)  # there, since a run was made through it
        return f"{self.uri.rstrip('/')}/#/experiments/{sink.experiment_id}/runs/{run_id}"

    def close(self, status: RunStatus = "FINISHED", *, limit_s: float = 60.0) -> None:
        """End the parent run if it is ours; wait for the queue while it moves, at most `limit_s` in all."""
        if self._root is None:
            return
        for run in list(self._drain.open_runs):
            self._end(run, "KILLED" if status == "KILLED" else "FAILED", {})
        self._drain.open_runs.clear()
        if not self._root.foreign:
            self._end(self._root, status, {})
        self._queue.close()
        self.abandoned = not self._drain.join(limit_s, max(self._patience_s, 0.1))
        if self.abandoned:
            _log.warning("MLflow at %s did not take everything; %d events left", self.uri, len(self._queue))
        elif self.dropped and not self.disabled:
            _log.warning("MLflow at %s: %d events were not shown", self.uri, self.dropped)

    def _begin(self, run: RunHandle, tags: Mapping[str, str | None]) -> None:
        known = {name: str(value) for name, value in tags.items() if value is not None}
        self._queue.put(BeginRun(run, known, _now_ms()))

    def _end(self, run: RunHandle, status: RunStatus, metrics: Mapping[str, object]) -> None:
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
        if numbers:
            self._queue.put(AddMetrics(run, numbers, 0, _now_ms(), lossy=False))
        self._queue.put(EndRun(run, status, _now_ms()))


def run_tags(
    *,
    key: str | None = None,
    digest: str | None = None,
    commit: str | None = None,
    flow_run_id: str | None = None,
    task_run_id: str | None = None,
    prefect_url: str | None = None,
    made_by_run: str | None = None,
) -> dict[str, str]:
    """Return the tags that every stage's run carries, under the names that searches rely on."""
    named = {
        "nanochat.key": key,
        "nanochat.digest": digest,
        "mlflow.source.git.commit": commit,
        "prefect.flow_run_id": flow_run_id,
        "prefect.task_run_id": task_run_id,
        "prefect.url": prefect_url,
        "nanochat.made_by_run": made_by_run,
    }
    return {name: value for name, value in named.items() if value}


class _Sink:
    """Writes events with MLflow's client; used by the draining thread alone."""

    def __init__(self, uri: str, experiment: str) -> None:
        from mlflow import MlflowClient

        self._texts: dict[tuple[RunHandle, int], int] = {}
        with database_ready(uri, _make_tables):
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self.experiment_id: str = (
                found.experiment_id
                if found
                else self._client.create_experiment(experiment, artifact_location=_artifacts_beside(uri))
            )

    def answers(self) -> bool:
        """Return whether the server is up."""
        try:
            self._client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def write(self, event: TrackingEvent | list[AddMetrics]) -> None:
        """Write one event, or the metrics of one run."""
        run = event[0].run if isinstance(event, list) else event.run
        if isinstance(event, BeginRun):
            self._begin(event)
        elif run.run_id is None:
            return  # its creation was refused, and that was counted
        elif isinstance(event, list):
            self._metrics(run.run_id, event)
        elif isinstance(event, AddParams | AddTags):
            self._settings(run.run_id, event)
        elif isinstance(event, AddDatasets):
            self._client.log_inputs(run.run_id, datasets=[_input(d) for d in event.datasets[:_MAX_DATASETS]])
        elif isinstance(event, AddText):
            count = self._texts[run, event.step] = self._texts.get((run, event.step), 0) + 1
            self._client.log_text(run.run_id, event.text, f"samples/step_{event.step:06d}_{count:03d}.txt")
        elif isinstance(event, EndRun):
            self._client.set_terminated(run.run_id, event.status, end_time=event.time_ms)

    def _begin(self, event: BeginRun) -> None:
        run = event.run
        tags = {name: str(value)[:_MAX_TAG_CHARS] for name, value in event.tags.items()}
        if run.parent is not None and run.parent.run_id is not None:
            tags["mlflow.parentRunId"] = run.parent.run_id
        if event.tags.get("cache.status") == "cached" and "nanochat.made_by_run" not in tags:
            tags |= self._maker(tags.get("nanochat.key", ""))
        made = self._client.create_run(
            self.experiment_id, start_time=event.time_ms, tags=tags, run_name=run.name
        )
        run.run_id = made.info.run_id

    def _maker(self, key: str) -> dict[str, str]:
        """Name the run that executed a stage whose record could not: MLflow came up after it."""
        wanted = f"tags.`nanochat.key` = '{key}' and tags.`cache.status` = 'executed'"
        found = self._client.search_runs([self.experiment_id], wanted, max_results=1)
        return run_tags(made_by_run=found[0].info.run_id) if found else {}

    def _metrics(self, run_id: str, events: list[AddMetrics]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(key, float(value), event.time_ms, event.step)
            for event in events
            for key, value in event.metrics.items()
        ]
        for start in range(0, len(points), _MAX_METRICS):
            self._client.log_batch(run_id, metrics=points[start : start + _MAX_METRICS])

    def _settings(self, run_id: str, event: AddParams | AddTags) -> None:
        from mlflow.entities import Param, RunTag

        items = list((event.params if isinstance(event, AddParams) else event.tags).items())
        for start in range(0, len(items), _MAX_PER_BATCH):
            part = items[start : start + _MAX_PER_BATCH]
            if isinstance(event, AddParams):
                self._client.log_batch(run_id, params=[Param(k, v[:_MAX_PARAM_CHARS]) for k, v in part])
            else:
                self._client.log_batch(run_id, tags=[RunTag(k, str(v)[:_MAX_TAG_CHARS]) for k, v in part])


def _input(dataset: Dataset) -> Any:
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    name, digest, source = dataset
    kind = source.split("://", 1)[0] if "://" in source else "local"
    kept = MlflowDataset(name, digest[:_DIGEST_CHARS], kind, json.dumps({"uri": source}))
    tags = [InputTag("mlflow.data.context", "input"), InputTag("nanochat.digest", digest)]
    return DatasetInput(kept, tags)


def _load(uri: str, experiment: str) -> Callable[[], _Sink]:
    """Import MLflow, which takes seconds, and return what connects."""
    _quiet()
    # MLflow's own tables use what SQLAlchemy 2.1 deprecates; as an error it would close the window.
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
    import mlflow  # noqa: F401

    return lambda: _Sink(uri, experiment)


def _quiet() -> None:
    """Keep MLflow, its migrations and its HTTP client silent, and its waits short."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _artifacts_beside(uri: str) -> str | None:
    """Return where samples go for a local database; a server decides for itself."""
    path = database_file(uri)
    return (path.parent / "mlartifacts").as_uri() if path else None


def _make_tables(uri: str) -> None:
    """Make a new local database with MLflow's tables, and close it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # `_dispose_engine` is what closes it; MLflow itself keeps databases open until the process ends.
    SqlAlchemyStore(uri, _artifacts_beside(uri))._dispose_engine()


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted names with text values."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _now_ms() -> int:
    return int(time.time() * 1000)
