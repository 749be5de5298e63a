"""Servers to test against: a tiny published model that says what it is made to say, and `nanochat serve`.

The model has no memory: what it writes after a token depends on that token alone. At temperatures up to 1 an
answer is therefore always the same, whatever was asked.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch

from nanochat.chat.engine import Engine
from nanochat.config import ModelConfig
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.gpt import GPT
from nanochat.serve.http_server import HttpServer, Load, address_of, open_socket
from nanochat.serve.serve_settings import ServeSettings
from nanochat.serve.web_page import read_page
from nanochat.tokenizer.tokenizer import Tokenizer

SUM = (
    *("Let", " me", " see:", " ", "<|python_start|>", "3", "+", "4", "<|python_end|>", "<|output_end|>"),
    *(" That", " makes", " **7**,", " or", " 日本", "語", ".", "<|assistant_end|>"),
)
"""An answer that uses the calculator, token by token; its text is `SUM_TEXT`."""
SUM_TEXT = "Let me see:  That makes **7**, or 日本語."
ENDLESS = tuple(" abcdefghijklmnopqrstuvwxyz ")
"""An answer that goes on until it is stopped: the alphabet, again and again."""
_LOUD = 40.0  # the cap makes it 15: e^15 against 1 for each other token
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def tiny_tokenizer(answer: Sequence[str] = SUM) -> Tokenizer:
    """Return a tokenizer of bytes that has the tokens of an answer as well."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for text in answer:
        if not text.startswith("<|"):
            ranks.setdefault(text.encode(), len(ranks))
    return Tokenizer.from_ranks(ranks)


def tiny_engine(answer: Sequence[str] = SUM, context: int = 1024) -> Engine:
    """Return an engine that answers everything with the given tokens, each of them there once.

    If the last is the first one, the answer goes round and round.
    """
    tokenizer = tiny_tokenizer(answer)
    ids = [_token(tokenizer, text) for text in ("<|assistant_start|>", *answer)]
    width = -(-tokenizer.vocab_size // 2) * 2
    config = ModelConfig(
        sequence_len=context, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=width
    )
    model = GPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.transformer.wte.weight.copy_(torch.eye(tokenizer.vocab_size, width))
        for before, after in pairwise(ids):
            model.lm_head.weight[after, before] = _LOUD
    return Engine(model, tokenizer)


def _token(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.special_tokens[text] if text.startswith("<|") else tokenizer.ranks[text.encode()]


def write_tiny_model(folder: Path, answer: Sequence[str] = SUM, context: int = 1024) -> Path:
    """Write the model of `tiny_engine` as a published folder; return the folder."""
    engine = tiny_engine(answer, context)
    folder.mkdir(parents=True, exist_ok=True)
    write_nanochat_folder(
        folder,
        state=engine.model.state_dict(),
        config=engine.model.config,
        tokenizer=engine.tokenizer,
        step=1,
        results={},
    )
    return folder


@contextmanager
def server_here(
    settings: ServeSettings,
    *makes: Callable[[], Engine],
    load: Load | None = None,
    send_buffer: int | None = None,
    said: list[str] | None = None,
) -> Iterator[tuple[str, HttpServer]]:
    """Yield address and inside of a server in this process; it ends with the block.

    It has an engine of each that `makes` make, once those are there: at once if `load` is given. What it
    tells whoever started it is added to `said`.
    """
    listening = open_socket(settings.host, 0)
    address = address_of(listening)  # now: a server that fails has closed its socket
    if send_buffer:  # what the system holds for a reader
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    ready = threading.Event()
    engines = [("cpu", make) for make in makes]
    ended: list[BaseException] = []

    def say(text: str) -> None:
        if said is not None:
            said.append(text)
        ready.set()

    server = HttpServer(settings, load or (lambda: ("tiny", engines)), read_page(), say)

    def run() -> None:
        try:
            asyncio.run(server.run(listening))
        except BaseException as error:
            ended.append(error)
            ready.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    if load is None:
        ready.wait()
    try:
        if not ended:
            yield address, server
    finally:
        if not server.stopping:
            server.stop_soon()
        thread.join()
    if ended:
        raise ended[0]


@dataclass
class RunningServer:
    """A `nanochat serve` process."""

    process: subprocess.Popen[str]
    url: str
    errors: list[str] = field(default_factory=list)
    """Lines of standard error so far."""

    def get(self, path: str, key: str = "") -> str:
        """Return the body of what is at a path, of an error too."""
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {key}"})
        try:
            with _DIRECT.open(request, timeout=30) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def metric(self, name: str, key: str = "") -> float:
        """Return one value of `/metrics`, named with its labels; 0 where it is not there yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics", key), re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def running_server(
    model: Path, *options: str, home: Path, env: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """Yield a server of a published folder on a free port of this machine, ready to answer."""
    command = [sys.executable, "-m", "flows", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NANOCHAT_HOME": str(home), **(env or {})},
    )
    errors: list[str] = []
    assert process.stdout is not None and process.stderr is not None
    reading = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
    reading.start()
    try:
        url = process.stdout.readline().strip()
        server = RunningServer(process, url, errors)
        while process.poll() is None and '"status":"ok"' not in server.get("/health"):
            time.sleep(0.05)
        if process.poll() is not None:
            reading.join()
            raise AssertionError(f"the server ended with {process.returncode}: {''.join(errors)}")
        yield server
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()
        process.stderr.close()
