"""Rows that share beginnings, packed, against each row alone."""

from __future__ import annotations

import random

import torch

from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.model.packed_rows import PackedRows, common_prefix, packed_batches, packed_size


def _families(seed: int) -> list[list[list[int]]]:
    """Draw families whose rows share stems, all of which share a head; any of them may have no tokens."""
    draw = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [draw.randrange(97) for _ in range(draw.choice([0, 2, most]))]

    head = [96, *tokens(40)]
    stems = [head + tokens(25) for _ in range(draw.randint(1, 6))]
    return [[stem + tokens(12) for _ in range(draw.randint(1, 4))] for stem in stems]


def test_every_token_is_what_it_is_in_its_row_alone(model: GPT) -> None:
    for seed in range(12):
        families = _families(seed)
        packed = PackedRows(families)
        with torch.inference_mode():
            together = model.hidden_packed(packed)
            for rows, places in zip(families, packed.places, strict=True):
                for row, at in zip(rows, places, strict=True):
                    alone = model.hidden(torch.tensor([row]))[0]
                    torch.testing.assert_close(together[at], alone, atol=2e-5, rtol=1e-5)


def test_shared_beginnings_are_laid_once() -> None:
    head, stem = [9] * 20, [8] * 10
    families = [[head + stem + [1, 2], head + stem + [3]], [[*head, 4, 5]]]
    packed = PackedRows(families)
    assert packed.tokens.size(1) == 20 + 10 + 3 + 2
    assert packed_size(families[0]) == 33
    assert max(packed.positions.tolist()) == 31


def test_common_beginning_is_counted_to_the_end_of_the_shortest() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 2
    assert common_prefix([[1], [2]]) == common_prefix([]) == common_prefix([[], [1]]) == 0
    assert common_prefix([[4, 5]]) == 2


def test_batches_hold_each_family_once_and_the_largest_first() -> None:
    sizes = [5, 100, 7, 7, 30, 1, 250]
    batches = list(packed_batches(sizes, max_tokens=100))
    assert batches == [[6], [1], [4, 2, 3, 0, 5]]
    assert list(packed_batches([])) == []


def test_texts_longer_than_the_rotary_tables_are_read(model: GPT) -> None:
    row = [n % 97 for n in range(170)]  # the tables reach ten contexts of 16
    with torch.inference_mode():
        together = model.hidden_packed(PackedRows([[row]]))
        torch.testing.assert_close(together, model.hidden(torch.tensor([row]))[0], atol=2e-5, rtol=1e-5)


def test_weights_turned_once_compute_what_autocast_computes(model: GPT) -> None:
    families, text = _families(3), torch.tensor([[n % 97 for n in range(30)]])
    model.precision = torch.bfloat16
    with torch.inference_mode():
        each_time = model.hidden_packed(PackedRows(families)), model(text)
        model.compute_in(torch.bfloat16)
        assert model.hidden_packed(PackedRows(families)).equal(each_time[0])
        assert model(text).equal(each_time[1])
        cache = KVCache(model.config, 1, dtype=model.cache_dtype)
        logits = model.read(text.tolist(), cache, [0])[0]
        torch.testing.assert_close(
            logits, each_time[1][0, -1], atol=0.1, rtol=0.0
        )  # attention's order differs
    assert model.cache_dtype == torch.bfloat16
