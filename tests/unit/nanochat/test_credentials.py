from __future__ import annotations

import pytest

from nanochat.credentials import has_credentials, without_credentials
from nanochat.errors import ConfigError, StageFailed, fit_to_keep, is_transient

CARRIES = {
    "https://user:pass@host/x": "https://host/x",
    "https://hf_token@host/x": "https://host/x",
    "HTTPS://User:Pa:ss@host": "HTTPS://host",
    "http://u:p@ss@host:80/x@y": "http://host:80/x@y",
    "s3://key:secret@bucket/a@b": "s3://bucket/a@b",
    "zip://*.jsonl::s3://key:secret@bucket/x": "zip://*.jsonl::s3://bucket/x",
    "postgresql+psycopg2://u:p@h/db": "postgresql+psycopg2://h/db",
    "redis://:pass@host": "redis://host",
    "https://h/x?X-Amz-Signature=ab%3d&n=1": "https://h/x?X-Amz-Signature=***&n=1",
    "https://h/x?n=1&X-Goog-Credential=a": "https://h/x?n=1&X-Goog-Credential=***",
    "https://h/x?se=1&sig=a+b": "https://h/x?se=1&sig=***",
    "https://h/x?token=t": "https://h/x?token=***",
    "https://h/x?access_token=t#api_key=k": "https://h/x?access_token=***#api_key=***",
    "ftp://u:p'\"<w@h/x": "ftp://h/x",
    "ftp://u%3Aw@h/x": "ftp://h/x",
    "arrow_hdfs://u:p@h/x": "arrow_hdfs://h/x",
    "https://h/x?sharedKey=a&private_key=b": "https://h/x?sharedKey=***&private_key=***",
    "https://h/x?account-key=a&hmac=b&passphrase=c": "https://h/x?account-key=***&hmac=***&passphrase=***",
    "https://h/x?token[]=t&key=1234-5&session=12345": "https://h/x?token[]=***&key=***&session=***",
    "https://h/x?sig='abc'": "https://h/x?sig='***'",
    "see {'a': 'https://u:p@h', 'b': 'me@h'}": "see {'a': 'https://h', 'b': 'me@h'}",
}
PLAIN = (
    "/a folder/with:colon/and@sign",
    "https://host:8080/x?index=a@b&tokenizer=x&author=y",
    "http://localhost:4200",
    "http://[2001:db8::1]:80/a@b",
    "https://host?e=a@b",
    "https://host/x?max_tokens=512&session=3&key=5&secretary=1",
    "sftp://user@host/x",
    "abfs://container@account.dfs.core.windows.net/x",
    "github://owner:repository@branch/x",
    "hf://datasets/owner/name@main/x.parquet",
    "zip://*.jsonl::s3://bucket/x.zip",
    "mail me@host: http://host/x",
    "token=abc, password: def",
)


@pytest.mark.parametrize("text", CARRIES)
def test_an_address_loses_what_it_carries_and_nothing_else(text):
    assert has_credentials(text)
    assert without_credentials(text, {}) == CARRIES[text]
    assert without_credentials(f"cannot read '{text}'.", {}).startswith(f"cannot read '{CARRIES[text]}")


@pytest.mark.parametrize("text", PLAIN)
def test_what_carries_nothing_stays_as_it_is(text):
    assert not has_credentials(text)
    assert without_credentials(text, {"PWD": "/a folder/with:colon", "HOST": "localhost:4200"}) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_turn_up():
    env = {
        "HF_TOKEN": "hf_0123456789",
        "MY_API_KEY": "hf_0123456789abc",
        "DB_PASSWORD": "short",
        "HOME": "/home/me/x",
    }
    told = "Bearer hf_0123456789, hf_0123456789abc, short, /home/me/x"
    assert without_credentials(told, env) == "Bearer ***, ***, short, /home/me/x"


def test_an_error_of_ours_has_no_credentials(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    error = ConfigError("no answer from https://u:p@h?token=t", hint="is hf_0123456789 right? s3://k:s@b")
    assert (str(error), error.hint) == ("no answer from https://h?token=***", "is *** right? s3://b")


def test_an_error_of_others_is_kept_without_credentials_and_tried_again_as_before():
    for error in (ConnectionError("https://u:CANARY@h is away"), ValueError("odd: https://h?token=CANARY")):
        kept = fit_to_keep(error)
        assert "CANARY" not in str(kept) and type(error).__name__ in str(kept)
        assert is_transient(kept) == is_transient(error)
    plain = ValueError("as it is")
    assert fit_to_keep(plain) is plain
    assert isinstance(fit_to_keep(ValueError("s3://k:CANARY@b")), StageFailed)
