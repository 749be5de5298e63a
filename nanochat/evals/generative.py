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

_PORTION = 64  # replies of one batch


def answered(
    engine: Engine, task: ChatTask, indices: Sequence[int], config: EvaluateConfig, *, workers: int = 1
) -> Iterator[list[ItemResult]]:
    """Yield what the model writes to the problems with these indices, portion by portion.

    Programs are judged by this many workers.
    """
    prompts = {i: render_for_completion(engine.tokenizer, task.conversation(i)) for i in indices}
    # Portions are cut in the order of prompt length, so that batches hold little padding.
    order = sorted(indices, key=lambda i: (-len(prompts[i]), i))
    size = max(1, _PORTION // config.num_samples)
    for start in range(0, len(order), size):
        portion = order[start : start + size]
        draws = [(i, sample) for i in portion for sample in range(config.num_samples)]
        written = engine.generate_batch(
            [prompts[i] for i, _ in draws],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            seeds=[draw_seed(config.seed, i, sample) for i, sample in draws],
        )
        replies = [engine.tokenizer.decode(tokens) for tokens in written]
        answers = [(task.problem(i), reply) for (i, _), reply in zip(draws, replies, strict=True)]
        judged = _programs(answers, config, workers) if task.kind == "code" else list(map(_number, answers))
        each = config.num_samples
        yield [
            _result(task, i, prompts[i], replies[at : at + each], judged[at : at + each])
            for i, at in zip(portion, range(0, len(draws), each), strict=True)
        ]


def draw_seed(seed: int, item: int, sample: int) -> int:
    """Return the seed of one sample of one problem: 63 bits that nothing else shares."""
    digest = hashlib.sha256(f"{seed} {item} {sample}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _result(
    task: ChatTask,
    item: int,
    prompt: Sequence[int],
    replies: Sequence[str],
    judged: Sequence[tuple[str, bool]],
) -> ItemResult:
    return ItemResult(
        item=item,
        prompt_sha256=prompt_digest([prompt]),
        gold=task.problem(item).answer,
        predictions=tuple(prediction for prediction, _ in judged),
        right=tuple(right for _, right in judged),
        replies=tuple(replies),
    )


def _number(answer: tuple[Problem, str]) -> tuple[str, bool]:
    """Return the number that a reply gives, and whether it is right."""
    problem, reply = answer
    return final_number(reply) or "", is_right_number(problem, reply)


def _programs(
    answers: Sequence[tuple[Problem, str]], config: EvaluateConfig, workers: int
) -> list[tuple[str, bool]]:
    """Return whether the program of each reply passes, in a word and as a fact."""
    passing = humaneval.passing(answers, workers=workers, allow_unsafe_code=config.allow_unsafe_code)
    return [("passes" if passes else "fails", passes) for passes in passing]
