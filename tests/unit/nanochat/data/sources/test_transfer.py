from __future__ import annotations

import hashlib
import random
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nanochat.data.sources import patience, transfer
from nanochat.data.sources.transfer import fetch
from nanochat.errors import DataError, Interrupted, SourceUnavailable

BYTES = random.Random(1).randbytes(100_000)


class Server:
    """Serves BYTES at any path, with the faults that a test sets; each fault strikes that many answers."""

    def __init__(self) -> None:
        self.ranges = True
        self.head = True
        self.cuts = 0  # end early
        self.stalls = 0  # end early, and keep the connection open without a word
        self.garbled = 0  # have other bytes
        self.errors = 0  # are status 503
        self.busy = 0  # are status 429
        self.retry_after: str | None = None
        self.missing = False
        self.says: int | None = None  # size claimed where it is not the true one
        self.etag: str | None = None
        self.linked: dict[str, str] | None = None  # headers of a redirect, as a hub answers
        self.asked: list[str | None] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                if not outer.head:
                    self.send_error(405)
                    return
                self._answer(body=False)

            def do_GET(self):
                outer.asked.append(self.headers.get("Range"))
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                if outer.missing:
                    self.send_error(404)
                elif outer.take("errors"):
                    self.send_error(503)
                elif outer.take("busy"):
                    self.send_response(429)
                    if outer.retry_after:
                        self.send_header("Retry-After", outer.retry_after)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif outer.linked is not None and self.path != "/bytes":
                    self.send_response(302)
                    for name, value in {"Location": "/bytes", "Content-Length": "0", **outer.linked}.items():
                        self.send_header(name, value)
                    self.end_headers()
                else:
                    self._send(body=body)

            def _send(self, *, body: bool) -> None:
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
                if body:
                    self._send_body(data)

            def _send_body(self, data: bytes) -> None:
                if outer.take("garbled"):
                    data = bytes(len(data))
                if outer.take("cuts"):
                    data = data[: len(data) // 2]
                    self.close_connection = True
                if outer.take("stalls"):
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    outer.released.wait(60)
                    self.close_connection = True
                    return
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/shard.parquet"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def take(self, fault: str) -> bool:
        left = getattr(self, fault)
        setattr(self, fault, max(left - 1, 0))
        return left > 0

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 30_000)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that a transfer made; they pass at once."""
    made = []

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            made.append(seconds)
            self.now += seconds

    monkeypatch.setattr(patience, "time", Clock())
    return made


def get(server, tmp_path, **options) -> bytes:
    options = {"pause_s": 0.001, "part_folder": tmp_path} | options
    fetch(server.url, tmp_path / "out" / "file", **options)
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


def test_the_hash_on_a_hubs_redirect_is_checked_and_told(server, tmp_path):
    sha256 = hashlib.sha256(BYTES).hexdigest()
    server.linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": "100000", "X-Repo-Commit": "c0ffee"}
    server.etag = '"of the place where the bytes are"'
    info = fetch(server.url, tmp_path / "file", part_folder=tmp_path)
    assert (tmp_path / "file").read_bytes() == BYTES
    assert info.to_json() == {"source_sha256": sha256, "source_etag": sha256, "source_commit": "c0ffee"}


def test_garbled_bytes_name_the_file_and_leave_nothing_behind(server, tmp_path):
    server.linked = {"X-Linked-Etag": f'"{hashlib.sha256(BYTES).hexdigest()}"'}
    server.garbled = 1
    with pytest.raises(DataError, match=r"/shard\.parquet: sha256 is"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert get(server, tmp_path) == BYTES


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "STALL_S", 0.3)
    server.stalls = 2
    assert get(server, tmp_path) == BYTES
    assert server.asked[:4] == ["bytes=0-29999"] * 3 + ["bytes=30000-59999"]


def test_errors_before_the_first_byte_are_survived_too(server, tmp_path):
    server.errors, server.busy = 3, 2  # the first questions are about the size
    assert get(server, tmp_path) == BYTES
    assert len(server.asked) == 4


def test_a_server_without_head_is_asked_otherwise(server, tmp_path):
    server.head, server.errors = False, 2
    assert get(server, tmp_path) == BYTES


def test_a_server_that_asks_for_patience_gets_it(server, tmp_path, pauses):
    server.busy, server.retry_after = 2, "7"
    assert get(server, tmp_path) == BYTES
    assert sum(pauses) == pytest.approx(14)
    assert max(pauses) <= 0.5  # a stop is seen between
    server.busy, server.retry_after = 1, "100000"
    pauses.clear()
    assert get(server, tmp_path) == BYTES
    assert sum(pauses) == pytest.approx(300)


def test_patience_may_be_asked_for_until_a_date(server, tmp_path, pauses):
    server.busy, server.retry_after = 1, format_datetime(datetime.now(UTC) + timedelta(seconds=60))
    assert get(server, tmp_path) == BYTES
    assert 50 < sum(pauses) <= 60


def test_pauses_grow_and_differ_where_nothing_is_asked(server, tmp_path, pauses):
    server.errors = 99
    with pytest.raises(SourceUnavailable, match="503"):
        get(server, tmp_path, pause_s=1.0)
    assert 1 + 2 + 4 + 8 + 16 <= sum(pauses) <= 1 + 2 + 4 + 8 + 16 + 5
    assert sum(pauses) != round(sum(pauses))


def test_a_full_disk_here_is_not_blamed_on_the_source(server, tmp_path):
    def stop():
        if server.asked:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        get(server, tmp_path, check_stop=stop)
    (part,) = tmp_path.glob("*.part")
    part.unlink()
    part.symlink_to("/dev/full")
    server.asked.clear()
    with pytest.raises(OSError, match="No space left") as full:
        get(server, tmp_path)
    assert full.value.filename == str(part)
    assert len(server.asked) == 1


def test_a_stop_ends_a_long_pause(server, tmp_path):
    server.busy, server.retry_after = 99, "200"
    stop = threading.Event()

    def check():
        if stop.is_set():
            raise Interrupted("asked to stop")
        stop.set()

    with pytest.raises(Interrupted):
        get(server, tmp_path, check_stop=check)
    assert len(server.asked) == 0


def test_a_transfer_tells_how_far_it_is(server, tmp_path):
    reports = []
    get(server, tmp_path, report=lambda *report: reports.append(report))
    assert reports == [
        (0, 100_000),
        (30_000, 100_000),
        (60_000, 100_000),
        (90_000, 100_000),
        (100_000, 100_000),
    ]


def test_a_changed_file_never_continues_the_part_of_the_former(server, tmp_path):
    def stop():
        if server.asked:
            raise RuntimeError("stop")

    server.etag = '"one"'
    with pytest.raises(RuntimeError, match="stop"):
        get(server, tmp_path, check_stop=stop)
    server.etag = '"two"'
    server.asked.clear()
    assert get(server, tmp_path) == BYTES
    assert server.asked[0] == "bytes=0-29999"
