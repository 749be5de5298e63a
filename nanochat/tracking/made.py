"""A stage that an earlier run made, as MLflow should show it: plain data from the store's record of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nanochat.tracking.call_queue import Point

Dataset = tuple[str, str, str]  # name, digest (sha256 in hex), source (URL or path)


class History(NamedTuple):
    """What a stage reported while it ran."""

    points: Sequence[Point]
    texts: Sequence[tuple[int, str]]  # step and sample


@dataclass(frozen=True, kw_only=True)
class Made:
    """One stage of an earlier pipeline run."""

    node: str
    tags: Mapping[str, str]  # of the stage; its key among them
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    datasets: Sequence[Dataset]
    started_ms: int
    finished_ms: int
    history: Callable[[], History]  # read from the artifact, only if it is needed
    run_name: str  # of the pipeline run
    run_tags: Mapping[str, str]
    ends_run: bool  # nothing came after it
