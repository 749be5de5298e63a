"""Writes events to MLflow, in batches, on the drain's thread: the only module that imports MLflow.

It imports it late (seconds of CPU) and makes what MLflow would print or retry for minutes quiet and prompt.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

from nanochat.tracking.database import database_file, database_ready
from nanochat.tracking.event_queue import (
    AddDatasets,
    AddMetrics,
    AddParams,
    AddTags,
    AddText,
    BeginRun,
    Dataset,
    EndRun,
    RunHandle,
    TrackingEvent,
)
from nanochat.tracking.tags import CACHE_STATUS, CACHED, DIGEST, EXECUTED, KEY, MADE_BY_RUN, run_tags

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
_DIGEST_CHARS = 36  # what MLflow keeps of a data set's digest; the whole one is in the input's tags
_MAX_PARAM_CHARS, _MAX_TAG_CHARS, _MAX_PER_BATCH, _MAX_METRICS, _MAX_DATASETS = 6000, 8000, 100, 1000, 1000


class MlflowSink:
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
        if event.tags.get(CACHE_STATUS) == CACHED and MADE_BY_RUN not in tags:
            tags |= self._maker(tags.get(KEY, ""))
        made = self._client.create_run(
            self.experiment_id, start_time=event.time_ms, tags=tags, run_name=run.name
        )
        run.run_id = made.info.run_id

    def _maker(self, key: str) -> dict[str, str]:
        """Name the run that executed a stage whose record could not: MLflow came up after it."""
        wanted = f"tags.`{KEY}` = '{key}' and tags.`{CACHE_STATUS}` = '{EXECUTED}'"
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
    tags = [InputTag("mlflow.data.context", "input"), InputTag(DIGEST, digest)]
    return DatasetInput(kept, tags)


def load_mlflow(uri: str, experiment: str) -> Callable[[], MlflowSink]:
    """Import MLflow, which takes seconds, and return what connects."""
    _quiet()
    # MLflow's own tables use what SQLAlchemy 2.1 deprecates; as an error it would close the tracker.
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
    import mlflow  # noqa: F401

    return lambda: MlflowSink(uri, experiment)


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
