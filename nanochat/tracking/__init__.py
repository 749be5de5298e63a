"""Runs shown in MLflow, never on the training path."""

from nanochat.tracking.pipeline_tracker import MlflowWindow, StageTracker
from nanochat.tracking.tags import run_tags
from nanochat.tracking.trackers import MemoryTracker, MultiTracker

__all__ = ["MemoryTracker", "MlflowWindow", "MultiTracker", "StageTracker", "run_tags"]
