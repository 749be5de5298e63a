"""Multiple choice: which of a problem's letters does the model find likeliest as its answer?

Only the letters' own tokens are compared, at the place where the answer would begin, so that a model that
does not know the form of the answer is still asked the question; no other row of the head is multiplied.
Prompts are packed without padding, and what all of a batch begin with is computed once. Batches follow from
the prompts alone, which makes results the same wherever these problems are asked.

Shapes: B prompts, C channels, L different letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask
from nanochat.errors import DataError
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.model.gpt import GPT
from nanochat.model.packed_rows import PackedRows, packed_batches
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer


def answered(
    model: GPT, tokenizer: Tokenizer, task: ChatTask, indices: Sequence[int]
) -> Iterator[list[ItemResult]]:
    """Yield what the model answers to the problems with these indices, batch by batch."""
    prompts = [render_for_completion(tokenizer, task.conversation(i)) for i in indices]
    problems = [task.problem(i) for i in indices]
    letters = sorted({letter for problem in problems for letter in problem.letters})
    tokens = [_letter_token(tokenizer, letter) for letter in letters]
    column = {letter: number for number, letter in enumerate(letters)}
    for batch in packed_batches([len(prompt) for prompt in prompts]):
        logits = _answer_logits(model, [prompts[i] for i in batch], tokens)
        yield [
            _result(indices[i], prompts[i], problems[i], row[[column[x] for x in problems[i].letters]])
            for row, i in zip(logits, batch, strict=True)
        ]


def _result(item: int, prompt: Sequence[int], problem: Problem, logits: torch.Tensor) -> ItemResult:
    """Judge the logits of a problem's letters (number of letters)."""
    chosen = problem.letters[int(logits.argmax())]
    return ItemResult(
        item=item,
        prompt_sha256=prompt_digest([prompt]),
        gold=problem.answer,
        predictions=(chosen,),
        right=(chosen == problem.answer,),
        loglikelihoods=tuple(logits.float().log_softmax(-1).tolist()),
        group=problem.group,
    )


@torch.inference_mode()
def _answer_logits(model: GPT, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> torch.Tensor:
    """Return the logits (B, L) of some tokens after each prompt."""
    packed = PackedRows([[prompt] for prompt in prompts], model.device)
    last = torch.tensor([place[-1] for [place] in packed.places], device=model.device)
    return model.logits(model.hidden_packed(packed)[last], tokens).cpu()


def _letter_token(tokenizer: Tokenizer, letter: str) -> int:
    ids = tokenizer.encode(letter)
    if len(ids) != 1:
        raise DataError(f"the answer {letter!r} is {len(ids)} tokens; a letter must be one token")
    return ids[0]
