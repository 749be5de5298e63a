"""From logits to tokens: each row with settings and a random generator of its own, so that no row's draw
depends on another's.

The logits of tokens already in the text are divided by the repetition penalty (negative ones multiplied by
it), all are divided by the temperature, and the tokens to draw among are narrowed down: to the `top_k`
likeliest (and those as likely as the last of them), of these to the fewest that together have the probability
`top_p`, of these to those at least `min_p` times as likely as the likeliest. Rows with the same settings are
computed together. Not here: which tokens are forced on a row (`nanochat.chat.writer`).

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nanochat.chat.request import TokenLogprobs
from nanochat.config import Sampling

_COLDEST = 1e-6  # temperatures below are 0, since logits divided by them are no numbers any more;
_STRONGEST = 1e6  # nor are those that a stronger penalty makes
_LIKELIEST = 256  # sorted at first: sorting a whole vocabulary takes longer than all else here


class Draws:
    """What the draws of one answer need to know of it."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature < _COLDEST or sampling.top_k == 1
        self.generator = None if self.greedy else torch.Generator().manual_seed(sampling.seed)
        self._text: list[int] | None = list(prompt) if sampling.repetition_penalty != 1 else None
        self._seen: Tensor | None = None

    def wrote(self, token: int) -> None:
        """Count a token as part of the text."""
        if self._text is not None:
            self._text.append(token)

    def penalised(self, logits: Tensor) -> Tensor:
        """Return logits (V,) with those of tokens in the text made smaller."""
        if self._text is None:
            return logits
        if self._seen is None:
            self._seen = torch.zeros(logits.size(-1), dtype=torch.bool)
        self._seen[self._text] = True
        self._text.clear()
        penalty = min(max(self.sampling.repetition_penalty, 1 / _STRONGEST), _STRONGEST)
        changed = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(self._seen.to(logits.device), changed, logits)


def draw(logits: Tensor, rows: Sequence[Draws]) -> list[int]:
    """Draw one token per row of logits (R, V)."""
    if any(row.sampling.repetition_penalty != 1 for row in rows):
        logits = torch.stack([row.penalised(of_row) for row, of_row in zip(rows, logits, strict=True)])
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault(_settings(row), []).append(number)
    drawn = [0] * len(rows)
    for numbers in alike.values():
        of_rows = logits if len(numbers) == len(rows) else logits[numbers]
        tokens = _drawn(of_rows, [rows[number] for number in numbers])
        for number, token in zip(numbers, tokens, strict=True):
            drawn[number] = token
    return drawn


def logprobs(logits: Tensor, tokens: Sequence[int], rows: Sequence[Draws]) -> list[TokenLogprobs | None]:
    """Return what each row that asks for it is to know of its token: of the model's own distribution."""
    asking = [number for number, row in enumerate(rows) if row.sampling.logprobs is not None]
    found: list[TokenLogprobs | None] = [None] * len(rows)
    if asking:
        every = logits[asking].float().log_softmax(dim=-1).cpu()
        for number, of_row in zip(asking, every, strict=True):
            count = min(rows[number].sampling.logprobs or 0, of_row.numel())
            values, ids = of_row.topk(count)
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
            found[number] = TokenLogprobs(tokens[number], float(of_row[tokens[number]]), top)
    return found


def _settings(row: Draws) -> tuple[object, ...]:
    sampling = row.sampling
    if row.greedy:
        return ()
    return sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p


def _drawn(logits: Tensor, rows: Sequence[Draws]) -> list[int]:
    """Draw a token for each of some rows that share settings."""
    if rows[0].greedy:
        greedy: list[int] = logits.argmax(dim=-1).tolist()
        return greedy
    probabilities = distribution(logits, rows[0].sampling)
    return [
        int(torch.multinomial(of_row, 1, generator=row.generator))
        for of_row, row in zip(probabilities, rows, strict=True)
    ]


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return with what shares tokens are drawn after logits (R, V): 0 where left out, together at most 1."""
    logits = logits.float().cpu() / sampling.temperature
    if sampling.top_k and sampling.top_k < logits.size(-1):
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        probabilities = _fewest(probabilities, sampling.top_p)
    if sampling.min_p > 0:
        least = sampling.min_p * probabilities.amax(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    return probabilities


def _fewest(probabilities: Tensor, share: float) -> Tensor:
    """Keep the likeliest tokens of each row, as many as are needed for a share of 1."""
    vocabulary = probabilities.size(-1)
    for count in _more(vocabulary):
        values, ids = probabilities.topk(count, dim=-1)
        kept = values.cumsum(dim=-1) - values < share
        kept[:, 0] = True  # however small the share
        if count == vocabulary or not bool(kept[:, -1].any()):
            break
    return torch.zeros_like(probabilities).scatter_(1, ids, values * kept)


def _more(vocabulary: int) -> Iterable[int]:
    count = _LIKELIEST
    while count < vocabulary:
        yield count
        count *= 8
    yield vocabulary
