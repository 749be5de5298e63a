from __future__ import annotations

import pytest

from nanochat import recipes
from nanochat.config import ShardConfig
from nanochat.errors import ConfigError


@pytest.mark.parametrize(
    "override",
    [
        "corpus.source=s3://key:CANARY@bucket/x",
        "corpus.source=https://user:CANARY@host/{index:05d}.parquet",
        "tasks.source=hub:https://user:CANARY@mirror",
        "tasks.core_url=https://host/core.zip?sig=CANARY",
        "tasks.words_url=https://CANARY@host/words.txt",
        "tasks.identity_url='https://host/x?token=CANARY'",
        "corpus.revision='x?=https://user:CANARY@host'",
        "publish.title=from s3://key:CANARY@bucket",
        "publish.datasets=['https://host/x?token=CANARY']",
        "sft.prompts=['open https://user:CANARY@host']",
        "tasks.own=['https://host/x.jsonl?X-Amz-Signature=CANARY']",
    ],
)
def test_an_address_with_a_password_is_refused_without_naming_it(override):
    with pytest.raises(ConfigError, match="password, token or signature, which would be kept") as caught:
        recipes.find("toy", [override])
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)


def test_a_resolved_address_is_checked_too_and_its_error_does_not_show_it():
    with pytest.raises(ValueError, match="password, token or signature") as caught:
        ShardConfig(name="x", url="https://user:CANARY@host/x")
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["s3://bucket/x", "hf://datasets/a/b@main", "/data/a@b:c?key=d", "sftp://me@h/x"]
)
def test_an_address_without_a_password_is_taken(source):
    assert recipes.find("toy", [f"corpus.source={source}"]).corpus.source == source
