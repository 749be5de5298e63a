from __future__ import annotations

import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nanochat.data import transfer
from nanochat.data.transfer import fetch
from nanochat.errors import DataError

BYTES = random.Random(1).randbytes(100_000)


class Server:
    """Serves BYTES at any path, with the faults that a test sets."""

    def __init__(self) -> None:
        self.ranges = True
        self.cuts = 0  # so many answers end early
        self.errors = 0  # so many answers are status 503
        self.missing = False
        self.says: int | None = None  # size claimed where it is not the true one
        self.etag: str | None = None
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self._answer(body=False)

            def do_GET(self):
                outer.asked.append(self.headers.get("Range"))
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                if outer.missing:
                    self.send_error(404)
                    return
                if body and outer.errors > 0:
                    outer.errors -= 1
                    self.send_error(503)
                    return
                size = outer.says or len(BYTES)
                wanted, begin = self.headers.get("Range"), 0
                data = BYTES
                if wanted and outer.ranges:
                    begin, end = (int(x) for x in wanted.removeprefix("bytes=").split("-"))
                    data = BYTES[begin : end + 1]
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {begin}-{begin + len(data) - 1}/{size}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(data) if body else size))
                if outer.ranges:
                    self.send_header("Accept-Ranges", "bytes")
                if outer.etag:
                    self.send_header("ETag", outer.etag)
                self.end_headers()
                if not body:
                    return
                if outer.cuts > 0:
                    outer.cuts -= 1
                    data = data[: len(data) // 2]
                    self.close_connection = True
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/shard.parquet"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 30_000)
    server = Server()
    yield server
    server.close()


def get(server, tmp_path, **options) -> bytes:
    fetch(server.url, tmp_path / "out" / "file", part_folder=tmp_path, pause_s=0.001, **options)
    return (tmp_path / "out" / "file").read_bytes()


def test_a_file_comes_in_pieces_and_leaves_no_part(server, tmp_path):
    assert get(server, tmp_path) == BYTES
    assert len(server.asked) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_cut_connections_and_server_errors_are_survived(server, tmp_path):
    server.cuts, server.errors = 2, 3
    assert get(server, tmp_path) == BYTES


def test_a_server_without_ranges_is_taken_whole(server, tmp_path):
    server.ranges, server.cuts = False, 1
    assert get(server, tmp_path) == BYTES


def test_a_stopped_transfer_goes_on_where_it_was(server, tmp_path):
    calls = iter([None, None, RuntimeError("stop")])

    def stop():
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(RuntimeError, match="stop"):
        get(server, tmp_path, check_stop=stop)
    assert not (tmp_path / "out" / "file").exists()
    server.asked.clear()
    assert get(server, tmp_path) == BYTES
    assert server.asked == ["bytes=60000-89999", "bytes=90000-99999"]


def test_another_version_never_continues_the_part_of_the_first(server, tmp_path):
    (part,) = [tmp_path / ".file.0000000000000000.part"]
    part.write_bytes(b"other")
    assert get(server, tmp_path, version="2") == BYTES


def test_a_server_that_lies_about_the_size_is_an_error(server, tmp_path):
    server.says = 120_000
    with pytest.raises(DataError, match="cannot be read"):
        get(server, tmp_path)
    assert not (tmp_path / "out" / "file").exists()


def test_a_size_other_than_planned_is_an_error_before_anything_is_fetched(server, tmp_path):
    with pytest.raises(DataError, match="100000 bytes, not the 99"):
        get(server, tmp_path, size_bytes=99)
    assert not server.asked


def test_a_missing_file_is_not_tried_again(server, tmp_path):
    server.missing = True
    with pytest.raises(DataError, match="FileNotFoundError"):
        get(server, tmp_path)
    assert len(server.asked) <= 1


def test_a_hash_that_the_server_names_is_checked(server, tmp_path):
    server.etag = f'"{hashlib.sha256(BYTES).hexdigest()}"'
    assert get(server, tmp_path) == BYTES
    server.etag = f'"{"0" * 64}"'
    with pytest.raises(DataError, match="sha256"):
        get(server, tmp_path)
