from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.config import ChatDataConfig
from nanochat.data.chat.chat_batches import MidtrainBatches, SftBatches
from nanochat.data.chat.chat_tokens import ChatTokens, Rendered, write_chat_tokens
from nanochat.errors import DataError
from nanochat.tokenizer.chat_format import render

quick = settings(max_examples=30, deadline=None)
texts = st.lists(st.tuples(st.text("ab ", max_size=9), st.text("cd ", max_size=9)), min_size=1, max_size=12)


def talks(pairs):
    return [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairs]


@pytest.fixture(scope="session")
def chat(tmp_path_factory, tokenizer):
    """Render conversations, write them and open what was written."""

    def chat(conversations, max_tokens=2048, targets="answers") -> ChatTokens:
        folder = tmp_path_factory.mktemp("chat")
        config = ChatDataConfig(max_tokens=max_tokens, targets=targets)
        write_chat_tokens(folder, [Rendered.of(c, tokenizer, config) for c in conversations], tokenizer)
        return ChatTokens.open(folder)

    return chat


@pytest.fixture(scope="session")
def midtrain_batches(chat, tokenizer):
    def make(conversations, rows, length, seed=0):
        return MidtrainBatches(
            chat(conversations, targets="all"), rows, length, tokenizer.special("bos"), seed
        )

    return make


@pytest.fixture(scope="session")
def sft_batches(chat, tokenizer):
    def make(conversations, rows, seed=0, max_tokens=2048, whole=False):
        pad = tokenizer.special("assistant_end")
        return SftBatches(chat(conversations, max_tokens), rows, pad, seed, whole=whole)

    return make


@quick
@given(pairs=texts, rows=st.integers(1, 4), length=st.integers(2, 30))
def test_midtraining_targets_are_all_conversations_end_to_end(
    pairs, rows, length, tokenizer, midtrain_batches
):
    conversations = talks(pairs)
    batches = midtrain_batches(conversations, rows, length)
    bos = tokenizer.special("bos")
    targets = np.concatenate([batches.batch(i)[1].reshape(-1) for i in range(batches.steps)])
    stream = np.where(targets == -1, bos, targets).tolist()
    wanted = [token for c in conversations for token in render(tokenizer, c)[0]]
    assert stream[: len(wanted)] == wanted
    assert len(stream) - len(wanted) == batches.accounting["repeated_tokens"] < rows * length


@quick
@given(pairs=texts, rows=st.integers(1, 4))
def test_sft_targets_are_what_the_assistant_says_and_the_rest_is_masked(pairs, rows, tokenizer, sft_batches):
    conversations = talks(pairs)
    batches = sft_batches(conversations, rows)
    for step in range(batches.steps):
        inputs, targets = batches.batch(step)
        chosen = conversations[step * batches.batch_rows :][: len(inputs)]
        for row, conversation in enumerate(chosen):
            ids, mask = render(tokenizer, conversation)
            n = len(ids) - 1
            assert inputs[row, :n].tolist() == ids[:-1]
            assert targets[row, :n].tolist() == [
                i if m else -1 for i, m in zip(ids[1:], mask[1:], strict=True)
            ]
            assert (inputs[row, n:] == tokenizer.special("assistant_end")).all()
            assert (targets[row, n:] == -1).all()


def test_each_later_epoch_has_its_own_order_and_the_same_rows(sft_batches):
    conversations = talks([(str(i), str(i)) for i in range(10, 50)])
    batches = sft_batches(conversations, 8, seed=3)
    epochs = [
        [row.tobytes() for s in range(5) for row in batches.batch(5 * epoch + s)[0]] for epoch in range(3)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]


def test_whole_epochs_have_each_row_once_and_the_same_rows_before_the_last_batch(sft_batches):
    conversations = talks([(str(i), str(i)) for i in range(10, 30)])
    floor, whole = (sft_batches(conversations, 8, seed=3, whole=w) for w in (False, True))
    assert (floor.steps, whole.steps) == (2, 3)
    assert (floor.accounting["left_over"], whole.accounting["left_over"]) == (4, 0)
    for epoch in range(2):
        for step in range(2):
            for a, b in zip(floor.batch(2 * epoch + step), whole.batch(3 * epoch + step), strict=True):
                assert np.array_equal(a, b)
        batches = [whole.batch(3 * epoch + step) for step in range(3)]
        trained = [row.tobytes() for _, targets in batches for row in targets if (row != -1).any()]
        assert len(trained) == len(set(trained)) == 20
        assert [len(inputs) for inputs, _ in batches] == [8, 8, 8]
    for all_rows, part in zip(whole.batch(2), whole.batch(2, slice(3, 6)), strict=True):
        assert np.array_equal(all_rows[3:6], part)


