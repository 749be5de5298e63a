"""Generation: from prompts to new tokens, with a KV cache and the calculator tool.

Rows are batched whatever their length, and when one ends the next prompt takes its place. Each row has a
random generator of its own, so a row's tokens depend neither on the batch it is in nor on the other rows.
When the model has written a calculation, its result is put into the row before the model goes on. A row ends
at `assistant_end` or `bos`, which are not returned. Not here: the chat format of prompts, what is done with
the text.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nanochat.chat.calculator import calculate
from nanochat.chat.pieces import Piece, PieceStream, shown
from nanochat.config import Sampling
from nanochat.errors import DataError
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.model.packed_rows import packed_batches
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH_ROWS = 32


@dataclass
class _Row:
    """What is known of one answer while it is written."""

    number: int
    prompt: Sequence[int]
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    forced: deque[int] = field(default_factory=deque)  # tool output still to be put in
    expression: list[int] | None = None  # tokens since python_start
    done: bool = False


Finish = Literal["stop", "length", "context", "cancelled"]
"""Why an answer ended: by itself or at a stop string, at its limit, at the context's, on request."""


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probability of a written token, and the likeliest tokens in its place, likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Request:
    """One answer to be written, and what is known of it so far."""

    prompt: tuple[int, ...]
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    """Written so far, what the calculator returned among them; without the token that ends the answer."""
    finish: Finish | None = None
    reused_tokens: int = 0
    """Of the prompt, those that were not read again because an earlier text began with them."""


