"""Generation with the cache against the same tokens without one."""

from __future__ import annotations

import pytest
import torch

from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from tests.support.greedy import greedy


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(length))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (7, 1, 1), (3, 5, 1, 4), (1, 12)])
def test_any_way_of_feeding_a_text_gives_the_same_logits(model: GPT, chunks: tuple[int, ...]) -> None:
    text = tokens(3, sum(chunks))
    cache = KVCache(model.config, 3)
    with torch.no_grad():
        parts = [model(part, kv_cache=cache) for part in text.split(chunks, dim=1)]
        close(torch.cat(parts, dim=1), model(text))
    assert cache.position == sum(chunks)


def test_growth_past_the_first_allocation_keeps_what_was_there(model: GPT) -> None:
    text = tokens(2, 700)  # also past the first rotary tables
    cache = KVCache(model.config, 2, capacity=10)
    first = cache.capacity
    with torch.no_grad():
        parts = [model(part, kv_cache=cache) for part in text.split([250, 3, 4, 1, 300, 142], dim=1)]
        close(torch.cat(parts, dim=1), model(text))
    assert first < 700 <= cache.capacity


def test_rows_of_different_lengths_get_the_logits_they_get_alone(model: GPT) -> None:
    texts = [
        tokens(1, length)[0].tolist() for length in (39, 24, 1, 39)
    ]  # beyond the window of 16 and within
    cache = KVCache(model.config, 4)
    extra = tokens(4, 3)
    with torch.no_grad():
        steps = [model.read(texts, cache, [0, 1, 2, 3])[:, None]]
        steps += [model(part, kv_cache=cache, last_only=True) for part in extra.split(1, dim=1)]
        together = torch.cat(steps, dim=1)
        for row, text in enumerate(texts):
            close(together[row], model(torch.tensor([[*text, *extra[row]]]))[0, -4:])


def test_a_text_takes_the_place_of_another_row(model: GPT) -> None:
    first, second, third = (tokens(1, length)[0].tolist() for length in (300, 7, 22))
    cache, extra = KVCache(model.config, 2), tokens(2, 5)
    with torch.no_grad():
        model.read([first, second], cache, [0, 1])
        model(extra[:, :2], kv_cache=cache)
        close(model.read([third, third], cache, [0, 0])[1], model(torch.tensor([third]))[0, -1])
        more = model(extra[:, 2:], kv_cache=cache)
        close(more[0], model(torch.tensor([[*third, *extra[0, 2:]]]))[0, -3:])
        close(more[1], model(torch.tensor([[*second, *extra[1]]]))[0, -3:])


def test_a_prompt_fans_out_and_finished_rows_are_dropped(model: GPT) -> None:
    prompt, extra = tokens(1, 6), tokens(3, 2)
    cache = KVCache(model.config, 1)
    with torch.no_grad():
        model(prompt, kv_cache=cache)
        fanned = cache.take([0, 0, 0])
        model(extra[:, :1], kv_cache=fanned)
        kept = fanned.take([2, 0])
        logits = model(extra[[2, 0], 1:], kv_cache=kept)
        once_more = model(extra[1:2, :1], kv_cache=cache)
        full = model(torch.cat([prompt.expand(3, -1), extra], dim=1))
    close(logits[:, 0], full[[2, 0], -1])
    close(once_more[0, 0], full[1, -2])  # the cache they were taken from is as it was
    assert (cache.position, cache.rows, kept.rows) == (7, 1, 2)


@pytest.mark.parametrize("length", [1, 5])
def test_greedy_equals_taking_the_best_of_all_logits_each_time(model: GPT, length: int) -> None:
    text = prompt = tokens(1, length)
    with torch.no_grad():
        for _ in range(20):
            text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    expected = text[0, length:].tolist()
    assert greedy(model, prompt[0].tolist(), 20) == expected
    stopped = expected[: expected.index(expected[3])]
    assert greedy(model, prompt[0].tolist(), 20, {expected[3]}) == stopped


def test_a_window_bounds_the_slots_that_are_read(july: GPT) -> None:
    cache = KVCache(july.config, 2)
    k = torch.zeros(2, 1, 2, 8)
    for position in range(21):
        k[:, 0, :, 0] = position
        seen, _ = cache.append(0, k, k, window=5)
        cache.advance(1)
    assert seen[0, :, 1, 0].tolist() == [15, 16, 17, 18, 19, 20]  # itself and five before
    assert cache.mask(1, window=5) is None
