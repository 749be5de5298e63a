"""Names and file format of blobs and records: the layout of the store, in one place.

No store access here; `flows.store.store` reads and writes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from flows.store.fingerprint import canonical_json


def blob_name(sha256: str) -> str:
    """Return the name under which these bytes are kept."""
    return f"blobs/{sha256[:2]}/{sha256}"


def record_name(stage: str, key: str) -> str:
    """Return where the record of (stage, key) is kept."""
    return f"records/{stage}/{key}.json"


def ref_of(name: str) -> Ref | None:
    """Return the (stage, key) of a record file, or None for another file."""
    match = re.fullmatch(r"records/([^/]+)/([^/]+)\.json", name)
    return (match[1], match[2]) if match else None


def to_bytes(record: Record) -> bytes:
    """Return the file content of a record; a value that JSON cannot hold raises TypeError."""
    plain = json.loads(canonical_json(record.to_json()))
    return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()


def from_bytes(data: bytes) -> Record:
    """Read a record file; a digest that does not match its files raises ValueError."""
    fields = json.loads(data)
    record = Record.from_json(fields)
    if record.digest != fields["digest"]:
        raise ValueError(f"its digest {fields['digest'][:12]} does not match its files")
    return record


def finished_at(record: Record, mtime: float) -> float:
    """Return when the artifact was finished, in seconds since the epoch; `mtime` if it does not say."""
    when = record.provenance.get("finished_at")
    if isinstance(when, str):
        return datetime.fromisoformat(when).timestamp()
    return float(when) if when else mtime


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
        """Digest of the artifact: the same bytes give the same digest, no matter what made them."""
        return artifact_digest(self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read a record; the stored digest must match its files."""
        fields = {k: v for k, v in data.items() if k != "digest"}
        for name in ("files", "attachments"):
            fields[name] = tuple(ArtifactFile(**f) for f in fields[name])
        return cls(**fields)


Ref = tuple[str, str]  # (stage, key)


def input_refs(record: Record) -> Iterator[Ref]:
    """Yield the (stage, key) of every record that this one was made from."""
    for value in record.inputs.values():
        several: Iterable[Mapping[str, Any]] = [value] if isinstance(value, Mapping) else value
        for item in several:
            yield item["stage"], item["key"]
