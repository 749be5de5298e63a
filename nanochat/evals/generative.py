"""Tasks whose answer is written out: word problems (the number at the end) and functions (their tests).

Of each problem one reply is taken greedily, or several are drawn. A draw depends on the seed, the problem's
number and the sample's number, and on nothing else: neither on the batch nor on which problems are asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from nanochat.chat.engine import Engine
from nanochat.config import EvaluateConfig
from nanochat.data.chat.answers import Problem, final_number, is_right_number
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals import humaneval
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.tokenizer.chat_format import render_for_completion


def answered(
    engine: Engine, task: ChatTask, indices: Sequence[int], config: EvaluateConfig
) -> Iterator[list[ItemResult]]:
    """Yield what the model writes to each of the problems with these indices, as soon as it is all there."""
    prompts = {i: render_for_completion(engine.tokenizer, task.conversation(i)) for i in indices}
    draws = [(i, sample) for i in indices for sample in range(config.num_samples)]
    written = engine.generate_each(
        [prompts[i] for i, _ in draws],
        [draw_seed(config.seed, i, sample) for i, sample in draws],
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
    )
    replies: dict[int, dict[int, str]] = {i: {} for i in indices}
    for number, tokens in written:
        i, sample = draws[number]
        replies[i][sample] = engine.tokenizer.decode(tokens)
        if len(replies[i]) == config.num_samples:
            in_order = [reply for _, reply in sorted(replies.pop(i).items())]
            yield [_result(task, i, prompts[i], in_order)]


def draw_seed(seed: int, item: int, sample: int) -> int:
    """Return the seed of one sample of one problem: 63 bits that nothing else shares."""
    digest = hashlib.sha256(f"{seed} {item} {sample}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _result(task: ChatTask, item: int, prompt: Sequence[int], replies: Sequence[str]) -> ItemResult:
    problem = task.problem(item)
    judged = [_judged(task, problem, reply) for reply in replies]
    return ItemResult(
        item=item,
        prompt_sha256=prompt_digest([prompt]),
        gold=problem.answer,
        predictions=tuple(prediction for prediction, _ in judged),
        right=tuple(right for _, right in judged),
        replies=tuple(replies),
    )


def _judged(task: ChatTask, problem: Problem, reply: str) -> tuple[str, bool]:
    """Return what a reply says, and whether that is right."""
    if task.kind == "code":
        passes = humaneval.passes(problem, reply)
        return ("passes" if passes else "fails"), passes
    return final_number(reply) or "", is_right_number(problem, reply)
