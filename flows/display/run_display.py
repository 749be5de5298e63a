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
from nanochat.tracking import MlflowWindow


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where people look while a run goes on."""

    progress: Progress
    mlflow: MlflowWindow | None = None
    stop: threading.Event = field(default_factory=threading.Event)  # set to end the run soon


@contextmanager
def mlflow_window(
    plan: Plan, settings: Settings, flow_run_id: str | None = None, parent: str | None = None
) -> Iterator[MlflowWindow]:
    """Show a run of `plan` in MLflow while the block runs, or parts of one below the run `parent`."""
    window = MlflowWindow(settings.mlflow_uri)
    recipe = plan.recipe
    tags = {
        "nanochat.recipe": recipe.name,
        "nanochat.store": settings.store_url,
        "prefect.flow_run_id": flow_run_id,
    }
    if parent:
        window.join_run(parent)
    else:
        window.start_run(recipe.name, recipe.model_dump(mode="json"), tags)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield window
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        window.close(status)
