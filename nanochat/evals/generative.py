"""Tasks whose answer is written out: word problems (the number at the end) and functions (their tests)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nanochat.chat.engine import Engine
from nanochat.data.chat.answers import final_number, is_right_number
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals import humaneval
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.tokenizer.chat_format import render_for_completion

_PORTION = 64  # problems of one batch of replies


def answered(
    engine: Engine, task: ChatTask, indices: Sequence[int], max_new_tokens: int
) -> Iterator[list[ItemResult]]:
    """Yield what the model writes to the problems with these indices, greedily, portion by portion."""
    prompts = {i: render_for_completion(engine.tokenizer, task.conversation(i)) for i in indices}
    # Portions are cut in the order of prompt length, so that batches hold little padding.
    order = sorted(indices, key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), _PORTION):
        portion = order[start : start + _PORTION]
        written = engine.generate_batch([prompts[i] for i in portion], max_new_tokens=max_new_tokens)
        replies = [engine.tokenizer.decode(tokens) for tokens in written]
        yield [_result(task, i, prompts[i], reply) for i, reply in zip(portion, replies, strict=True)]


def _result(task: ChatTask, item: int, prompt: Sequence[int], reply: str) -> ItemResult:
    problem = task.problem(item)
    if task.kind == "code":
        right = humaneval.passes(problem, reply)
        prediction = "passes" if right else "fails"
    else:
        right = is_right_number(problem, reply)
        prediction = final_number(reply) or ""
    return ItemResult(
        item=item,
        prompt_sha256=prompt_digest([prompt]),
        gold=problem.answer,
        predictions=(prediction,),
        right=(right,),
        replies=(reply,),
    )
