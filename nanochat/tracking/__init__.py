"""Runs shown in MLflow, never on the training path."""

from nanochat.tracking.call_queue import Point
from nanochat.tracking.database import schema_problem
from nanochat.tracking.made import History, Made
from nanochat.tracking.mlflow_sink import RunStatus
from nanochat.tracking.pipeline_tracker import PipelineTracker, StageTracker
from nanochat.tracking.run_summary import PublishedModel
from nanochat.tracking.tags import run_tags
from nanochat.tracking.trackers import MemoryTracker, MultiTracker

__all__ = [
    "History",
    "Made",
    "MemoryTracker",
    "MultiTracker",
    "PipelineTracker",
    "Point",
    "PublishedModel",
    "RunStatus",
    "StageTracker",
    "run_tags",
    "schema_problem",
]
