"""Upstream's recorded tokenizer, conversations and prompts, reproduced exactly."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from nanochat.formats.tokenizer_pickle import load_tokenizer_pickle, write_token_bytes, write_tokenizer_pickle
from nanochat.tokenizer.chat_format import render, render_for_completion
from nanochat.tokenizer.split import PATTERN
from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(shared_golden):
    return shared_golden / "nanochat-2025-10"


@pytest.fixture(scope="module")
def golden(folder):
    return json.loads((folder / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer_pickle(folder / "tokenizer/tokenizer.pkl")


def test_pattern_and_special_ids_are_those_of_upstream(golden, tokenizer):
    assert tokenizer.pattern == golden["pattern"] == PATTERN
    assert tokenizer.special_tokens == golden["special"]


def test_from_ranks_places_special_tokens_where_upstream_does(golden, tokenizer):
    assert Tokenizer.from_ranks(tokenizer.ranks).special_tokens == golden["special"]


def test_rendered_conversations_and_masks_are_equal(golden, tokenizer):
    for conversation, expected in zip(golden["conversations"], golden["rendered"], strict=True):
        ids, mask = render(tokenizer, conversation["messages"])
        assert ids == expected["ids"]
        assert mask == expected["mask"]


def test_truncated_conversations_are_equal(golden, tokenizer):
    for conversation, expected in zip(golden["conversations"], golden["rendered_max10"], strict=True):
        ids, mask = render(tokenizer, conversation["messages"], max_tokens=10)
        assert (ids, mask) == (expected["ids"], expected["mask"])


def test_completion_prompts_are_equal(golden, tokenizer):
    for conversation, expected in zip(golden["conversations"], golden["completion_prompts"], strict=True):
        assert render_for_completion(tokenizer, conversation["messages"]) == expected


def test_prompts_survive_decoding_and_encoding(golden, tokenizer):
    for ids in golden["prompt_ids"]:
        assert tokenizer.encode(tokenizer.decode(ids[1:])) == ids[1:]


def test_token_bytes_in_decoded_mode_equal_upstreams_file(folder, tokenizer, tmp_path):
    write_token_bytes(tokenizer, tmp_path / "token_bytes.pt")
    ours = torch.load(tmp_path / "token_bytes.pt")
    theirs = torch.load(folder / "tokenizer/token_bytes.pt")
    assert ours.dtype == theirs.dtype == torch.int32
    assert torch.equal(ours, theirs)


def test_written_pickle_is_a_working_encoding_with_the_same_ids(tokenizer, tmp_path):
    write_tokenizer_pickle(tokenizer, tmp_path / "a.pkl")
    write_tokenizer_pickle(tokenizer, tmp_path / "b.pkl")
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()
    encoding = pickle.loads((tmp_path / "a.pkl").read_bytes())  # as upstream loads it
    text = "Hello wörld, 12345  \n\n x <|bos|> 😀"
    assert encoding.encode_ordinary(text) == tokenizer.encode(text)
    assert encoding.encode_single_token("<|assistant_end|>") == tokenizer.special("assistant_end")
