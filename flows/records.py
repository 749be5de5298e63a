"""Names and file format of blobs and records: the layout of the store, in one place.

No store access here; `flows.store` reads and writes.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from flows.fingerprint import canonical_json
from flows.leases import Ref
from flows.stage import Record


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
    """Read a record file; a digest that is not that of its files raises ValueError."""
    fields = json.loads(data)
    record = Record.from_json(fields)
    if record.digest != fields["digest"]:
        raise ValueError(f"its digest {fields['digest'][:12]} is not that of its files")
    return record


def finished_at(record: Record, mtime: float) -> float:
    """Return when the artifact was finished, in seconds since the epoch; `mtime` where it does not say."""
    when = record.provenance.get("finished_at")
    if isinstance(when, str):
        return datetime.fromisoformat(when).timestamp()
    return float(when) if when else mtime
