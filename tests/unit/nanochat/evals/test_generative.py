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


def test_a_draw_depends_on_seed_problem_and_sample_alone(tokenizer):
    rows = [(f"#### {i}", Problem(answer="1")) for i in range(40)]
    task, config = _task("math", rows), EvaluateConfig(num_samples=3, temperature=1.0, seed=5)
    everything, few = _Repeater(tokenizer), _Repeater(tokenizer)
    results = [result for batch in answered(everything, task, range(40), config) for result in batch]
    assert all(len(r.replies) == len(r.right) == len(r.predictions) == 3 for r in results)
    assert sum(map(sum, (r.right for r in results))) == 3
    list(answered(few, task, [7, 3], config))
    assert len(everything.drawn) == 120 and len(few.drawn) == 6  # seeds: all different
    assert few.drawn.items() <= everything.drawn.items()
    other = _Repeater(tokenizer)
    list(answered(other, task, [7, 3], config.model_copy(update={"seed": 6})))
    assert other.drawn.keys().isdisjoint(everything.drawn)


def test_functions_are_run_against_their_tests(tokenizer):
    problem = Problem(prompt="", entry_point="f", test="def check(f):\n    assert f(2) == 4", solution="")
    rows = [("def f(x): return 2 * x", problem), ("def f(x): return x", problem)]
    batches = answered(_Repeater(tokenizer), _task("code", rows), [0, 1], _greedy(99))
    right = {result.item: result.right for batch in batches for result in batch}
    assert right == {0: (True,), 1: (False,)}
