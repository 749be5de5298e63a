"""Addresses at which no store can be are refused as such, not taken for an outage or an empty store."""

from __future__ import annotations

import pytest

from flows.store.storage.open import open_storage
from flows.store.storage.retry import Retry
from nanochat.errors import StoreError, StoreUnavailable


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nofs://x", "Protocol not known: nofs"),
        ("s3://", "'' cannot be the name of a bucket"),
        ("s3://my bucket/x", "'my bucket' cannot be the name of a bucket"),
        ("http://127.0.0.1:9/x", "a web server cannot hold a store"),
    ],
)
def test_an_address_where_no_store_can_be_is_refused(url, words, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=words) as refused:
        open_storage(url, {}, Retry(attempts=2, first_wait_s=0.001))
    assert not isinstance(refused.value, StoreUnavailable)
    assert "s3://" in str(refused.value.hint)
