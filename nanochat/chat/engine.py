"""Generation: from prompts to new tokens, with a KV cache and the calculator tool.

Rows are batched whatever their length, aligned at their ends. Each row has a random generator of its own,
so a row's tokens depend neither on the batch it is in nor on the other rows. When the model has written a
calculation, its result is put into the row before the model goes on. A row ends at `assistant_end` or `bos`,
which are not returned. Not here: the chat format of prompts, what is done with the text.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanochat.chat.calculator import calculate
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH_ROWS = 32
_BATCH_TOKENS = 16_384  # prompt tokens of a batch, padding included


@dataclass
class _Row:
    """What is known of one answer while it is written."""

    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    forced: deque[int] = field(default_factory=deque)  # tool output still to be put in
    expression: list[int] | None = None  # tokens since python_start
    done: bool = False


class Engine:
    """Generates with one model and its tokenizer."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._python_start = tokenizer.special("python_start")
        self._python_end = tokenizer.special("python_end")
        self._stop = {tokenizer.special("assistant_end"), tokenizer.special("bos")}

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
        rows = [_Row(torch.Generator().manual_seed(seed))]
        for new in self._steps([prompt_ids], rows, max_new_tokens, temperature, top_k):
            yield from (token for _, token in new)

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
        rows = [_Row(torch.Generator().manual_seed(one)) for _, one in zip(prompts, seeds, strict=True)]
        for batch in batches_by_length([len(p) for p in prompts], _BATCH_ROWS, _BATCH_TOKENS):
            part = [rows[i] for i in batch]
            for _ in self._steps([prompts[i] for i in batch], part, max_new_tokens, temperature, top_k):
                pass
        return [row.tokens for row in rows]

    def _steps(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[_Row],
        max_new_tokens: int,
        temperature: float,
        top_k: int | None,
    ) -> Iterator[list[tuple[_Row, int]]]:
        """Extend all rows of one batch token by token; yield what each step has added."""
        if not prompts or max_new_tokens < 1:
            return
        active = list(rows)
        inputs, cache = self._prefill(prompts, max_new_tokens)
        for _ in range(max_new_tokens):
            with torch.inference_mode():
                logits = self.model(inputs, kv_cache=cache, last_only=True)[:, -1]  # (B, V)
                drawn = _sample(logits, [row.generator for row in active], temperature, top_k)
            fed = [self._extend(row, token) for row, token in zip(active, drawn, strict=True)]
            yield [(row, token) for row, token in zip(active, fed, strict=True) if not row.done]
            alive = [i for i, row in enumerate(active) if not row.done]
            if not alive:
                return
            if len(alive) <= len(active) // 2:  # a copy of the cache, so not for each row that ends
                with torch.inference_mode():
                    cache = cache.take(torch.tensor(alive, device=self.model.device))
                active, fed = [active[i] for i in alive], [fed[i] for i in alive]
            inputs = torch.tensor(fed, device=self.model.device)[:, None]  # (B, 1)

    def _prefill(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> tuple[Tensor, KVCache]:
        longest = max(map(len, prompts))
        bos = self.tokenizer.special("bos")
        padding = [longest - len(prompt) for prompt in prompts]
        padded = [[bos] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        device = self.model.device
        cache = KVCache(
            self.model.config,
            len(prompts),
            longest + max_new_tokens,
            left_padding=torch.tensor(padding) if any(padding) else None,
            device=device,
        )
        return torch.tensor(padded, device=device), cache

    def _extend(self, row: _Row, drawn: int) -> int:
        """Add one token to a row, the drawn one unless tool output is due; return it."""
        token = row.forced.popleft() if row.forced else drawn
        if row.done or token in self._stop:
            row.done = True
            return token
        row.tokens.append(token)
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


# How a use of the calculator reads in an answer: [3+4 = 7]
_SHOWN_AS = {"python_start": b"[", "python_end": b"", "output_start": b" = ", "output_end": b"] "}


def stream_text(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """Turn tokens into pieces of text, holding back characters whose bytes are not complete yet."""
    shown = {tokenizer.special(name): text for name, text in _SHOWN_AS.items()}
    pending = b""
    for token in tokens:
        pending += shown[token] if token in shown else tokenizer.decode_bytes([token])
        whole = len(pending) - _incomplete_tail(pending)
        if whole:
            yield pending[:whole].decode("utf-8", errors="replace")
            pending = pending[whole:]
    if pending:
        yield pending.decode("utf-8", errors="replace")


def batches_by_length(lengths: Sequence[int], max_rows: int, max_tokens: int) -> Iterator[list[int]]:
    """Group indices of rows of similar length into batches, the longest first; padding counts as tokens."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        rows = max(1, min(max_rows, max_tokens // max(lengths[order[start]], 1)))
        yield order[start : start + rows]
        start += rows


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


def _incomplete_tail(raw: bytes) -> int:
    """Count the bytes at the end that begin a character and wait for more."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0x80:
            continue  # a continuation byte: look for its start
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if needed > back else 0
    return 0
