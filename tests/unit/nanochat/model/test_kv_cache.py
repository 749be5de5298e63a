"""Generation with the cache against the same tokens without one."""

from __future__ import annotations

import pytest
import torch

from nanochat.model.attention import Context, gated
from nanochat.model.gpt import GPT
from nanochat.model.inference_weights import kinds_on, use_weights
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
    assert cache.texts == text.tolist()


@pytest.mark.parametrize("together", [False, True])
def test_growth_past_the_first_allocation_keeps_what_was_there(model: GPT, together: bool) -> None:
    text = tokens(2, 700)  # also past the first rotary tables
    cache = KVCache(model.config, 2, capacity=10, block=32, together=together)
    with torch.no_grad():
        parts = [model(part, kv_cache=cache) for part in text.split([250, 3, 4, 1, 300, 142], dim=1)]
        close(torch.cat(parts, dim=1), model(text))
    assert cache.texts == text.tolist()


@pytest.mark.parametrize("together", [False, True])
def test_rows_of_different_lengths_get_the_logits_they_get_alone(model: GPT, together: bool) -> None:
    texts = [
        tokens(1, length)[0].tolist() for length in (39, 24, 1, 39)
    ]  # beyond the window of 16 and within
    cache = KVCache(model.config, 4, together=together)
    extra = tokens(4, 3)
    with torch.no_grad():
        steps = [model.read(texts, cache, [0, 1, 2, 3])[:, None]]
        steps += [model(part, kv_cache=cache, last_only=True) for part in extra.split(1, dim=1)]
        read = torch.cat(steps, dim=1)
        for row, text in enumerate(texts):
            close(read[row], model(torch.tensor([[*text, *extra[row]]]))[0, -4:])


@pytest.mark.parametrize("together", [False, True])
def test_some_rows_take_in_any_number_of_tokens_while_others_rest(model: GPT, together: bool) -> None:
    texts = [tokens(1, length)[0].tolist() for length in (60, 45, 50, 9)]
    cache = KVCache(model.config, 5, block=16, together=together)
    feeds = [{1: 7, 3: 1}, {3: 1, 0: 30}, {0: 1}, {1: 1, 2: 20, 3: 3, 0: 1}, {1: 1, 0: 1}, {2: 1, 1: 30}]
    with torch.no_grad():
        for feed in feeds:
            held = cache.lengths
            new = [texts[row][held[row] : held[row] + count] for row, count in feed.items()]
            logits = model.read(new, cache, list(feed))
            for found, row, count in zip(logits, feed, feed.values(), strict=True):
                close(found, model(torch.tensor([texts[row][: held[row] + count]]))[0, -1])
    assert cache.texts == [*(text[: len(held)] for text, held in zip(texts, cache.texts, strict=False)), []]


@pytest.mark.parametrize("together", [False, True])
def test_rows_are_cut_back_copied_and_released(model: GPT, together: bool) -> None:
    first, second, extra = (tokens(1, length)[0].tolist() for length in (70, 33, 25))
    cache = KVCache(model.config, 3, block=16, together=together)
    with torch.no_grad():
        model.read([first, second], cache, [0, 1])
        cache.copy(0, 2, 41)
        cache.cut(0, 29)
        logits = model.read([extra, extra[:1], extra], cache, [2, 1, 0])
        for found, text in zip(
            logits, (first[:41] + extra, second + extra[:1], first[:29] + extra), strict=True
        ):
            close(found, model(torch.tensor([text]))[0, -1])
        held = cache.memory_bytes
        cache.release(1)
        assert together or cache.memory_bytes < held
        close(model.read([second], cache, [1])[0], model(torch.tensor([second]))[0, -1])
        for row in range(3):
            cache.release(row)
    assert (cache.memory_bytes, cache.texts) == (0, [[], [], []])


def test_only_the_row_with_a_long_text_takes_memory_for_it(classic: GPT) -> None:
    cache = KVCache(classic.config, 32)
    with torch.no_grad():
        classic.read([[1] * 16], cache, [7])
        short = cache.memory_bytes
        classic.read([[1] * 1000], cache, [3])
    assert cache.memory_bytes == 5 * short  # blocks of 256 slots


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
    cache = KVCache(july.config, 1)
    for position in range(21):
        reading = cache.reading([0], [[position]])
        [part] = reading.parts(window=5)
        keys, _ = part.stored(0, torch.full((2, 1, 2, 8), float(position)))
        reading.done()
    assert keys[0, :, 1, 0].tolist() == [15, 16, 17, 18, 19, 20]  # itself and five before
    assert part.bias is None


def test_with_int8_weights_a_row_has_the_same_logits_alone_to_the_bit(model: GPT) -> None:
    if "int8" not in kinds_on(torch.device("cpu")):
        pytest.skip("PyTorch has no int8 products for this processor")
    use_weights(model, "int8")
    texts, extra = tokens(5, 20).tolist(), tokens(5, 30).T.tolist()
    together, alone = KVCache(model.config, 5), KVCache(model.config, 1)
    with torch.inference_mode():
        model.read(texts, together, range(5))
        model.read(texts[:1], alone, [0])
        for new in extra:
            of_all = model.read([[token] for token in new], together, range(5))
            assert torch.equal(of_all[0], model.read([new[:1]], alone, [0])[0])


def test_a_gate_of_one_row_is_the_same_among_any_number_of_rows(july: GPT) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.empty(1, 33, july.smear_gate.in_features).normal_(generator=generator)
    reading = Context(july.cos, july.sin, reading=KVCache(july.config, 1).reading([0], [[1]]))
    with torch.inference_mode():
        alone = torch.cat([gated(july.smear_gate, one, reading) for one in x.split(1, dim=1)], dim=1)
        for rows in range(1, 34):
            assert torch.equal(gated(july.smear_gate, x[:, :rows], reading), alone[:, :rows])
        close(alone, july.smear_gate(x))
