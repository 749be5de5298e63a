"""The content-addressed store: records, blobs, leases, restart points, garbage collection."""

from flows.store.records import ArtifactFile, Record, Ref
from flows.store.store import Store

__all__ = ["ArtifactFile", "Record", "Ref", "Store"]
