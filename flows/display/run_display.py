"""What shows a run while it goes on: progress lines for people, and the run in MLflow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from flows.display.progress import Progress
from flows.plan import Plan
from flows.settings import Settings
from nanochat.errors import Interrupted
from nanochat.tracking import PipelineTracker


@dataclass(frozen=True, kw_only=True)
class RunDisplay:
    """Where people look while a run goes on."""

    progress: Progress
    mlflow: PipelineTracker | None = None
    stop: threading.Event = field(default_factory=threading.Event)  # set to end the run soon


@contextmanager
def tracked_in_mlflow(
    plan: Plan,
    settings: Settings,
    progress: Progress,
    flow_run_id: str | None = None,
    parent: str | None = None,
) -> Iterator[PipelineTracker]:
    """Show a run of `plan` in MLflow while the block runs, or parts of one below the run `parent`.

    Afterwards `progress` gets the address of a server's page that compares it with earlier runs.
    """
    tracker = PipelineTracker(settings.mlflow_uri, patience_s=settings.mlflow_wait_s)
    recipe = plan.recipe
    tags = {
        "nanochat.recipe": recipe.name,
        "nanochat.store": settings.store_url,
        "prefect.flow_run_id": flow_run_id,
    }
    if parent:
        tracker.join_run(parent)
    else:
        tracker.start_run(recipe.name, recipe.model_dump(mode="json"), tags)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)
        if tracker.comparison:
            progress.say(f"compare with earlier runs: {tracker.comparison}")
