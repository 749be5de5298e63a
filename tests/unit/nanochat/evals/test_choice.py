from __future__ import annotations

import pytest
import torch

from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask
from nanochat.errors import DataError
from nanochat.evals.choice import answered
from nanochat.tokenizer.chat_format import render_for_completion


def _task(rows):
    return ChatTask(
        "quiz",
        "choice",
        0.25,
        rows,
        lambda row: [{"role": "user", "content": row[0]}, {"role": "assistant", "content": row[2]}],
        lambda row: Problem(letters=tuple(row[1]), answer=row[2], group=f"{len(row[1])} letters"),
    )


def _right(model, tokenizer, task, indices):
    batches = answered(model, tokenizer, task, indices)
    return {result.item: result.right[0] for batch in batches for result in batch}


ROWS = [("q" * (3 * i % 17), "ABCD"[: 3 + i % 2], "ABC"[i % 3]) for i in range(30)]


def _favourite(model, tokenizer, row):
    prompt = render_for_completion(tokenizer, [{"role": "user", "content": row[0]}])
    with torch.inference_mode():
        logits = model(torch.tensor([prompt]))[0, -1]
    return max(row[1], key=lambda letter: logits[ord(letter)].item())


def test_padded_batches_choose_as_single_prompts_do(model, tokenizer):
    expected = [_favourite(model, tokenizer, row) == row[2] for row in ROWS]
    assert 0 < sum(expected) < len(expected)
    assert _right(model, tokenizer, _task(ROWS), range(30)) == dict(enumerate(expected))
    assert _right(model, tokenizer, _task(ROWS), [4, 5]) == {4: expected[4], 5: expected[5]}


def test_results_say_which_part_of_the_task_they_belong_to(model, tokenizer):
    (batch,) = answered(model, tokenizer, _task(ROWS), range(4))
    assert {result.item: result.group for result in batch} == {
        0: "3 letters",
        1: "4 letters",
        2: "3 letters",
        3: "4 letters",
    }


def test_the_answer_in_the_conversation_is_not_shown_to_the_model(model, tokenizer):
    always_told = [
        (question, letters, _favourite(model, tokenizer, (question, letters)))
        for question, letters, _ in ROWS
    ]
    assert all(_right(model, tokenizer, _task(always_told), range(30)).values())


def test_letter_of_several_tokens_is_a_data_error(model, tokenizer):
    with pytest.raises(DataError, match="'AB' is 2 tokens"):
        _right(model, tokenizer, _task([("q", ["AB"], "AB")]), [0])
