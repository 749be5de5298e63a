"""Makes calls to MLflow, in batches, on the drain's thread: the only module that imports MLflow.

It imports it late (seconds of CPU) and makes what MLflow would print or retry for minutes quiet and prompt.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

from nanochat.runtime import dotted
from nanochat.sqlite_urls import sqlite_path
from nanochat.tracking.call_queue import Point, RunHandle
from nanochat.tracking.database import database_ready
from nanochat.tracking.made import Dataset, Made
from nanochat.tracking.reach import require_answer
from nanochat.tracking.run_summary import PublishedModel, link_comparison, register
from nanochat.tracking.tags import (
    CACHE_STATUS,
    DIGEST,
    EXECUTED,
    FLOW_RUN,
    FROM_RECORDS,
    INCOMPLETE,
    KEY,
    RECIPE,
    run_tags,
)

_log = logging.getLogger(__name__)

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

_TRAINING_MODE = {"mlflow.experimentKind": "custom_model_development"}  # else its page asks what it is for
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
_RECORD_STEP_MS = 1000  # records keep whole seconds, cut off: what they say ended may have begun later
_STILL_WRITING_MS = 10_000  # the process that made a stage may yet show it: it waits that long for MLflow
_MAX_PARAM_CHARS, _MAX_TAG_CHARS, _MAX_PER_BATCH, _MAX_METRICS, _MAX_DATASETS = 6000, 8000, 100, 1000, 1000


class MlflowSink:
    """Calls of MLflow's client, which are bound anywhere and made by the draining thread alone."""

    _client: Any

    def __init__(self, uri: str, experiment: str) -> None:
        self.experiment_id: str | None = None  # known once connected
        self._uri = uri
        self._experiment = experiment
        self.comparison: str | None = None  # page that compares the last summed up run with earlier ones
        self._texts: dict[tuple[RunHandle, int], int] = {}

    def reach(self) -> None:
        """Find out whether a server answers, before the import."""
        require_answer(self._uri)

    def load(self) -> None:
        """Import MLflow, which takes seconds."""
        _quiet()
        # MLflow's own tables use what SQLAlchemy 2.1 deprecates; as an error it would close the tracker.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        import mlflow  # noqa: F401

    def connect(self) -> None:
        """Find the experiment, or make it, and the tables of a local database."""
        from mlflow import MlflowClient

        with database_ready(self._uri, _make_tables):
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            found = self._client.get_experiment_by_name(self._experiment)
            self.experiment_id = (
                found.experiment_id
                if found
                else self._client.create_experiment(
                    self._experiment,
                    artifact_location=_artifacts_beside(self._uri),
                    tags=_TRAINING_MODE,
                )
            )

    def answers(self) -> bool:
        """Return whether the server is up."""
        try:
            self._client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def begin(self, run: RunHandle, *, tags: Mapping[str, str], time_ms: int) -> None:
        """Create a run."""
        kept = {name: value[:_MAX_TAG_CHARS] for name, value in tags.items()}
        if run.parent is not None and run.parent.run_id is not None:
            kept["mlflow.parentRunId"] = run.parent.run_id
        made = self._client.create_run(self.experiment_id, start_time=time_ms, tags=kept, run_name=run.name)
        run.run_id = made.info.run_id

    def add_params(self, run: RunHandle, *, params: Mapping[str, str]) -> None:
        """Write settings, already flat."""
        from mlflow.entities import Param

        for part in _parts([Param(k, v[:_MAX_PARAM_CHARS]) for k, v in params.items()], _MAX_PER_BATCH):
            self._client.log_batch(run.run_id, params=part)

    def add_tags(self, run: RunHandle, *, tags: Mapping[str, str]) -> None:
        """Write tags that became known after the run had begun."""
        from mlflow.entities import RunTag

        for part in _parts([RunTag(k, v[:_MAX_TAG_CHARS]) for k, v in tags.items()], _MAX_PER_BATCH):
            self._client.log_batch(run.run_id, tags=part)

    def add_metrics(self, run: RunHandle, points: Sequence[Point]) -> None:
        """Write numbers of any steps."""
        from mlflow.entities import Metric

        metrics = [Metric(k, float(v), p.time_ms, p.step) for p in points for k, v in p.numbers.items()]
        for part in _parts(metrics, _MAX_METRICS):
            self._client.log_batch(run.run_id, metrics=part)

    def sum_up(self, run: RunHandle, *, point: Point, model: PublishedModel | None) -> None:
        """Write a pipeline run's own numbers, its model, and a link to the runs that it compares with."""
        from mlflow.entities import Metric

        assert run.run_id and self.experiment_id  # a run's calls come after the one that makes it
        new = self._registered(self.experiment_id, run.run_id, model) if model else None
        metrics = [Metric(k, v, point.time_ms, point.step, model_id=new) for k, v in point.numbers.items()]
        self._client.log_batch(run.run_id, metrics=metrics)
        self.comparison = link_comparison(self._client, self.experiment_id, run.run_id)

    def _registered(self, experiment_id: str, run_id: str, model: PublishedModel) -> str | None:
        """Register a model, and return its id if it is new; where that is refused, the run goes on."""
        try:
            return register(self._client, experiment_id, run_id, model)
        except Exception as error:
            if not self.answers():
                raise  # for the drain, which tries again
            _log.warning("MLflow does not register %s: %s", model.name, str(error).partition("\n")[0])
            return None

    def add_datasets(self, run: RunHandle, *, datasets: Sequence[Dataset]) -> None:
        """Write the input artifacts of a run."""
        self._client.log_inputs(run.run_id, datasets=[_input(d) for d in datasets[:_MAX_DATASETS]])

    def add_text(
        self, run: RunHandle, *, text: str, step: int, written: Container[str] = frozenset()
    ) -> None:
        """Write a sample made at a step, unless its file is among those `written`."""
        count = self._texts[run, step] = self._texts.get((run, step), 0) + 1
        file = f"samples/step_{step:06d}_{count:03d}.txt"
        if file not in written:
            self._client.log_text(run.run_id, text, file)

    def end(self, run: RunHandle, *, status: RunStatus, time_ms: int) -> None:
        """Set the final status of a run, and whether events of it were lost."""
        if run.lossy:
            self.add_tags(run, tags={INCOMPLETE: "true"})
        self._client.set_terminated(run.run_id, status, end_time=time_ms)

    def complete(self, run: RunHandle, *, made: Made) -> None:
        """Link a hit to the run that made its stage; show that one from its record where it is not whole."""
        found = self._makers(made)
        whole = [r for r in found if r.info.status == "FINISHED" and INCOMPLETE not in r.data.tags]
        if whole or time.time() * 1000 - made.finished_ms < _STILL_WRITING_MS:
            maker = next((r.info.run_id for r in whole or found), None)
        else:
            maker = self._fill(made, next(iter(found), None), run.parent)
        self.add_tags(run, tags=run_tags(made_by_run=maker))

    def _makers(self, made: Made) -> list[Any]:
        """Return the runs that may have made a stage: none that failed, or began later."""
        wanted = f"tags.`{KEY}` = '{made.tags[KEY]}' and tags.`{CACHE_STATUS}` = '{EXECUTED}'"
        found = self._client.search_runs([self.experiment_id], wanted, max_results=100)
        running = [r for r in found if r.info.start_time < made.finished_ms + _RECORD_STEP_MS]
        return [r for r in running if r.info.status in ("RUNNING", "FINISHED")]

    def _fill(self, made: Made, found: Any, hit_parent: RunHandle | None) -> str | None:
        """Write what a stage's run lacks, or all of it; doing so again adds nothing. Return its id."""
        run = RunHandle(made.node, parent=self._parent_of(made) or hit_parent)
        if found is None:
            tags = {**made.tags, CACHE_STATUS: EXECUTED, FROM_RECORDS: "true"}
            self.begin(run, tags=tags, time_ms=made.started_ms)
        else:
            run.run_id = found.info.run_id
            self.add_tags(run, tags=made.tags)
        self.add_params(run, params={name: str(value) for name, value in dotted(made.params).items()})
        if made.datasets:
            self.add_datasets(run, datasets=made.datasets)
        points, texts = made.history()
        self.add_metrics(run, points if found is None else self._missing(run, points))
        written = (
            set() if found is None else {f.path for f in self._client.list_artifacts(run.run_id, "samples")}
        )
        for step, text in texts:
            self.add_text(run, text=text, step=step, written=written)
        self._texts = {key: count for key, count in self._texts.items() if key[0] is not run}
        known = {name for point in points for name in point.numbers} | set(
            found.data.metrics if found else ()
        )
        last = {name: value for name, value in made.metrics.items() if name not in known}
        self.add_metrics(run, [Point(last, 0, made.finished_ms)])
        self.end(run, status="FINISHED", time_ms=made.finished_ms)
        if found is not None and INCOMPLETE in found.data.tags:
            self._client.delete_tag(run.run_id, INCOMPLETE)
        return run.run_id

    def _missing(self, run: RunHandle, points: Sequence[Point]) -> list[Point]:
        """Return those numbers that a run does not have at their steps."""
        names = {name for point in points for name in point.numbers}
        known = {n: {m.step for m in self._client.get_metric_history(run.run_id, n)} for n in names}
        return [
            point._replace(numbers={k: v for k, v in point.numbers.items() if point.step not in known[k]})
            for point in points
        ]

    def _parent_of(self, made: Made) -> RunHandle | None:
        """Return the pipeline run that a stage was part of, made from the record if it was never shown."""
        flow = made.tags.get(FLOW_RUN)
        if flow is None:
            return None
        parent = RunHandle(made.run_name)
        wanted = f"tags.`{FLOW_RUN}` = '{flow}' and tags.`{RECIPE}` LIKE '%'"
        found = self._client.search_runs([self.experiment_id], wanted, max_results=1)
        if found:
            parent.run_id = found[0].info.run_id
        else:
            tags = {**made.run_tags, FLOW_RUN: flow, FROM_RECORDS: "true"}
            self.begin(parent, tags=tags, time_ms=made.started_ms)
        if not found or (made.ends_run and found[0].info.status == "RUNNING"):
            self.end(parent, status="FINISHED", time_ms=made.finished_ms)
        return parent


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _input(dataset: Dataset) -> Any:
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    name, digest, source = dataset
    kind = source.split("://", 1)[0] if "://" in source else "local"
    kept = MlflowDataset(name, digest[:_DIGEST_CHARS], kind, json.dumps({"uri": source}))
    tags = [InputTag("mlflow.data.context", "input"), InputTag(DIGEST, digest)]
    return DatasetInput(kept, tags)


def _quiet() -> None:
    """Keep MLflow, its migrations and its HTTP client silent, and its waits short."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _artifacts_beside(uri: str) -> str | None:
    """Return where samples go for a local database; a server decides for itself."""
    path = sqlite_path(uri)
    return (path.absolute().parent / "mlartifacts").as_uri() if path else None


def _make_tables(uri: str) -> None:
    """Make a new local database with MLflow's tables, and close it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # `_dispose_engine` is what closes it; MLflow itself keeps databases open until the process ends.
    SqlAlchemyStore(uri, _artifacts_beside(uri))._dispose_engine()
