"""Which failures may be temporary: one answer for the store, for sources, for runs and for MLflow."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace

import aiohttp
import httpx
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from nanochat.errors import (
    ConfigError,
    Damaged,
    DataError,
    Interrupted,
    LeaseLost,
    RankKilled,
    SourceUnavailable,
    StoreUnavailable,
    is_refusal,
    is_transient,
)

ADDRESS = "http://127.0.0.1/x"


def of_aiohttp(status: int) -> Exception:
    return aiohttp.ClientResponseError(SimpleNamespace(real_url=ADDRESS), (), status=status)


def of_httpx(status: int) -> Exception:
    request = httpx.Request("GET", ADDRESS)
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))


class OfMlflow(Exception):
    def __init__(self, status: int) -> None:
        self.get_http_status_code = lambda: status


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("no answer"),
        SourceUnavailable("no answer"),
        RankKilled("rank 1 of 2 was ended by SIGKILL"),
        TimeoutError(),
        ConnectionResetError(),
        EOFError(),
        OSError(errno.ESTALE, "network file system"),
        OSError("3 of 9 bytes"),
        socket.gaierror(socket.EAI_AGAIN, "name service"),
        EndpointConnectionError(endpoint_url=ADDRESS),
        aiohttp.ServerDisconnectedError(),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        DataError("not parquet"),
        ConfigError("no such field"),
        Damaged("other bytes"),
        LeaseLost("another holder"),
        Interrupted("asked to stop"),
        FileNotFoundError("x"),
        PermissionError("x"),
        IsADirectoryError("x"),
        OSError(errno.ENOSPC, "full"),
        NoCredentialsError(),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_what_stays_as_it_is_is_not(error):
    assert not is_transient(error)


@pytest.mark.parametrize("of", [of_aiohttp, of_httpx, OfMlflow])
def test_a_server_that_says_no_is_not_asked_again_unless_it_asks_for_patience(of):
    assert [status for status in (200, 400, 404, 408, 425, 429, 500, 503) if is_refusal(of(status))] == [
        400,
        404,
    ]
    assert not is_transient(of(404))


@pytest.mark.parametrize("of", [of_aiohttp, of_httpx])
def test_a_server_that_is_busy_or_broken_is_asked_again(of):
    assert all(is_transient(of(status)) for status in (408, 425, 429, 500, 503))