@dataclass(frozen=True)
class Written:
    """What one step brought one request; its last has `request.finish` set."""

    request: Request
    pieces: tuple[Piece, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


class Engine:
    """Generates with one model and its tokenizer.

    Requests are submitted at any time and written together, a token each in a step. One thread at a time.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._python_start = tokenizer.special("python_start")
        self._python_end = tokenizer.special("python_end")
        self._stop = {tokenizer.special("assistant_end"), tokenizer.special("bos")}
        self._running: dict[Request, tuple[Iterator[int], PieceStream]] = {}

    @property
    def context_tokens(self) -> int:
        """Return how many tokens a prompt and its answer may have together."""
        return self.model.config.sequence_len

    @property
    def busy(self) -> bool:
        """Return whether a request is waiting or being written."""
        return bool(self._running)

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Request:
        """Take in a request; `step` writes it.

        Raises DataError for an empty prompt, and for one that leaves the context no place for an answer.
        """
        if not prompt:
            raise DataError("the prompt is empty", hint="begin it with the token `bos`")
        if len(prompt) >= self.context_tokens:
            raise DataError(
                f"the prompt has {len(prompt):,} tokens; with its answer it must fit into"
                f" {self.context_tokens:,}",
                hint="shorten it",
            )
        request = Request(tuple(prompt), sampling)
        room = min(sampling.max_new_tokens, self.context_tokens - len(prompt))
        tokens = self.generate(
            prompt,
            max_new_tokens=room,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            seed=sampling.seed,
        )
        self._running[request] = (tokens, PieceStream(self.tokenizer, sampling.stop))
        return request

    def step(self) -> list[Written]:
        """Go on with all requests, a token each at most; return those that have something new."""
        return [self._advance(request) for request in list(self._running)]

    def _advance(self, request: Request) -> Written:
        tokens, stream = self._running[request]
        token = next(tokens, None)
        if token is not None:
            request.tokens.append(token)
            pieces = stream.push(token)
            if not stream.stopped:
                return Written(request, tuple(pieces))
        else:
            pieces = stream.flush()
        limit = request.sampling.max_new_tokens
        room = min(limit, self.context_tokens - len(request.prompt))
        full = len(request.tokens) == room and not stream.stopped
        request.finish = "stop" if not full else "length" if room == limit else "context"
        del self._running[request]
        return Written(request, tuple(pieces))

    def cancel(self, request: Request) -> None:
        """End a request, wherever it is; `request.finish` says so unless it had ended before."""
        if self._running.pop(request, None) is not None:
            request.finish = "cancelled"

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 42,
    ) -> Iterator[int]:
        """Yield the new tokens of one row as they are written; temperature 0 takes the likeliest."""
        row = _Row(0, prompt_ids, torch.Generator().manual_seed(seed))
        for new in self._steps([row], max_new_tokens, temperature, top_k):
            yield from (token for _, token in new if token not in self._stop)

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 42,
        seeds: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """Return the new tokens of every prompt; row `i` draws with `seeds[i]`, or else with `seed + i`."""
        if seeds is None:
            seeds = range(seed, seed + len(prompts))
        written: list[list[int]] = [[] for _ in prompts]
        answers = self.generate_each(
            prompts, seeds, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k
        )
        for number, tokens in answers:
            written[number] = tokens
        return written

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield the number of each prompt and its new tokens as soon as they are all there."""
        rows = [
            _Row(number, prompt, torch.Generator().manual_seed(seed))
            for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        if max_new_tokens < 1:
            yield from ((row.number, row.tokens) for row in rows)
            return
        for new in self._steps(rows, max_new_tokens, temperature, top_k):
            yield from ((row.number, row.tokens) for row, _ in new if row.done)

    def _steps(
        self, rows: Sequence[_Row], max_new_tokens: int, temperature: float, top_k: int | None
    ) -> Iterator[list[tuple[_Row, int]]]:
        """Extend rows token by token, some at a time; yield rows that have changed with their new token.

        The token that ends a row is yielded too, but is not among the row's own.
        """
        if not rows or max_new_tokens < 1:
            return
        # The longest prompts first: at the end, when places stay empty, caches are read less far.
        waiting = deque(sorted(rows, key=lambda row: (-len(row.prompt), row.number)))
        places: list[_Row | None] = [None] * min(_BATCH_ROWS, len(rows))
        cache = KVCache(
            self.model.config,
            len(places),
            len(waiting[0].prompt) + max_new_tokens,
            device=self.model.device,
            dtype=self.model.cache_dtype,
        )
        while True:
            free = [i for i, row in enumerate(places) if row is None or row.done][: len(waiting)]
            if free:
                asked = [waiting.popleft() for _ in free]
                for i, row in zip(free, asked, strict=True):
                    places[i] = row
                logits = self._read(cache, free, asked)
            else:
                alive = [i for i, row in enumerate(places) if row is not None and not row.done]
                if not alive:
                    return
                if len(alive) <= len(places) // 2:  # a copy of the cache, so not for each row that ends
                    cache, places = cache.take(alive), [places[i] for i in alive]
                asked = [row for row in places if row is not None]
                logits = self._next(cache, asked)
            drawn = _sample(logits, [row.generator for row in asked], temperature, top_k)
            going = [(row, token) for row, token in zip(asked, drawn, strict=True) if not row.done]
            yield [(row, self._extend(row, token, max_new_tokens)) for row, token in going]

    @torch.inference_mode()
    def _read(self, cache: KVCache, places: Sequence[int], rows: Sequence[_Row]) -> Tensor:
        """Put the prompts of rows into places of the cache; return the logits (rows, V) after them."""
        logits: dict[int, Tensor] = {}
        for batch in packed_batches([len(row.prompt) for row in rows]):
            found = self.model.read([rows[i].prompt for i in batch], cache, [places[i] for i in batch])
            logits |= zip(batch, found, strict=True)
        return torch.stack([logits[i] for i in range(len(rows))])

    @torch.inference_mode()
    def _next(self, cache: KVCache, rows: Sequence[_Row]) -> Tensor:
        """Feed the last token of each row, of a row that is done just any; return the logits (B, V)."""
        last = [[row.tokens[-1] if row.tokens else 0] for row in rows]
        fed = torch.tensor(last, device=self.model.device)  # (B, 1)
        logits: Tensor = self.model(fed, kv_cache=cache, last_only=True)
        return logits[:, -1]

    def _extend(self, row: _Row, drawn: int, max_new_tokens: int) -> int:
        """Add one token to a row, the drawn one unless tool output is due; return it."""
        token = row.forced.popleft() if row.forced else drawn
        if token in self._stop:
            row.done = True
            return token
        row.tokens.append(token)
        row.done = len(row.tokens) == max_new_tokens
        if token == self._python_start:
            row.expression = []
        elif token == self._python_end and row.expression is not None:
            result = calculate(self.tokenizer.decode(row.expression))
            row.expression = None
            if result is not None:
                row.forced.append(self.tokenizer.special("output_start"))
                row.forced.extend(self.tokenizer.encode(result))
                row.forced.append(self.tokenizer.special("output_end"))
        elif row.expression is not None:
            row.expression.append(token)
        return token


def stream_text(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """Turn tokens into pieces of text as chat shows them."""
    stream = PieceStream(tokenizer)
    written: list[Piece] = []
    before = ""
    for token in tokens:
        written += stream.push(token)
        after = shown(written)
        if after[len(before) :]:
            yield after[len(before) :]
        before = after
    rest = shown([*written, *stream.flush()])
    if rest[len(before) :]:
        yield rest[len(before) :]


def _sample(
    logits: Tensor, generators: Sequence[torch.Generator], temperature: float, top_k: int | None
) -> list[int]:
    """Draw one token per row of logits (B, V)."""
    if temperature <= 0:
        greedy: list[int] = logits.argmax(dim=-1).tolist()
        return greedy
    logits = logits.float().cpu() / temperature
    if top_k and top_k < logits.size(-1):
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    return [
        int(torch.multinomial(row, 1, generator=generator))
        for row, generator in zip(probabilities, generators, strict=True)
    ]
