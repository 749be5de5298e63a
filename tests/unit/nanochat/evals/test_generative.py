from __future__ import annotations

from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals.generative import count_right


class _Repeater:
    """Answers every question with what it was asked."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate_batch(self, prompts, *, max_new_tokens):
        return [prompt[2:-2][:max_new_tokens] for prompt in prompts]


def _task(kind, rows):
    return ChatTask(
        kind,
        kind,
        0.0,
        rows,
        lambda row: [{"role": "user", "content": row[0]}, {"role": "assistant", "content": "?"}],
        lambda row: row[1],
    )


def test_right_answers_are_counted_and_reported(tokenizer):
    rows = [(f"#### {i}" + " " * (i % 5), Problem(answer=str(i if i % 3 else -1))) for i in range(70)]
    reports = []
    right = count_right(
        _Repeater(tokenizer), _task("math", rows), range(70), 50, lambda *r: reports.append(r)
    )
    assert right == sum(bool(i % 3) for i in range(70))
    assert [done for done, _ in reports] == list(range(1, 71))


def test_functions_are_run_against_their_tests(tokenizer):
    problem = Problem(prompt="", entry_point="f", test="def check(f):\n    assert f(2) == 4", solution="")
    rows = [("def f(x): return 2 * x", problem), ("def f(x): return x", problem)]
    assert count_right(_Repeater(tokenizer), _task("code", rows), [0, 1], 99, lambda *_: None) == 1
