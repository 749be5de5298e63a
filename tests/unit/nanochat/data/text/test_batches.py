from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.data.text.batches import PretrainBatches, val_batch_count, val_batches
from nanochat.errors import DataError

BOS = 256
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
corpora = st.lists(st.lists(st.text("abcdef", max_size=25), min_size=1, max_size=12), min_size=1, max_size=3)


def stream_of(batches: PretrainBatches, steps: int) -> list[int]:
    """Targets of the first steps in order, the masked ones (always bos) put back."""
    rows = np.concatenate([batches.batch(step)[1] for step in range(steps)])
    return np.where(rows == -1, BOS, rows).reshape(-1).tolist()


@quick
@given(corpus=corpora, rows=st.integers(1, 5), length=st.integers(1, 17), seed=st.integers(0, 99))
def test_every_epoch_holds_every_document_exactly_once(corpus, rows, length, seed, make_shard):
    shards = [make_shard(texts) for texts in corpus]
    batches = PretrainBatches(shards, rows, length, seed, BOS)
    documents = Counter(
        tuple(shard.document(i).tolist()) for shard in shards for i in range(shard.n_documents)
    )
    per_epoch = batches.tokens_per_epoch
    steps = -(-2 * per_epoch // (rows * length))
    stream = stream_of(batches, steps)
    for epoch in range(2):
        tokens = stream[epoch * per_epoch : (epoch + 1) * per_epoch]
        cuts = [i for i, token in enumerate(tokens) if token == BOS] + [len(tokens)]
        assert Counter(tuple(tokens[a:b]) for a, b in pairwise(cuts)) == documents


def test_without_shuffling_every_epoch_reads_the_documents_as_the_shards_have_them(make_shard):
    shards = [make_shard(["first", "second"]), make_shard(["third"])]
    written = [token for shard in shards for i in range(shard.n_documents) for token in shard.document(i)]
    batches = PretrainBatches(shards, 1, len(written), 7, BOS, shuffle=False)
    assert stream_of(batches, 2) == 2 * written
    assert stream_of(PretrainBatches(shards, 1, len(written), 7, BOS), 2) != 2 * written


@quick
@given(corpus=corpora, step=st.integers(0, 40), first=st.integers(0, 3), count=st.integers(0, 4))
def test_any_rows_of_any_step_equal_those_read_in_sequence(corpus, step, first, count, make_shard):
    shards = [make_shard(texts) for texts in corpus]
    whole = PretrainBatches(shards, 4, 7, 1, BOS)
    for earlier in range(step):
        whole.batch(earlier)
    fresh = PretrainBatches(shards, 4, 7, 1, BOS)
    part = slice(first, first + count)
    for a, b in zip(whole.batch(step), fresh.batch(step, part), strict=True):
        assert np.array_equal(a[part], b)
    for a, b in zip(whole.batch(step), fresh.batch(step, slice(3, None, -2)), strict=True):
        assert np.array_equal(a[3::-2], b)


@quick
@given(corpus=corpora, steps=st.integers(1, 12))
def test_what_is_masked_and_added_is_counted(corpus, steps, make_shard):
    batches = PretrainBatches([make_shard(texts) for texts in corpus], 3, 5, 0, BOS)
    pairs = [batches.batch(step) for step in range(steps)]
    counts = batches.accounting(steps)
    masked = sum(int((targets == -1).sum()) for _, targets in pairs)
    assert counts["masked_targets"] == masked
    assert counts["added_bos_inputs"] == steps * 3 - masked
    assert counts["tokens_read"] == steps * 15
    assert counts["packing_waste"] == masked / counts["tokens_read"]
    stream = stream_of(batches, steps)
    starts = [i for i, token in enumerate(stream) if token == BOS] + [len(stream)]
    assert counts["cut_documents"] == sum(a // 5 != (b - 1) // 5 for a, b in pairwise(starts))


@quick
@given(corpus=corpora, world=st.sampled_from([1, 2, 3, 6]), step=st.integers(0, 20))
def test_any_number_of_ranks_reads_the_same_global_batch(corpus, world, step, make_shard):
    shards = [make_shard(texts) for texts in corpus]
    whole = PretrainBatches(shards, 6, 7, 1, BOS).batch(step)
    ranks = [PretrainBatches(shards, 6, 7, 1, BOS) for _ in range(world)]
    share = 6 // world
    parts = [each.batch(step, slice(n * share, (n + 1) * share)) for n, each in enumerate(ranks)]
    for i in range(2):
        assert np.array_equal(whole[i], np.concatenate([part[i] for part in parts]))


def test_a_far_step_is_found_without_reading_what_comes_before(make_shard, monkeypatch):
    batches = PretrainBatches([make_shard(["x" * (i % 9) for i in range(400)])], 2, 11, 0, BOS)
    gathered = []
    gather = batches._gather
    monkeypatch.setattr(batches, "_gather", lambda pieces: gathered.extend(pieces) or gather(pieces))
    batches.batch(10**6)
    assert sum(piece.stop - piece.begin for piece in gathered) == 22
    assert len(gathered) <= 22


def test_rows_begin_with_bos_and_inputs_are_the_targets_one_place_later(make_shard):
    batches = PretrainBatches([make_shard(["hello world", "abc", "x" * 30])], 4, 6, 3, BOS)
    inputs, targets = batches.batch(5)
    assert inputs.shape == targets.shape == (4, 6)
    assert inputs.dtype == targets.dtype == np.int64
    assert (inputs[:, 0] == BOS).all()
    restored = np.where(targets == -1, BOS, targets)
    assert np.array_equal(inputs[:, 1:], restored[:, :-1])


def test_epochs_and_seeds_order_documents_differently(make_shard):
    shard = make_shard([f"document {i}" for i in range(50)])
    one = PretrainBatches([shard], 1, shard.n_tokens, 1, BOS)
    other = PretrainBatches([shard], 1, shard.n_tokens, 2, BOS)
    assert not np.array_equal(one.batch(0)[1], one.batch(1)[1])
    assert not np.array_equal(one.batch(0)[1], other.batch(0)[1])


def test_shards_without_tokens_or_of_two_vocabularies_are_refused(make_shard, make_tokenizer):
    with pytest.raises(DataError, match="no tokens"):
        PretrainBatches([make_shard([])], 1, 4, 0, BOS)
    with pytest.raises(DataError, match="2 vocabularies"):
        PretrainBatches([make_shard(["a"]), make_shard(["a"], make_tokenizer(300))], 1, 4, 0, BOS)


@quick
@given(texts=st.lists(st.text("abc", max_size=20), min_size=1, max_size=9), rows=st.integers(1, 4))
def test_validation_counts_every_token_whatever_the_batch_size(texts, rows, make_shard):
    shard = make_shard(texts)
    targets = np.concatenate([t.reshape(-1) for _, t in val_batches(shard, rows, 5, 10**9)])
    counted = targets[targets != -1]
    wanted = shard.tokens.astype(np.int64)
    starts_of_rows = (np.arange(len(wanted)) % 5 == 0) & (wanted == BOS)
    assert counted.tolist() == wanted[~starts_of_rows].tolist()


def test_validation_stops_at_max_tokens_and_repeats_exactly(make_shard):
    shard = make_shard(["abcdefgh" * 20])
    one_by_one = range(val_batch_count(shard, 2, 8, 50))
    runs = [
        list(val_batches(shard, 2, 8, 50)),
        [batch for n in one_by_one for batch in val_batches(shard, 2, 8, 50, slice(n, n + 1))],
    ]
    assert sum(targets.size for _, targets in runs[0]) == 48
    for (a, b), (c, d) in zip(*runs, strict=True):
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)
