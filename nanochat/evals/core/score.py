"""Score a model on CORE (DCLM): a mean over tasks of the accuracy above guessing.

Multiple choice compares the mean loss of the differing ends, schema the mean loss of the common end,
language modelling asks whether every token of the continuation is the likeliest. Texts longer than the
positions that upstream's model knows lose their beginning. Reading the bundle: `nanochat.evals.core.bundle`.

Shapes: B rows, T positions, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nanochat.chat.engine import batches_by_length
from nanochat.evals.core.bundle import CoreTask
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH_ROWS = 64
_BATCH_TOKENS = 8_192
_CONTEXT_FACTOR = 10  # upstream's rotary tables reach ten training contexts


@dataclass(frozen=True)
class Scored:
    """One row: the tokens, and where the scored ones begin and end."""

    item: int
    tokens: list[int]
    start: int
    end: int


def answered(
    model: GPT, tokenizer: Tokenizer, task: CoreTask, indices: Sequence[int]
) -> Iterator[list[ItemResult]]:
    """Yield what the model makes of the items of a task with these indices, batch by batch."""
    limit = _CONTEXT_FACTOR * model.config.sequence_len
    per_item = {index: _rows(tokenizer, task, index, limit) for index in indices}
    for batch in _groups(list(per_item.values())):
        group = [indices[place] for place in batch]
        rows = [row for index in group for row in per_item[index]]
        scores = _scores(model, rows, tokenizer.special("bos"), exact=task.kind == "language_modeling")
        by_item: dict[int, list[float]] = {}
        for row, score in zip(rows, scores, strict=True):
            by_item.setdefault(row.item, []).append(score)
        yield [_result(task, index, per_item[index], by_item[index]) for index in group]


def _result(task: CoreTask, index: int, rows: Sequence[Scored], scores: Sequence[float]) -> ItemResult:
    likelihoods: tuple[float, ...] = ()
    if task.kind == "language_modeling":
        gold, prediction = "1", str(int(scores[0]))
    else:
        gold = str(int(task.items[index]["gold"]))
        prediction = str(min(range(len(scores)), key=scores.__getitem__))
        likelihoods = tuple(-score for score in scores)
    return ItemResult(
        item=task.number(index),
        prompt_sha256=prompt_digest([row.tokens for row in rows]),
        gold=gold,
        predictions=(prediction,),
        right=(prediction == gold,),
        loglikelihoods=likelihoods,
    )


def _rows(tokenizer: Tokenizer, task: CoreTask, index: int, limit: int) -> list[Scored]:
    """Return the rows to score for an item, cut to `limit` tokens at their beginning."""
    bos = tokenizer.special("bos")
    texts = [[bos, *tokenizer.encode(prompt)] for prompt in task.prompts(index)]
    if task.kind == "schema":
        common = min(common_prefix([text[::-1] for text in texts]), min(map(len, texts)) - 1)
        spans = [(text, len(text) - max(common, 1)) for text in texts]
    else:
        # At least one token is scored, even where one choice begins another.
        common = common_prefix(texts)
        asked = texts[1:] if task.kind == "language_modeling" else texts
        spans = [(text, max(1, min(common, len(text) - 1))) for text in asked]
        if task.kind == "multiple_choice":
            spans = [(text, min(start for _, start in spans)) for text in asked]
    rows = []
    for text, start in spans:
        cut = max(0, len(text) - limit)
        rows.append(Scored(index, text[cut:], max(start - cut, 1), len(text) - cut))
    return rows


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all rows begin with."""
    length = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length


def _groups(per_item: Sequence[Sequence[Scored]]) -> Iterator[list[int]]:
    """Put items of similar length together; an item's rows stay together."""
    width = max((len(rows) for rows in per_item), default=1)
    lengths = [max(len(row.tokens) for row in rows) for rows in per_item]
    return batches_by_length(lengths, max(1, _BATCH_ROWS // width), max(1, _BATCH_TOKENS // width))


@torch.inference_mode()
def _scores(model: GPT, rows: Sequence[Scored], pad: int, *, exact: bool) -> list[float]:
    """Return per row the mean loss of its scored tokens, or with `exact` whether all are the likeliest."""
    longest = max(len(row.tokens) for row in rows)
    padded = [[*row.tokens, *[pad] * (longest - len(row.tokens))] for row in rows]
    hidden = model.hidden(torch.tensor(padded, device=model.device))  # (B, T, C)
    # Only scored positions go through the head, whose output is by far the largest tensor.
    places = [(i, t) for i, row in enumerate(rows) for t in range(row.start - 1, row.end - 1)]
    targets = torch.tensor([rows[i].tokens[t + 1] for i, t in places])
    index = torch.tensor(places, device=model.device)
    logits = model.logits(hidden[index[:, 0], index[:, 1]]).cpu()  # (scored, V)
    sizes = [row.end - row.start for row in rows]
    if exact:
        hits = torch.split(logits.argmax(dim=-1) == targets, sizes)
        return [float(part.all()) for part in hits]
    losses = torch.split(F.cross_entropy(logits, targets, reduction="none"), sizes)
    return [float(part.mean()) for part in losses]
