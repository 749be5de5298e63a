"""Many clients at once against a server: some read whole answers, some streams, some slowly; some go away in
the middle, some send what is not a request. Every answer that ends is compared with the one to the same
question when nothing else was asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import torch

from nanochat.config import ModelConfig
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

_TIMEOUT_S = 60.0
_SLOW = 8  # one client of this many reads slowly
_CANCELLED, _MALFORMED = 1 / 3, 1 / 10
_MALFORMED_BODIES = (
    b"",
    b"{",
    b'{"messages": [], "prompt": ""}',
    b'{"messages": [{"role": "user", "content": 7}], "prompt": {}}',
    b'{"messages": "hi", "prompt": "hi", "temperature": -1}',
    b"\xff\xfe",
)


def write_random_model(
    folder: Path, context: int = 512, architecture: Literal["classic", "2026"] = "classic"
) -> Path:
    """Write a small model whose answers depend on all of the text, and on the seed; return its folder."""
    tokenizer = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)})
    config = ModelConfig(
        architecture=architecture,
        sequence_len=context,
        vocab_size=tokenizer.vocab_size,
        n_layer=2,
        n_head=2,
        n_kv_head=2,
        n_embd=64,
    )
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=2 * weight.size(-1) ** -0.5, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    write_nanochat_folder(folder, state=state, config=config, tokenizer=tokenizer, step=1, results={})
    return folder


@dataclass(frozen=True)
class Question:
    """A request whose answer is the same each time."""

    path: str
    body: dict[str, Any]

    @classmethod
    def drawn(cls, draw: random.Random, longest: int) -> Question:
        """Return a question, some of which begin alike."""
        text = draw.choice(("Once upon a time, ", "", "日本 ")) + f"{draw.random()} " * draw.randint(1, 8)
        settings = {"seed": draw.randrange(2**63), "max_tokens": draw.randint(1, longest), "temperature": 1.0}
        if draw.random() < 0.5:
            return cls("/v1/completions", {"prompt": text, **settings})
        return cls("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **settings})


@dataclass
class Load:
    """What came of it."""

    ends: Counter[str] = field(default_factory=Counter)
    """Requests, by how they ended."""
    wrong: list[str] = field(default_factory=list)
    """What should not have been."""
    first_s: list[float] = field(default_factory=list)
    """Seconds until the first event of each stream."""
    memory_bytes: list[int] = field(default_factory=list)
    """Of the server, from second to second."""

    def percentile(self, share: float) -> float:
        """Return the time to a first event that a share of the streams stay below."""
        ordered = sorted(self.first_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def load(
    url: str, pid: int, *, clients: int, seconds: float, questions: int = 48, longest: int = 48
) -> Load:
    """Ask a server on this machine for some seconds; return when all requests have ended."""
    found, draw = Load(), random.Random(0)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False, limits=limits) as web:
        asked = [Question.drawn(draw, longest) for _ in range(questions)]
        alone = [(await web.post(one.path, json=one.body)).json()["choices"][0] for one in asked]
        until = time.monotonic() + seconds
        known = [
            (one, _text(answer), answer["finish_reason"]) for one, answer in zip(asked, alone, strict=True)
        ]
        running = [_Client(number, web, known, found).run(until) for number in range(clients)]
        await asyncio.gather(_watch_memory(pid, until, found), *running)
    return found


class _Client:
    """One client, who asks again and again."""

    def __init__(
        self, number: int, web: httpx.AsyncClient, known: list[tuple[Question, str, str]], found: Load
    ) -> None:
        self._web, self._known, self._found = web, known, found
        self._draw = random.Random(number)
        self._slow = number % _SLOW == 0

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            question, text, finish = self._draw.choice(self._known)
            kind = self._draw.random()
            try:
                if kind < _MALFORMED:
                    await self._malformed(question)
                elif kind < _MALFORMED + _CANCELLED:
                    await self._leave(question)
                elif self._slow or kind < 0.7:
                    await self._stream(question, text, finish)
                else:
                    await self._whole(question, text, finish)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                self._found.wrong.append(f"{question.path}: {error!r}")

    async def _malformed(self, question: Question) -> None:
        body, headers = self._draw.choice(_MALFORMED_BODIES), {"content-type": "application/json"}
        answer = await self._web.post(question.path, content=body, headers=headers)
        self._count(
            "malformed", answer.status_code == 400 and "message" in answer.json()["error"], answer.text
        )

    async def _leave(self, question: Question) -> None:
        """Go away: while waiting for the answer, or after some of its events."""
        if self._draw.random() < 0.3:
            asking = asyncio.create_task(self._web.post(question.path, json=question.body))
            await asyncio.sleep(self._draw.random() / 4)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            left = self._draw.randint(0, 6)
            async with aclosing(self._events(question)) as events:
                async for _ in events:
                    left -= 1
                    if left < 0:
                        break
        self._found.ends["left"] += 1

    async def _stream(self, question: Question, text: str, finish: str) -> None:
        written, ended, began = "", "", False
        async for event in self._events(question):
            began = True
            choice = event["choices"][0]
            written += _text(choice)
            ended = choice["finish_reason"] or ended
            if self._slow:
                await asyncio.sleep(0.05)
        if not began:
            await self._wait()
            return
        self._count(
            "streamed", (written, ended) == (text, finish), f"{written!r} {ended} for {text!r} {finish}"
        )

    async def _whole(self, question: Question, text: str, finish: str) -> None:
        answer = await self._web.post(question.path, json=question.body)
        if self._refused(answer):
            await self._wait()
            return
        choice = answer.json()["choices"][0]
        found = (_text(choice), choice["finish_reason"])
        self._count("whole", found == (text, finish), f"{found} for {text!r} {finish}")

    async def _events(self, question: Question) -> AsyncGenerator[dict[str, Any]]:
        began = time.monotonic()
        body = {**question.body, "stream": True}
        async with self._web.stream("POST", question.path, json=body) as answer:
            if self._refused(answer):
                return
            first = True
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line.removeprefix("data: "))
                if first:
                    self._found.first_s.append(time.monotonic() - began)
                first = False
                yield event

    async def _wait(self) -> None:
        await asyncio.sleep(self._draw.random() / 2)  # sooner than the server asks for

    def _refused(self, answer: httpx.Response) -> bool:
        """Return whether there was no place; any other refusal is wrong."""
        if answer.status_code == 200:
            return False
        patient = answer.status_code == 429 and "retry-after" in answer.headers
        self._count("no place", patient, f"{answer.status_code}")
        return True

    def _count(self, end: str, right: bool, what: str) -> None:
        self._found.ends[end] += 1
        if not right:
            self._found.wrong.append(f"{end}: {what}"[:500])


async def _watch_memory(pid: int, until: float, found: Load) -> None:
    page = 4096
    while time.monotonic() < until:
        found.memory_bytes.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page)
        await asyncio.sleep(1)


def _text(choice: dict[str, Any]) -> str:
    """Return the text of a choice, whole or part of a stream, of either endpoint."""
    part = choice.get("message") or choice.get("delta") or choice
    return part.get("content") or part.get("text") or ""
