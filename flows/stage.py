"""Stage, Node, Record: the frozen data that the rest of `flows` passes around.

A `Stage` says how a kind of artifact is made; a `Node` is one stage of one pipeline with its config and
inputs (one per shard where a stage fans out); a `Record` is what the store keeps about a finished node.
No Prefect, no store access and no planning here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nanochat.config import Config
from nanochat.runtime import Runtime

Inputs = Mapping[str, Path]
RunFunction = Callable[[Any, Inputs, Path, Runtime], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How one kind of artifact is made."""

    name: str
    version: int  # raise when the same inputs should give another result
    run: str  # "module:function", imported only when the stage runs
    resources: Literal["cpu", "gpu"] = "cpu"
    spreads: bool = False  # its function can run on `Runtime.processes` ranks at once
    attachments: tuple[str, ...] = ()  # files that tell of the run (times, hardware): kept, not identity
    at_once: int | None = None  # nodes of this stage that run side by side; None: `Runtime.workers`
    wants_lineage: bool = False  # gets `inputs["lineage"]`: the records of all ancestors as JSON files


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage of one pipeline: what it makes and from what."""

    id: str  # `pretrain`, or `tokenize/shard_00003` where a stage fans out
    stage: Stage
    config: Config
    inputs: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)  # name -> node id, or several


@dataclass(frozen=True, order=True)
class ArtifactFile:
    """One file of an artifact; its bytes are the blob named by `sha256`."""

    path: str
    size: int
    sha256: str


def artifact_digest(files: tuple[ArtifactFile, ...]) -> str:
    """Return the sha256 over the sorted (path, size, sha256) lines."""
    lines = "".join(f"{f.path}\t{f.size}\t{f.sha256}\n" for f in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the store keeps about one finished node."""

    stage: str
    node: str
    key: str
    payload: Mapping[str, Any]  # what was hashed into the key
    files: tuple[ArtifactFile, ...]
    attachments: tuple[ArtifactFile, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(
        default_factory=dict
    )  # commit, code digest, versions, hardware, seconds…
    inputs: Mapping[str, Any] = field(default_factory=dict)  # name -> {stage, key, digest}, or a list of them

    @property
    def digest(self) -> str:
        """Digest of the artifact: the same bytes give the same digest, whatever made them."""
        return artifact_digest(self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read a record; the stored digest must be that of its files."""
        fields = {k: v for k, v in data.items() if k != "digest"}
        for name in ("files", "attachments"):
            fields[name] = tuple(ArtifactFile(**f) for f in fields[name])
        return cls(**fields)
