from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from nanochat.evals.weight_cost import predictions, rows_of

DOCUMENTS = [[258, 1, 2, 3, 4, 5], [258], [258, 256, 7, 257]]


def test_every_token_but_a_documents_first_is_predicted_once_from_those_before_it_in_its_row():
    assert rows_of(DOCUMENTS, 2, 100) == [[258, 1, 2], [2, 3, 4], [4, 5], [258, 256, 7], [7, 257]]
    assert rows_of(DOCUMENTS, 64, 100) == [DOCUMENTS[0], DOCUMENTS[2]]


@pytest.mark.parametrize("limit", [1, 4, 5, 6, 8])
def test_no_more_tokens_are_predicted_than_asked_for(limit):
    for length in (2, 3, 64):
        assert sum(len(row) - 1 for row in rows_of(DOCUMENTS, length, limit)) == limit


def test_loss_and_likeliest_tokens_are_those_of_the_whole_logits(model, tokenizer, monkeypatch):
    monkeypatch.setattr("nanochat.evals.weight_cost._AT_ONCE", 2)
    bos = tokenizer.special("bos")
    rows = [[bos, 65, 256, 66, 7], [bos, 257, bos, 9]]
    found = predictions(model, rows, tokenizer.token_bytes())
    with torch.inference_mode():
        logits = [model(torch.tensor([row[:-1]]))[0] for row in rows]
    losses = [
        -part.log_softmax(-1)[range(len(row) - 1), row[1:]] for part, row in zip(logits, rows, strict=True)
    ]
    nats = losses[0].sum() + losses[1][0] + losses[1][2]  # not that of bos, which has no bytes
    assert found.size == 1 + 2 + 1 + 1 + 4 + 1
    assert found.bits_per_byte == pytest.approx(float(nats) / (math.log(2) * 10), rel=1e-6)
    assert found.likeliest.tolist() == torch.cat(logits).argmax(-1).tolist()


def test_a_token_that_is_likeliest_no_more_is_a_flip(model, tokenizer):
    rows = [[tokenizer.special("bos"), *range(60, 90)]]
    reference = predictions(model, rows, tokenizer.token_bytes())
    never = int(reference.likeliest[0])
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.lm_head.weight[never] = 0  # its logit is 0, and another's is above
    found = predictions(changed, rows, tokenizer.token_bytes())
    assert reference.flipped(reference) == 0
    assert found.flipped(reference) == np.count_nonzero(reference.likeliest == never) > 0