def test_batches_depend_on_the_step_alone(midtrain_batches, sft_batches):
    conversations = talks([("q" * i, "a" * i) for i in range(1, 20)])
    for make in (
        lambda: midtrain_batches(conversations, 3, 16, seed=1),
        lambda: sft_batches(conversations, 3, seed=1),
    ):
        used, fresh = make(), make()
        for step in (0, 25, 7):
            used.batch(step)
        for a, b in zip(used.batch(13), fresh.batch(13), strict=True):
            assert np.array_equal(a, b)


def test_conversations_without_targets_are_skipped_and_counted(sft_batches):
    long_question = talks([("x" * 100, "y")])
    batches = sft_batches([*long_question, *talks([("a", "b")])], 4, max_tokens=20)
    assert batches.accounting["skipped"] == 1
    assert batches.batch(0)[0].shape[0] == 1
    with pytest.raises(DataError, match="1 skipped"):
        sft_batches(long_question, 4, max_tokens=20)


def test_a_part_of_the_midtraining_rows_is_that_part_of_the_batch(midtrain_batches):
    batches = midtrain_batches(talks([("abc", "defg")] * 20), 4, 9)
    for whole, part in zip(batches.batch(1), batches.batch(1, slice(1, 3)), strict=True):
        assert np.array_equal(whole[1:3], part)


def test_what_the_calculator_returned_is_never_a_target(tokenizer, sft_batches):
    parts = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}]
    _, targets = sft_batches([talk], 1).batch(0)
    said = [t for t in targets[0].tolist() if t != -1]
    assert tokenizer.decode(said) == "1+1"


def test_midtraining_leaves_answers_of_weight_0_out_in_each_epoch(midtrain_batches, tokenizer):
    conversations = talks([("ab" * i, "cd") for i in range(9)])
    for conversation in conversations[::2]:
        conversation[1] |= {"content": "zzz", "weight": 0}
    conversations[0] += [{"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]
    batches = midtrain_batches(conversations, 2, 7, seed=1)
    for step in range(3 * batches.steps):
        inputs, targets = batches.batch(step)
        assert ord("z") not in targets
        assert (targets[:, :-1] == inputs[:, 1:])[targets[:, :-1] != -1].all()
    read = [batches.batch(step) for step in range(batches.steps)]
    assert sum(int((inputs == ord("z")).sum()) for inputs, _ in read) > 9
    assert {ord(c) for c in "abcdef"} <= {int(t) for _, targets in read for t in targets.flat}


def test_a_part_of_the_sft_rows_is_that_part_of_the_batch_also_if_it_is_empty(sft_batches):
    batches = sft_batches(talks([("q" * i, "a" * (i % 7)) for i in range(1, 20)]), 5, seed=1)
    lengths = []
    for step in (0, 2, 4):
        whole = batches.batch(step)
        lengths.append(whole[0].shape[1])
        for rows in (slice(0, 2), slice(2, 5), slice(3, 3), slice(1, None, 3)):
            for all_rows, part in zip(whole, batches.batch(step, rows), strict=True):
                assert np.array_equal(all_rows[rows], part)
    assert max(lengths) <= batches.longest == max(batches.batch(s)[0].shape[1] for s in range(40))


def test_midtraining_reads_all_conversations_in_a_new_order_in_each_epoch(midtrain_batches, tokenizer):
    conversations = talks([(chr(97 + i) * (i % 5), "b" * (i % 7)) for i in range(26)])
    batches = midtrain_batches(conversations, 3, 11, seed=5)
    tokens, bos = batches.accounting["tokens"], tokenizer.special("bos")

    def epoch(number):
        steps = range(number * batches.steps, (number + 1) * batches.steps)
        read = np.concatenate([batches.batch(step)[1].reshape(-1) for step in steps])[:tokens]
        return np.where(read == -1, bos, read).tolist()  # only a bos is ever masked

    epochs = [epoch(number) for number in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
