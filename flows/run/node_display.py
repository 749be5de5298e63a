"""What progress and MLflow show of one node that runs: its beginning, its numbers and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.display.run_display import RunDisplay
from flows.run.earlier_runs import numbers
from flows.run.execute import Job, Outcome, records_of
from nanochat.runtime import Tracker
from nanochat.tracking import MultiTracker, RunStatus, StageTracker, run_tags


class NodeDisplay:
    """One node on a display; nothing is shown before it begins, as it may be cached after all."""

    def __init__(self, display: RunDisplay, job: Job, store_url: str, extra: Mapping[str, Any]) -> None:
        self._display, self._job = display, job
        self._store_url, self._extra = store_url, extra
        self._in_mlflow: StageTracker | None = None

    def tracker(self, *more: Tracker) -> Tracker:
        """Show that the node begins; return what its reports go to, `more` among them."""
        self._end_in_mlflow("KILLED")  # of a first try, whose lease was lost
        node, mlflow = self._job.node, self._display.mlflow
        shown = self._display.progress.started(node.id)
        if mlflow:
            self._in_mlflow = mlflow.stage(
                node.id,
                tags={
                    "nanochat.stage": node.stage.name,
                    **run_tags(key=self._job.key, **self._extra.get("prefect", {})),
                },
                params=node.config.identity(),
                datasets=[
                    (r.node, r.digest, f"{self._store_url}#{r.stage}/{r.key}")
                    for r in records_of(self._job.inputs)
                ],
            )
        return MultiTracker([shown, *([self._in_mlflow] if self._in_mlflow else []), *more])

    def run_id(self) -> str | None:
        """Return the node's run in MLflow, if it is shown there."""
        mlflow = self._display.mlflow
        return mlflow.run_id(self._job.node.id) if mlflow else None

    def ended(self, how: str, status: RunStatus, tags: Mapping[str, str] | None = None) -> None:
        """Show that the node has not been made, and why."""
        self._display.progress.finished(self._job.node.id, how)
        self._end_in_mlflow(status, tags=tags)

    def made(self, outcome: Outcome) -> None:
        """Show in MLflow what was made; whoever adopts the outcome shows it elsewhere."""
        if outcome.cached:  # another run took over and has made it
            self._end_in_mlflow("KILLED")
            return
        record = outcome.record
        tags = run_tags(digest=record.digest, commit=record.provenance.get("commit"))
        self._end_in_mlflow("FINISHED", numbers(record.metrics), tags)

    def _end_in_mlflow(
        self,
        status: RunStatus,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if self._display.mlflow and self._in_mlflow:
            self._display.mlflow.finish_stage(self._in_mlflow, status, metrics, tags)
