"""Stage, Node, Record: the frozen data that the rest of `flows` passes around.

A `Stage` says how a kind of artifact is made; a `Node` is one stage of one pipeline with its config and
inputs (one per shard where a stage fans out); a `Record` is what the store keeps about a finished node.
No Prefect, no store access and no planning here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nanochat.config import Config
from nanochat.errors import is_transient
from nanochat.runtime import Runtime

Inputs = Mapping[str, Path]
RunFunction = Callable[[Any, Inputs, Path, Runtime], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How one kind of artifact is made, and everything the rest of `flows` needs to know about it."""

    name: str
    version: int  # raise when the same inputs should give a different result
    run: str  # "module:function", imported only when the stage runs
    resources: Literal["cpu", "gpu"] = "cpu"
    spreads: bool = False  # its function can run on `Runtime.processes` ranks in parallel
    continues: bool = False  # its function keeps restart points, and goes on from the newest
    attachments: tuple[str, ...] = ()  # files about the run (times, hardware): kept, not identity
    at_once: int | None = None  # nodes of this stage that run side by side; None: `Runtime.workers`
    retry_after: Callable[[BaseException], bool] = is_transient  # errors after which it is tried again
    wants_lineage: bool = False  # gets `inputs["lineage"]`: all ancestors' records and titles as JSON
    reads_core: bool = False  # needs the CORE bundle where its config has `core`
    one_of: str = "shards"  # what it fans out over, with one node for each
    holds: Literal["tokens", "conversations", "overlap"] | None = None  # what `inspect` shows beside files
    # Of a stage that trains the model:
    title: str = ""  # on the model card
    upstream: str = ""  # upstream's name for the model it leaves, in published folders and tables
    evaluated_by: Stage | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage of one pipeline: what it makes and from what."""

    id: str  # `pretrain`, or `tokenize/shard_00003` where a stage fans out
    stage: Stage
    config: Config
    inputs: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)  # name -> node id, or several
