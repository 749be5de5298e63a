"""Drawing tokens against a plain reference, and what has to hold whatever the logits are."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nanochat.chat.draw import Draws, distribution, draw, logprobs
from nanochat.config import Sampling

# Steps of an eighth: shares that differ do so by more than float32 loses.
_ROWS = st.lists(st.integers(-120, 120).map(lambda n: n / 8), min_size=2, max_size=12)
_SETTINGS = {
    "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    "top_k": st.none() | st.integers(1, 14),
    "top_p": st.just(1.0) | st.floats(0.02, 0.99),
    "min_p": st.just(0.0) | st.floats(0.01, 1.0),
}


def _softmax(values):
    shares = [math.exp(value - max(values)) for value in values]
    return [share / math.fsum(shares) for share in shares]


def _reference(logits, text, sampling):
    """Return the share of each token, and how near the closest decision is to going the other way."""
    penalty, nearest = sampling.repetition_penalty, 1.0
    logits = [
        value if token not in text else value / penalty if value > 0 else value * penalty
        for token, value in enumerate(logits)
    ]
    kept = set(range(len(logits)))
    if sampling.top_k is not None and sampling.top_k < len(logits):
        kept = {token for token in kept if logits[token] >= sorted(logits)[-sampling.top_k]}
    shares = _softmax([v / sampling.temperature if i in kept else -math.inf for i, v in enumerate(logits)])
    most, together = max(shares), 0.0
    if sampling.top_p < 1:
        fewest = set()
        for token in sorted(kept, key=lambda token: -shares[token]):
            nearest = min(nearest, abs(together - sampling.top_p))
            if together < sampling.top_p:
                fewest.add(token)
            together += shares[token]
        kept = fewest
    if sampling.min_p < 1:
        nearest = min(nearest, *(abs(share / most - sampling.min_p) for share in shares))
    kept = {token for token in kept if shares[token] >= sampling.min_p * most}
    return [share if token in kept else 0.0 for token, share in enumerate(shares)], nearest


@given(_ROWS, st.sets(st.integers(0, 11)), st.fixed_dictionaries(_SETTINGS), st.sampled_from([1, 1.3, 0.8]))
def test_shares_are_those_of_the_definition(logits, text, chosen, penalty):
    sampling = Sampling(repetition_penalty=penalty, **chosen)
    text = {token for token in text if token < len(logits)}
    expected, nearest = _reference(logits, text, sampling)
    assume(nearest > 1e-5)
    penalised = Draws(sampling, sorted(text)).penalised(torch.tensor(logits))
    [found] = distribution(penalised[None], sampling).tolist()
    # Of tokens that are equally likely, any may be the one more that is needed.
    assert sorted(found) == pytest.approx(sorted(expected), abs=1e-6)
    if len(set(logits)) == len(logits) and penalty == 1:
        assert found == pytest.approx(expected, abs=1e-6)


@settings(max_examples=30)
@given(_ROWS, st.integers(0, 1 << 62), st.lists(st.fixed_dictionaries(_SETTINGS), min_size=1, max_size=5))
def test_a_row_draws_what_it_draws_alone_whatever_the_others_ask_for(logits, seed, others):
    rows = [Sampling(seed=seed + n, **chosen) for n, chosen in enumerate([*others, others[0], others[0]])]
    together = [Draws(sampling, []) for sampling in rows]
    alone = [Draws(sampling, []) for sampling in rows]
    for step in range(3):
        of_rows = torch.stack([torch.tensor(logits).roll(step + n) for n in range(len(rows))])
        found = draw(of_rows, together)
        assert found == [draw(of_rows[n : n + 1], [row])[0] for n, row in enumerate(alone)]


@given(_ROWS, st.fixed_dictionaries(_SETTINGS))
def test_one_token_to_choose_from_is_the_likeliest(logits, chosen):
    likeliest = logits.index(max(logits))
    for alike in ({"temperature": 0.0}, {"top_k": 1}):
        assert draw(torch.tensor([logits]), [Draws(Sampling(**{**chosen, **alike}), [])]) == [likeliest]
    if logits.count(max(logits)) == 1:
        for alike in ({"top_p": 1e-6}, {"min_p": 1.0}):
            [shares] = distribution(torch.tensor([logits]), Sampling(**{**chosen, **alike})).tolist()
            assert [token for token, share in enumerate(shares) if share] == [likeliest]


@given(_ROWS, st.floats(0.05, 0.95))
def test_fewest_tokens_have_the_share_and_one_fewer_has_not(logits, share):
    every = torch.tensor([logits]).softmax(dim=-1)
    kept = distribution(torch.tensor([logits]), Sampling(temperature=1.0, top_k=None, top_p=share))
    assert float(kept.sum()) >= share - 1e-5
    assert float(kept.sum() - kept[kept > 0].min()) < share + 1e-5
    assert float((every * (kept == 0)).max()) <= float(kept[kept > 0].min())


def test_a_flat_vocabulary_has_its_fewest_beyond_those_sorted_at_first():
    logits = torch.linspace(0, 0.1, 5_000)[None]
    kept = distribution(logits, Sampling(temperature=1.0, top_k=None, top_p=0.9)) > 0
    assert 4_300 < int(kept.sum()) < 4_500
    assert bool(kept[0, -int(kept.sum()) :].all())


def test_draws_come_as_often_as_their_shares():
    sampling = Sampling(temperature=1.0, top_k=None, top_p=0.9, seed=5)
    logits = torch.tensor(
        [[0.4, 0.3, 0.2, 0.06, 0.04]]
    ).log()  # without the last, which is not needed for 0.9
    row = Draws(sampling, [])
    counts = Counter(draw(logits, [row])[0] for _ in range(4_000))
    for token, share in enumerate([0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9]):
        assert counts[token] / 4_000 == pytest.approx(share, abs=0.025)  # three standard deviations
    assert set(counts) <= {0, 1, 2, 3}


def test_the_draws_of_a_seed_are_those_of_multinomial_among_the_top_k():
    generator, logits = torch.Generator().manual_seed(9), torch.linspace(-3, 3, 40).sin()[None] * 5
    row = Draws(Sampling(temperature=0.8, top_k=7, seed=9), [])
    for _ in range(20):
        shares = (logits / 0.8).masked_fill(logits < logits.topk(7).values[:, -1:], -torch.inf).softmax(-1)
        assert draw(logits, [row]) == [int(torch.multinomial(shares[0], 1, generator=generator))]


def test_what_is_written_counts_as_text_too():
    sampling = Sampling(temperature=0.0, repetition_penalty=2.0)
    row = Draws(sampling, [3])
    logits = torch.tensor([[-1.0, 4.0, 3.0, 5.0]])
    assert draw(logits, [row]) == [1]  # 3 is in the prompt: 2.5
    row.wrote(1)
    assert draw(logits, [row]) == [2]
    row.wrote(2)
    assert draw(logits, [row]) == [3]
    assert draw(-logits, [row]) == [0]  # smaller logits stay smaller where they are negative


@pytest.mark.parametrize("extreme", [{"temperature": 1e-300}, {"temperature": 1e300}, {"top_p": 1e-300}])
@pytest.mark.parametrize("penalty", [1e-300, 1e300, 1])
def test_extreme_settings_still_draw(extreme, penalty):
    row = Draws(Sampling(repetition_penalty=penalty, **extreme), [0, 1, 2])
    tokens = {draw(torch.tensor([[15.0, -15.0, 0.0, 14.0]]), [row])[0] for _ in range(20)}
    if "temperature" in extreme and extreme["temperature"] < 1:
        assert tokens == {3} if penalty > 1 else {0}
    assert tokens <= {0, 1, 2, 3}


def test_logprobs_are_the_models_own_and_only_for_those_who_ask():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.5, 4.0], [1.0, 1.5, 0.0]])
    asked = (None, 2, 0)
    rows = [Draws(Sampling(temperature=0.3, top_k=1, repetition_penalty=3.0, logprobs=n), [1]) for n in asked]
    nothing, two, alone = logprobs(logits, [1, 0, 2], rows)
    assert nothing is None and two is not None and alone is not None
    shares = logits.log_softmax(-1).tolist()
    assert (two.token, two.logprob) == (0, pytest.approx(shares[1][0]))
    assert [token for token, _ in two.top] == [2, 1]
    assert [value for _, value in two.top] == pytest.approx([shares[1][2], shares[1][1]])
    assert (alone.token, alone.logprob, alone.top) == (2, pytest.approx(shares[2][2]), ())
