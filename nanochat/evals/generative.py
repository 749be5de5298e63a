"""Tasks whose answer is written out: word problems (the number at the end) and functions (their tests)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nanochat.chat.engine import Engine
from nanochat.data.chat.answers import Problem, is_right_number
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals import humaneval
from nanochat.evals.choice import Report
from nanochat.tokenizer.chat_format import render_for_completion

_PORTION = 64  # problems between two reports


def count_right(
    engine: Engine, task: ChatTask, indices: Sequence[int], max_new_tokens: int, report: Report
) -> int:
    """Return how many of the problems with these indices are answered correctly, writing greedily."""
    judge: Callable[[Problem, str], bool] = humaneval.passes if task.kind == "code" else is_right_number
    # Portions are cut in the order of prompt length, so that batches hold little padding.
    prompts = {i: render_for_completion(engine.tokenizer, task.conversation(i)) for i in indices}
    order = sorted(indices, key=lambda i: (-len(prompts[i]), i))
    right = 0
    for start in range(0, len(order), _PORTION):
        portion = order[start : start + _PORTION]
        replies = engine.generate_batch([prompts[i] for i in portion], max_new_tokens=max_new_tokens)
        for offset, (i, reply) in enumerate(zip(portion, replies, strict=True), 1):
            right += judge(task.problem(i), engine.tokenizer.decode(reply))
            report(start + offset, right)
    return right
