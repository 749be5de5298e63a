"""Multiple choice: which of a problem's letters does the model find likeliest as its answer?

Only the letters' own tokens are compared, at the place where the answer would begin, so that a model that
does not know the form of the answer is still asked the question. Prompts are padded at the right, where
causal attention does not look.

Shapes: B rows, T positions, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from nanochat.chat.engine import batches_by_length
from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask
from nanochat.errors import DataError
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.model.gpt import GPT
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

_BATCH_ROWS = 64
_BATCH_TOKENS = 8_192


def answered(
    model: GPT, tokenizer: Tokenizer, task: ChatTask, indices: Sequence[int]
) -> Iterator[list[ItemResult]]:
    """Yield what the model answers to the problems with these indices, batch by batch."""
    prompts = [render_for_completion(tokenizer, task.conversation(i)) for i in indices]
    problems = [task.problem(i) for i in indices]
    letters = [[_letter_token(tokenizer, letter) for letter in problem.letters] for problem in problems]
    for batch in batches_by_length([len(p) for p in prompts], _BATCH_ROWS, _BATCH_TOKENS):
        logits = _last_logits(model, [prompts[i] for i in batch], tokenizer.special("bos"))
        yield [
            _result(indices[i], prompts[i], problems[i], row[letters[i]])
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
def _last_logits(model: GPT, prompts: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """Return the logits (B, V) after the last token of each prompt."""
    longest = max(map(len, prompts))
    padded = [[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts]
    hidden = model.hidden(torch.tensor(padded, device=model.device))  # (B, T, C)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
    at_end = hidden[torch.arange(len(prompts), device=model.device), last]  # (B, C)
    return model.logits(at_end).cpu()


def _letter_token(tokenizer: Tokenizer, letter: str) -> int:
    ids = tokenizer.encode(letter)
    if len(ids) != 1:
        raise DataError(f"the answer {letter!r} is {len(ids)} tokens; a letter must be one token")
    return ids[0]
