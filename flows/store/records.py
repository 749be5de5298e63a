"""Names and file format of blobs and records: the layout of the store, in one place.

No store access here; `flows.store.store` reads and writes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pydantic import ConfigDict, Field

from flows.store import schema
from flows.store.fingerprint import canonical_json
from flows.store.schema import (
    STRICT,
    Count,
    FilePath,
    Foreign,
    Hash,
    Key,
    Moment,
    Name,
    Plain,
    Seconds,
    Text,
)  # fmt: skip

_RECORD = re.compile(rf"records/({schema.NAME})/({schema.HASH})\.json")
_LEASE = re.compile(rf"leases/({schema.NAME})/({schema.HASH})\.([0-9]{{1,18}})\.json")
_ROOT = re.compile(rf"roots/({schema.NAME})\.json")
_BLOB = re.compile(rf"blobs/[0-9a-f]{{2}}/({schema.HASH})")


def blob_name(sha256: str) -> str:
    """Return the name under which these bytes are kept."""
    return f"blobs/{sha256[:2]}/{sha256}"


def record_name(stage: str, key: str) -> str:
    """Return where the record of (stage, key) is kept."""
    return f"records/{stage}/{key}.json"


def ref_of(name: str) -> Ref | None:
    """Return the (stage, key) of a record file, or None for another file."""
    match = _RECORD.fullmatch(name)
    return (match[1], match[2]) if match else None


def root_name(name: str) -> str:
    """Return where a root is kept."""
    return f"roots/{name}.json"


def root_of(name: str) -> str | None:
    """Return the name of the root that a file holds, or None for another file."""
    match = _ROOT.fullmatch(name)
    return match[1] if match else None


def lease_of(name: str) -> tuple[str, str, int] | None:
    """Return stage, key and fence of a lease file, or None for another file."""
    match = _LEASE.fullmatch(name)
    return (match[1], match[2], int(match[3])) if match else None


def hash_of(name: str) -> str | None:
    """Return the sha256 that the name of a blob says its bytes have, or None for another file."""
    match = _BLOB.fullmatch(name)
    return match[1] if match else None


def to_bytes(record: Record) -> bytes:
    """Return the file content of a record; a value that JSON cannot hold raises TypeError."""
    plain = json.loads(canonical_json(record.to_json()))
    plain["checksum"] = _checksum(plain)
    return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()


def from_bytes(data: bytes, ref: Ref) -> Record:
    """Read the file of the record `ref`; what does not fit raises ValueError, which says what."""
    read = schema.read(_RecordFile, data)
    apart = {"files", "attachments", "digest", "checksum"}
    plain = read.model_dump(exclude=apart, exclude_unset=True)
    for part in ("payload", "metrics", "provenance"):
        schema.require_finite(plain[part])
    record = Record(**plain, files=read.files, attachments=read.attachments)
    if (record.stage, record.key) != ref:
        raise ValueError(f"it says that it is {record.stage}/{record.key[:12]}")
    _check_apart([file.path for file in (*record.files, *record.attachments)])
    if record.digest != read.digest:
        raise ValueError(f"its digest {read.digest[:12]} does not match its files")
    if read.checksum is not None and read.checksum != _checksum(json.loads(data)):
        raise ValueError("its content is not what was written: its checksum does not match")
    return record


def _checksum(plain: Mapping[str, Any]) -> str:
    """Return the sha256 of a record's content: key and digest say nothing of its metrics and provenance."""
    content = {name: value for name, value in plain.items() if name != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def finished_at(record: Record, mtime: float) -> float:
    """Return when the artifact was finished, in seconds since the epoch; `mtime` if it does not say."""
    when = record.provenance.get("finished_at")
    return schema.seconds_of(when) if when else mtime


@dataclass(frozen=True, order=True)
class ArtifactFile:
    """One file of an artifact; its bytes are the blob named by `sha256`."""

    path: FilePath
    size: Count
    sha256: Hash

    __pydantic_config__ = STRICT


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
        """Digest of the artifact: the same bytes give the same digest, no matter what made them."""
        return artifact_digest(self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "digest": self.digest}


Ref = tuple[str, str]  # (stage, key)


class _Provenance(Foreign):
    """What is said about an execution: anything, but what is worked with must be of its kind."""

    model_config = ConfigDict(extra="allow")

    finished_at: Moment | None = None
    seconds: Seconds | None = None
    dollars: Seconds | None = None
    commit: Text | None = None
    dirty: bool | None = None
    code_digest: Text | None = None
    recipe: Text | None = None
    hardware: Plain | None = None
    mlflow_run_id: Text | None = None


class _Input(Foreign):
    """A record that another one was made from."""

    stage: Name
    key: Key
    digest: Hash
    node: Text = ""


class _RecordFile(Foreign):
    """The content of a record's file."""

    stage: Name
    node: Text
    key: Key
    payload: Plain
    files: tuple[ArtifactFile, ...] = Field(min_length=1)
    attachments: tuple[ArtifactFile, ...]
    metrics: Plain
    provenance: _Provenance
    inputs: dict[Text, _Input | list[_Input]]
    digest: Hash
    checksum: Hash | None = None  # the first records had none


def _check_apart(paths: Sequence[str]) -> None:
    """Refuse two files in one place, or one inside the other."""
    folders = {str(parent) for path in paths if "/" in path for parent in PurePosixPath(path).parents}
    if len(set(paths)) < len(paths) or folders & set(paths):
        raise ValueError("two of its files are in one place")


def inputs_of(record: Record) -> dict[str, list[Ref]]:
    """Return the (stage, key) of the records behind each input."""
    several = {name: [v] if isinstance(v, Mapping) else v for name, v in record.inputs.items()}
    return {name: [(item["stage"], item["key"]) for item in items] for name, items in several.items()}


def input_refs(record: Record) -> Iterator[Ref]:
    """Yield the (stage, key) of every record that this one was made from."""
    for refs in inputs_of(record).values():
        yield from refs
