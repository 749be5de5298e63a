"""Answers written together: rows of a cache, each at its own position, a token each in a step.

An answer waits until a row is free. Its prompt is read in chunks, a bounded number of tokens in a step for
all prompts together, so that a long one does not hold up those who are being answered. In the same forward
pass every answer whose prompt has been read gets its next token. A row that ends keeps its text, and the next
prompt that begins with it is read from where they differ. Not here: prompts' limits, text, stop strings
(`nanochat.chat.engine`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.chat.calls import Calls
from nanochat.chat.draw import Draws, draw, logprobs
from nanochat.chat.request import Request, TokenLogprobs
from nanochat.chat.resident import ResidentRows
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is done in a step."""

    rows: int = 32
    """Answers that are written together."""
    chunk: int = 64
    """Tokens of prompts that are read while answers are written,"""
    chunk_alone: int = 512
    """and while none is: for this long nobody can cancel."""


@dataclass(eq=False)
class Answer:
    """One answer while it is written."""

    request: Request
    room: int
    """Tokens that it may have."""
    draws: Draws
    calls: Calls
    number: int = 0
    """By which its caller knows it."""
    row: int = -1
    done: bool = False

    @property
    def length(self) -> int:
        """Return the tokens of prompt and answer together."""
        return len(self.request.prompt) + len(self.request.tokens)

    def text(self, start: int, end: int) -> list[int]:
        """Return some of the tokens of prompt and answer."""
        prompt, tokens = self.request.prompt, self.request.tokens
        behind = len(prompt)
        if start >= behind:
            return tokens[start - behind : end - behind]
        return [*prompt[start:end], *tokens[: max(0, end - behind)]]


@dataclass(frozen=True)
class Event:
    """What a step brought one answer."""

    answer: Answer
    token: int | None
    """None: the model ended the answer."""
    logprobs: TokenLogprobs | None = None


class Writer:
    """Writes any number of answers with one model."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, ends: frozenset[int], pace: Pace, resident: ResidentRows
    ) -> None:
        self.pace = pace
        self._model, self._tokenizer, self._ends = model, tokenizer, ends
        self._resident = resident
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []  # in the order in which they were taken up

    @property
    def cache(self) -> KVCache:
        """Return what is kept of the texts."""
        return self._resident.cache

    @property
    def busy(self) -> bool:
        """Return whether an answer is waiting or being written."""
        return bool(self._waiting or self._running)

    def add(self, request: Request, room: int, number: int = 0) -> Answer:
        """Take in a request; its answer may have `room` tokens."""
        draws, calls = Draws(request.sampling, request.prompt), Calls(self._tokenizer)
        answer = Answer(request, room, draws, calls, number)
        self._waiting.append(answer)
        return answer

    def end(self, answer: Answer) -> None:
        """Write no more of an answer, wherever it is; its row is free at once."""
        if answer.done:
            return
        answer.done = True
        if answer.row < 0:
            self._waiting.remove(answer)
        else:
            self._running.remove(answer)
            self._resident.free(answer.row)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Read some of the prompts, and write a token of each answer whose prompt has been read."""
        feeds = list(self._feeds())
        if not feeds:
            return []
        cache, rows = self._resident.cache, [answer.row for answer, _ in feeds]
        logits = self._model.read([text for _, text in feeds], cache, rows)  # (R, V)
        whole = [n for n, (answer, _) in enumerate(feeds) if len(cache.texts[answer.row]) == answer.length]
        answers = [feeds[n][0] for n in whole]
        return self._written(answers, logits if len(whole) == len(feeds) else logits[whole])

    def _feeds(self) -> Iterator[tuple[Answer, list[int]]]:
        """Yield what is to be read in a step, and for whom."""
        texts = self._resident.cache.texts
        reading = [answer for answer in self._running if answer.length - len(texts[answer.row]) > 1]
        left = self.pace.chunk_alone if len(reading) == len(self._running) else self.pace.chunk
        for answer in self._running:
            start = len(texts[answer.row])
            if answer.length - start == 1:
                yield answer, answer.text(start, start + 1)
            elif left:
                text = answer.text(start, min(start + left, answer.length))
                left -= len(text)
                yield answer, text
        while left and (new := self._next(reading)):
            new.row, start = self._resident.take(new.request.prompt)
            new.request.reused_tokens = start
            text = new.text(start, min(start + left, new.length))
            left -= len(text)
            self._running.append(new)
            reading.append(new)
            yield new, text

    def _next(self, reading: Sequence[Answer]) -> Answer | None:
        """Take the next answer that a row is free for, and that need not wait for one that begins alike."""
        if not self._resident.free_rows:
            return None
        for answer in self._waiting:
            prompt = answer.request.prompt
            coming = max(
                (self._resident.shared(prompt, other.request.prompt) for other in reading), default=0
            )
            if not coming or coming <= self._resident.longest(prompt)[1]:
                self._waiting.remove(answer)
                return answer
        return None

    def _written(self, answers: Sequence[Answer], logits: Tensor) -> list[Event]:
        """Give each answer its next token: the one that is due, or else the one that is drawn."""
        if not answers:
            return []
        rows = [answer.draws for answer in answers]
        drawn = draw(logits, rows)
        known = logprobs(logits, drawn, rows)
        return [self._extended(*each) for each in zip(answers, drawn, known, strict=True)]

    def _extended(self, answer: Answer, drawn: int, known: TokenLogprobs | None) -> Event:
        due = answer.calls.due()
        token = drawn if due is None else due
        if token in self._ends:
            self.end(answer)
            return Event(answer, None)
        answer.request.tokens.append(token)
        answer.draws.wrote(token)
        if due is None:
            answer.calls.wrote(token)
        if len(answer.request.tokens) == answer.room:
            self.end(answer)
        return Event(answer, token, known if due is None else None)
