"""S3 and services like it, through s3fs.

Conditions are only put on small single-PUT objects, where every service that supports them agrees; s3fs turns
the refusal into different errors depending on the service, so `create` makes the call itself. Retries are
ours alone: those of s3fs and botocore would multiply with them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec.core

from flows.store.storage.base import ObjectInfo, Storage
from flows.store.storage.retry import Retry, ShortRead
from nanochat.errors import StoreError, StoreUnavailable

_MULTIPART_BYTES = 64 << 20


class S3Storage(Storage):
    """Objects below a prefix of one bucket."""

    def __init__(self, url: str, fs: Any, root: str, retry: Retry) -> None:
        super().__init__(url, fs, root, retry)
        self.bucket, _, self.prefix = self.root.partition("/")

    @classmethod
    def at(cls, url: str, options: Mapping[str, Any], retry: Retry) -> S3Storage:
        """Open `s3://bucket/prefix`; the endpoint and keys come from `options` or the AWS variables."""
        import s3fs

        settings = {
            "retries": {"max_attempts": 0},
            "max_pool_connections": 2 * cls.workers,
            **options.get("config_kwargs", {}),
        }
        fs = s3fs.S3FileSystem(
            **{
                "use_listings_cache": False,
                "skip_instance_cache": True,
                **options,
                "config_kwargs": settings,
            }
        )
        fs.retries = 1
        storage = cls(url, fs, fsspec.core.strip_protocol(url), retry)
        if not re.fullmatch(r"arn:.+|[A-Za-z0-9._-]{1,255}", storage.bucket):
            raise StoreError(
                f"{url}: {storage.bucket!r} cannot be the name of a bucket",
                hint="correct --store: s3://BUCKET/PREFIX",
            )
        storage._try("open", "", storage._head_bucket)
        return storage

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a small object."""
        self._try("write", name, lambda: self.fs.call_s3("put_object", **self._key(name), Body=data))

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file to `name`; S3 shows it whole or not at all."""
        size = source.stat().st_size

        def attempt() -> None:
            self.fs.put_file(str(source), self._path(name), chunksize=_MULTIPART_BYTES)
            there = self._found(name)
            if there is None or there.size != size:
                raise ShortRead(f"{there.size if there else 0} of {size} bytes arrived")

        self._try("upload", name, attempt)

    def _head_bucket(self) -> None:
        try:
            self.fs.call_s3("head_bucket", Bucket=self.bucket)
        except FileNotFoundError as error:
            raise StoreUnavailable(
                f"{self.url}: the bucket {self.bucket!r} does not exist",
                hint="create the bucket or correct --store",
            ) from error
        except PermissionError as error:
            raise StoreUnavailable(
                f"{self.url}: the credentials were refused ({error})",
                hint="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, bucket policy",
            ) from error

    def _key(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{name}" if self.prefix else name}

    def _read(self, name: str) -> bytes:
        # With more at once it would ask for the size first.
        return bytes(self.fs.cat_file(self._path(name), max_concurrency=1))

    def _listing(self, prefix: str) -> dict[str, ObjectInfo]:
        """Return all objects below `prefix/`: one request for each thousand."""
        where = self._key(f"{prefix}/")
        start = len(where["Key"]) - len(prefix) - 1
        found: dict[str, ObjectInfo] = {}
        more: dict[str, str] = {}
        while True:
            page = self.fs.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=where["Key"], **more)
            for each in page.get("Contents", ()):
                name = each["Key"][start:]
                if not name.endswith("/"):  # some list the folder itself
                    found[name] = ObjectInfo(each["Size"], each["LastModified"].timestamp(), each.get("ETag"))
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _create(self, name: str, data: bytes) -> bool:
        try:
            self.fs.call_s3("put_object", **self._key(name), Body=data, IfNoneMatch="*")
        except OSError as error:
            status = _status(error)
            if status == 412:
                return False
            if status == 409:  # a rival's write is under way: the outcome is not known yet
                raise TimeoutError(str(error)) from error
            if status == 501:
                raise StoreError(f"{self.url}: the service does not support conditional writes") from error
            raise
        return True

    def _found(self, name: str) -> ObjectInfo | None:
        try:
            head = self.fs.call_s3("head_object", **self._key(name))
        except FileNotFoundError:
            return None
        return ObjectInfo(int(head["ContentLength"]), head["LastModified"].timestamp())

    def _delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.call_s3("delete_object", **self._key(name))


def _status(error: OSError) -> int | None:
    response = getattr(error.__cause__, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
