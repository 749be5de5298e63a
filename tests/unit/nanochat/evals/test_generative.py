from __future__ import annotations

from nanochat.config import EvaluateConfig
from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals.generative import answered


class _Repeater:
    """Answers every question with what it was asked."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate_each(self, prompts, seeds, *, max_new_tokens, temperature, top_k):
        self.drawn = dict(zip(seeds, prompts, strict=True)) | getattr(self, "drawn", {})
        replies = [prompt[2:-2][:max_new_tokens] for prompt in prompts]
        return reversed(list(enumerate(replies)))  # the last ends first


def _greedy(tokens):
    return EvaluateConfig(max_new_tokens=tokens)


def _task(kind, rows):
    return ChatTask(
        kind,
        kind,
        0.0,
        rows,
        lambda row: [{"role": "user", "content": row[0]}, {"role": "assistant", "content": "?"}],
        lambda row: row[1],
    )


def test_every_problem_has_its_reply_and_verdict(tokenizer):
    rows = [(f"#### {i}" + " " * (i % 5), Problem(answer=str(i if i % 3 else -1))) for i in range(70)]
    batches = list(answered(_Repeater(tokenizer), _task("math", rows), range(70), _greedy(50)))
    results = {result.item: result for batch in batches for result in batch}
    assert sorted(results) == list(range(70))
    for i, result in results.items():
        assert (result.predictions, result.right) == ((str(i),), (bool(i % 3),))
        assert result.replies == (rows[i][0],)


def test_functions_are_run_against_their_tests(tokenizer):
    problem = Problem(prompt="", entry_point="f", test="def check(f):\n    assert f(2) == 4", solution="")
    rows = [("def f(x): return 2 * x", problem), ("def f(x): return x", problem)]
    batches = answered(_Repeater(tokenizer), _task("code", rows), [0, 1], _greedy(99))
    right = {result.item: result.right for batch in batches for result in batch}
    assert right == {0: (True,), 1: (False,)}
