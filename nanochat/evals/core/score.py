"""Score a model on CORE (DCLM): a mean over tasks of the accuracy above guessing.

Multiple choice compares the mean loss of the differing ends, schema the mean loss of the common end,
language modelling asks whether every token of the continuation is the likeliest. Texts longer than the
positions that upstream's model knows lose their beginning. What an item's rows begin with, its examples and
question, is computed once, and only scored tokens meet the vocabulary. Batches follow from the items alone,
which makes results the same wherever they are scored. Reading the bundle: `nanochat.evals.core.bundle`.

Shapes: C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.evals.core.bundle import CoreTask
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.model.gpt import GPT
from nanochat.model.packed_rows import PackedRows, common_prefix, packed_batches, packed_size
from nanochat.tokenizer.tokenizer import Tokenizer

_LOGIT_ROWS = 256  # of the vocabulary's width, 64 MiB for 65,536 tokens
_CONTEXT_FACTOR = 10  # upstream's rotary tables reach ten training contexts


@dataclass(frozen=True)
class Scored:
    """One row: the tokens, and where the scored ones begin; they go to the end."""

    tokens: list[int]
    start: int


def answered(
    model: GPT, tokenizer: Tokenizer, task: CoreTask, indices: Sequence[int] | None = None
) -> Iterator[list[ItemResult]]:
    """Yield what the model makes of the items with these indices (None: all), batch by batch."""
    indices = range(len(task.items)) if indices is None else indices
    limit = _CONTEXT_FACTOR * model.config.sequence_len
    per_item = [scored_rows(tokenizer, task, index, limit) for index in indices]
    sizes = [packed_size([row.tokens for row in rows]) for rows in per_item]
    for batch in packed_batches(sizes):
        items = [per_item[i] for i in batch]
        scores = _scores(model, items, exact=task.kind == "language_modeling")
        yield [_result(task, indices[i], per_item[i], found) for i, found in zip(batch, scores, strict=True)]


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


def scored_rows(tokenizer: Tokenizer, task: CoreTask, index: int, limit: int) -> list[Scored]:
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
        rows.append(Scored(text[cut:], max(start - cut, 1)))
    return rows


@torch.inference_mode()
def _scores(model: GPT, items: Sequence[Sequence[Scored]], *, exact: bool) -> list[list[float]]:
    """Return per item and row the mean loss of its scored tokens, or with `exact` whether all are likeliest.

    Nothing is asked after a row's last token, so it is not fed. Rows that go on from the same token, as the
    choices of an item do, share its logits.
    """
    packed = PackedRows([[row.tokens[:-1] for row in rows] for rows in items], model.device)
    asked: dict[int, int] = {}  # place of a token whose successor is scored: row of the logits
    spans: list[tuple[list[int], list[int]]] = []  # per row of tokens: rows of the logits, and targets
    for rows, places in zip(items, packed.places, strict=True):
        for row, place in zip(rows, places, strict=True):
            logit_rows = [asked.setdefault(at, len(asked)) for at in place[row.start - 1 :]]
            spans.append((logit_rows, row.tokens[row.start :]))
    at = torch.tensor(list(asked), device=model.device)
    pairs = [(i, target) for span in spans for i, target in zip(*span, strict=True)]
    values = _of_targets(model, model.hidden_packed(packed)[at], pairs, exact=exact)
    scores = iter(torch.split(values, [len(targets) for _, targets in spans]))
    reduced = torch.all if exact else torch.mean
    return [[float(reduced(next(scores))) for _ in rows] for rows in items]


def _of_targets(model: GPT, x: Tensor, pairs: Sequence[tuple[int, int]], *, exact: bool) -> Tensor:
    """Return the loss of each pair of a row of x (asked, C) and a target, or whether it is the likeliest."""
    row, target = torch.tensor(pairs, device=x.device).unbind(1)
    found = torch.empty(len(pairs), dtype=torch.bool if exact else torch.float32, device=x.device)
    for start in range(0, x.size(0), _LOGIT_ROWS):
        logits = model.logits(x[start : start + _LOGIT_ROWS])  # (_LOGIT_ROWS, V)
        here = (row >= start) & (row < start + _LOGIT_ROWS)
        local, wanted = row[here] - start, target[here]
        if exact:
            found[here] = logits.argmax(-1)[local] == wanted
        else:
            found[here] = logits.logsumexp(-1)[local] - logits[local, wanted]
    return found.cpu()
