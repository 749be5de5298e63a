from __future__ import annotations

from nanochat.config import EvaluateConfig
from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals.generative import answered


class _Repeater:
    """Answers every question with what it was asked."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate_batch(self, prompts, *, max_new_tokens, temperature, top_k, seeds):
        self.drawn = dict(zip(seeds, prompts, strict=True)) | getattr(self, "drawn", {})
        return [prompt[2:-2][:max_new_tokens] for prompt in prompts]


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
    assert len(batches) == 2
    results = {result.item: result for batch in batches for result in batch}
    assert sorted(results) == list(range(70))
    for i, result in results.items():
        assert (result.predictions, result.right) == ((str(i),), (bool(i % 3),))
        assert result.replies == (rows[i][0],)


def test_functions_are_run_against_their_tests(tokenizer):
    problem = Problem(prompt="", entry_point="f", test="def check(f):\n    assert f(2) == 4", solution="")
    rows = [("def f(x): return 2 * x", problem), ("def f(x): return x", problem)]
    (batch,) = answered(_Repeater(tokenizer), _task("code", rows), [0, 1], _greedy(99))
    assert [result.right for result in sorted(batch, key=lambda r: r.item)] == [(True,), (False,)]
