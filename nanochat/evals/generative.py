"""Tasks whose answer is written out: word problems (the number at the end) and functions (their tests).

Of each problem one reply is taken greedily, or several are drawn. A draw depends on the seed, the problem's
number and the sample's number, and on nothing else: neither on the batch nor on which problems are asked.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from nanochat.chat.engine import Engine
from nanochat.config import EvaluateConfig
from nanochat.data.chat.answers import Problem, final_number, is_right_number
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals import humaneval
from nanochat.evals.item_results import ItemResult, prompt_digest
from nanochat.tokenizer.chat_format import render_for_completion

Answers = Sequence[tuple[Problem, str]]  # replies to one problem, each with the problem
Verdicts = Sequence[tuple[str, bool]]  # what each reply says, and whether that is right


def answered(
    engine: Engine, task: ChatTask, indices: Sequence[int], config: EvaluateConfig, *, workers: int = 1
) -> Iterator[list[ItemResult]]:
    """Yield what the model writes to each of the problems with these indices, as soon as it is judged.

    Programs are judged by this many workers while the next are written.
    """
    prompts = {i: render_for_completion(engine.tokenizer, task.conversation(i)) for i in indices}
    written: deque[tuple[int, list[str]]] = deque()

    def answers() -> Iterator[Answers]:
        for i, replies in _written(engine, prompts, config):
            written.append((i, replies))
            yield [(task.problem(i), reply) for reply in replies]

    judged = _programs(answers(), config, workers) if task.kind == "code" else map(_numbers, answers())
    for verdicts in judged:
        i, replies = written.popleft()
        yield [_result(task, i, prompts[i], replies, verdicts)]


def _written(
    engine: Engine, prompts: Mapping[int, Sequence[int]], config: EvaluateConfig
) -> Iterator[tuple[int, list[str]]]:
    """Yield each problem's number and its replies, as soon as these are all there."""
    draws = [(i, sample) for i in prompts for sample in range(config.num_samples)]
    written = engine.generate_each(
        [prompts[i] for i, _ in draws],
        [draw_seed(config.seed, i, sample) for i, sample in draws],
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
    )
    replies: dict[int, dict[int, str]] = {i: {} for i in prompts}
    for number, tokens in written:
        i, sample = draws[number]
        replies[i][sample] = engine.tokenizer.decode(tokens)
        if len(replies[i]) == config.num_samples:
            yield i, [reply for _, reply in sorted(replies.pop(i).items())]


def draw_seed(seed: int, item: int, sample: int) -> int:
    """Return the seed of one sample of one problem: 63 bits that nothing else shares."""
    digest = hashlib.sha256(f"{seed} {item} {sample}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _result(
    task: ChatTask, item: int, prompt: Sequence[int], replies: Sequence[str], verdicts: Verdicts
) -> ItemResult:
    return ItemResult(
        item=item,
        prompt_sha256=prompt_digest([prompt]),
        gold=task.problem(item).answer,
        predictions=tuple(prediction for prediction, _ in verdicts),
        right=tuple(right for _, right in verdicts),
        replies=tuple(replies),
    )


def _numbers(answers: Answers) -> Verdicts:
    """Return the number that each reply gives, and whether it is right."""
    return [(final_number(reply) or "", is_right_number(problem, reply)) for problem, reply in answers]


def _programs(answers: Iterator[Answers], config: EvaluateConfig, workers: int) -> Iterator[Verdicts]:
    """Yield whether the program of each reply passes, in a word and as a fact."""
    passing = humaneval.passing(answers, workers=workers, allow_unsafe_code=config.allow_unsafe_code)
    for group in passing:
        yield [("passes" if passes else "fails", passes) for passes in group]
