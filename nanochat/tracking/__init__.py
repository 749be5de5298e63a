"""Runs shown in MLflow, never on the training path."""

from nanochat.tracking.pipeline_tracker import PipelineTracker, StageTracker
from nanochat.tracking.tags import run_tags
from nanochat.tracking.trackers import MemoryTracker, MultiTracker

__all__ = ["MemoryTracker", "MultiTracker", "PipelineTracker", "StageTracker", "run_tags"]
