"""Generation: from prompts to new tokens and text, with a KV cache and the calculator tool.

Requests are submitted at any time and written together (`nanochat.chat.writer`), each with settings and a
random generator of its own. When the model has written a calculation, its result is put into the answer
before the model goes on. An answer ends at `assistant_end` or `bos`, which are not returned, before a stop
string, or where there is no more room. Not here: the chat format of prompts, what is done with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nanochat.chat.pieces import Piece, PieceStream, shown_each
from nanochat.chat.request import Finish as Finish
from nanochat.chat.request import Request as Request
from nanochat.chat.request import TokenLogprobs as TokenLogprobs
from nanochat.chat.resident import ResidentRows
from nanochat.chat.writer import Answer, Event, Pace, Writer
from nanochat.config import Sampling
from nanochat.errors import DataError
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.model.packed_rows import BATCH_TOKENS
from nanochat.tokenizer.tokenizer import Tokenizer

_KEPT_CONTEXTS = 4  # of memory that rows without an answer keep on a CPU
_BATCH = Pace(rows=32, chunk=BATCH_TOKENS, chunk_alone=BATCH_TOKENS)  # nobody waits for a single answer


@dataclass(frozen=True)
class Written:
    """What one step brought one request; its last has `request.finish` set."""

    request: Request
    pieces: tuple[Piece, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    held: tuple[Piece, ...] = ()
    """What is held back and would be the answer's last, if it were ended now."""


class Engine:
    """Generates with one model and its tokenizer.

    Requests are submitted at any time and written together, a token each in a step. One thread at a time.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, pace: Pace | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.pace = pace or (Pace() if model.device.type == "cpu" else Pace(chunk=1024, chunk_alone=4096))
        self._stop = {tokenizer.special("assistant_end"), tokenizer.special("bos")}
        self._writer: Writer | None = None  # made when a request comes
        self._running: dict[Request, tuple[Answer, PieceStream]] = {}

    @property
    def context_tokens(self) -> int:
        """Return how many tokens a prompt and its answer may have together."""
        return self.model.config.sequence_len

    @property
    def busy(self) -> bool:
        """Return whether a request is waiting or being written."""
        return bool(self._running)

    @property
    def cache(self) -> KVCache | None:
        """Return what is kept of the texts of requests; None before the first."""
        return self._writer.cache if self._writer is not None else None

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Request:
        """Take in a request; `step` writes it.

        Raises DataError for an empty prompt, for one that leaves the context no place for an answer, and for
        tokens that the model does not know.
        """
        self._check(prompt)
        if len(prompt) >= self.context_tokens:
            raise DataError(
                f"the prompt has {len(prompt):,} tokens; with its answer it must fit into"
                f" {self.context_tokens:,}",
                hint="shorten it",
            )
        if self._writer is None:
            self._writer = self._new_writer(self.pace)
        request = Request(tuple(prompt), sampling)
        room = min(sampling.max_new_tokens, self.context_tokens - len(prompt))
        self._running[request] = (
            self._writer.add(request, room),
            PieceStream(self.tokenizer, sampling.stop),
        )
        return request

    def step(self) -> list[Written]:
        """Go on with all requests, a token each at most; return those that have something new."""
        if self._writer is None:
            return []
        return [self._taken(event) for event in self._writer.step()]

    def cancel(self, request: Request) -> None:
        """End a request, wherever it is; `request.finish` says so unless it had ended before."""
        if request in self._running:
            self._finish(request, "cancelled")

    def _taken(self, event: Event) -> Written:
        request = event.answer.request
        stream = self._running[request][1]
        pieces = stream.push(event.token) if event.token is not None else []
        if event.token is None or stream.stopped:
            self._finish(request, "stop")
        elif event.answer.done:
            limit = request.sampling.max_new_tokens
            self._finish(request, "length" if event.answer.room == limit else "context")
        if request.finish is not None:
            pieces += stream.flush()
        logprobs = (replace(event.logprobs, offset=stream.offset),) if event.logprobs else ()
        return Written(request, tuple(pieces), logprobs, tuple(stream.held))

    def _finish(self, request: Request, finish: Finish) -> None:
        answer, _ = self._running.pop(request)
        if self._writer is not None:
            self._writer.end(answer)
        request.finish = finish

    def _check(self, prompt: Sequence[int]) -> None:
        if not prompt:
            raise DataError("the prompt is empty", hint="begin it with the token `bos`")
        known = self.model.config.vocab_size
        strange = next((token for token in prompt if not 0 <= token < known), None)
        if strange is not None:
            raise DataError(
                f"the prompt has token {strange}; the model knows those from 0 to {known - 1}",
                hint="encode it with the model's own tokenizer",
            )

    def _new_writer(self, pace: Pace, capacity: int = 0) -> Writer:
        device = self.model.device
        cache = KVCache(self.model.config, pace.rows, capacity, device=device, dtype=self.model.cache_dtype)
        keep = _KEPT_CONTEXTS * self.context_tokens if device.type == "cpu" else None
        resident = ResidentRows(cache, keep_slots=keep)
        return Writer(self.model, self.tokenizer, frozenset(self._stop), pace, resident)

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
        for event in self._events([prompt_ids], [seed], max_new_tokens, temperature, top_k):
            if event.token is not None:
                yield event.token

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
        if max_new_tokens < 1:
            yield from ((number, []) for number in range(len(prompts)))
            return
        for event in self._events(prompts, seeds, max_new_tokens, temperature, top_k):
            if event.answer.done:
                yield event.answer.number, event.answer.request.tokens

    def _events(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        top_k: int | None,
    ) -> Iterator[Event]:
        """Write answers beside those of `submit`, in rows of their own; they may go past the context."""
        if not prompts or max_new_tokens < 1:
            return
        longest = max(map(len, prompts))
        pace = replace(_BATCH, rows=min(_BATCH.rows, len(prompts)))
        writer = self._new_writer(pace, longest + max_new_tokens)
        numbered = list(enumerate(zip(prompts, seeds, strict=True)))
        # The longest prompts first: at the end, when places stay empty, caches are read less far.
        for number, (prompt, seed) in sorted(numbered, key=lambda each: (-len(each[1][0]), each[0])):
            self._check(prompt)
            sampling = Sampling(
                temperature=temperature, top_k=top_k, max_new_tokens=max_new_tokens, seed=seed
            )
            writer.add(Request(tuple(prompt), sampling), max_new_tokens, number)
        while writer.busy:
            yield from writer.step()


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Turn tokens into pieces of text as chat shows them."""
    return shown_each(_pieces(PieceStream(tokenizer), tokens))


def _pieces(stream: PieceStream, tokens: Iterable[int]) -> Iterator[Piece]:
    for token in tokens:
        yield from stream.push(token)
    yield from stream.flush()
