from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nanochat.chat import engine as engine_module
from nanochat.chat.engine import Engine, stream_text
from nanochat.chat.pieces import shown
from nanochat.chat.writer import Pace
from nanochat.config import ModelConfig, Sampling
from nanochat.errors import DataError
from nanochat.formats.tokenizer_pickle import load_tokenizer_pickle
from nanochat.model.checkpoint import model_from_state
from nanochat.model.gpt import GPT

PROMPTS = [[256, 5, 9], [256, 70], [256, 1, 2, 3, 4, 5, 6, 7], [256, 8, 8], [256]]


GREEDY = Sampling(temperature=0.0, max_new_tokens=20)


@pytest.fixture(scope="module")
def model(one_thread):
    torch.manual_seed(0)
    config = ModelConfig(sequence_len=64, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    model = GPT(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return model.eval()


class Scripted:
    """A model that wants the given tokens, one after the other, whatever it is fed."""

    def __init__(self, config, script):
        self.config, self.script, self.device = config, list(script), torch.device("cpu")
        self.cache_dtype = torch.float32
        self.fed = []

    def read(self, texts, kv_cache, rows):
        kv_cache.reading(rows, texts).done()
        self.fed += texts[0]
        logits = torch.zeros(len(rows), self.config.vocab_size)
        logits[:, self.script.pop(0)] = 1
        return logits


def _scripted(tokenizer, script, context=64):
    config = ModelConfig(sequence_len=context, vocab_size=265, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)
    return Engine(Scripted(config, script), tokenizer)


def _steps(engine, request):
    """Go on until a request has ended; return all that was written of it."""
    written = []
    while request.finish is None:
        written += [new for new in engine.step() if new.request is request]
    assert not engine.busy or request not in [new.request for new in engine.step()]
    return written


def _naive(model, prompt, count, stop):
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            token = int(model(torch.tensor([ids]))[0, -1].argmax())
            if token in stop:
                break
            ids.append(token)
    return ids[len(prompt) :]


def test_greedy_batch_equals_one_at_a_time_without_a_cache(model, tokenizer):
    stop = {tokenizer.special("bos"), tokenizer.special("assistant_end")}
    engine = Engine(model, tokenizer)
    batch = engine.generate_batch(PROMPTS, max_new_tokens=20)
    assert batch == [_naive(model, prompt, 20, stop) for prompt in PROMPTS]
    assert batch == [list(engine.generate(prompt, max_new_tokens=20)) for prompt in PROMPTS]
    assert len({tuple(row) for row in batch}) > 1


def test_a_prompt_takes_the_place_of_a_row_that_has_ended(model, tokenizer, monkeypatch):
    monkeypatch.setattr(engine_module, "_BATCH", replace(engine_module._BATCH, rows=2))
    stop = {tokenizer.special("bos"), tokenizer.special("assistant_end")}
    # What most rows write in their first tokens ends them, so that they end at different steps.
    engine, prompts = Engine(model, tokenizer), [*PROMPTS, [256, 70], [256, 9, 9, 9]]
    frequent = [row[5] for row in (_naive(model, prompt, 6, ()) for prompt in prompts)]
    engine._stop = stop | set(frequent[::2])
    expected = [_naive(model, prompt, 20, engine._stop) for prompt in prompts]
    assert len(set(map(len, expected))) > 2
    as_they_end = list(engine.generate_each(prompts, range(len(prompts)), max_new_tokens=20))
    assert dict(as_they_end) == dict(enumerate(expected))
    assert [number for number, _ in as_they_end] != sorted(range(len(prompts)))


def test_sampled_row_depends_on_its_seed_and_not_on_its_batch(model, tokenizer):
    engine = Engine(model, tokenizer)
    drawn = engine.generate_batch(PROMPTS, max_new_tokens=12, temperature=1.0, top_k=20, seed=7)
    alone = [
        list(engine.generate(prompt, max_new_tokens=12, temperature=1.0, top_k=20, seed=7 + i))
        for i, prompt in enumerate(PROMPTS)
    ]
    assert drawn == alone


def test_first_tokens_of_equal_prompts_differ(model, tokenizer):
    drawn = Engine(model, tokenizer).generate_batch([[256, 65]] * 8, max_new_tokens=1, temperature=1.0)
    assert len({tuple(row) for row in drawn}) > 1


def test_top_k_of_one_is_greedy(model, tokenizer):
    engine = Engine(model, tokenizer)
    sampled = engine.generate_batch(PROMPTS, max_new_tokens=8, temperature=2.0, top_k=1)
    assert sampled == engine.generate_batch(PROMPTS, max_new_tokens=8)


@pytest.mark.parametrize(("expression", "output"), [("2*3", "6"), ("20/2", "10"), ("x", None)])
def test_result_of_a_calculation_is_put_into_the_row(tokenizer, expression, output):
    special = tokenizer.special
    call = [special("python_start"), *tokenizer.encode(expression), special("python_end")]
    forced = []
    if output is not None:
        forced = [special("output_start"), *tokenizer.encode(output), special("output_end")]
    # While output is due the model's own wishes (here 0) count for nothing.
    script = [*call, *[0] * len(forced), 33, special("assistant_end")]
    engine = _scripted(tokenizer, script)
    tokens = list(engine.generate([256, 1], max_new_tokens=50))
    assert tokens == [*call, *forced, 33]
    assert engine.model.fed == [256, 1, *tokens]


@pytest.mark.parametrize("end", ["bos", "assistant_end"])
def test_terminal_tokens_end_a_row_and_are_not_returned(tokenizer, end):
    engine = _scripted(tokenizer, [40, tokenizer.special(end), 41])
    assert engine.generate_batch([[256]], max_new_tokens=9) == [[40]]
    assert engine.model.script == [41]


def test_no_prompts_and_no_tokens_give_nothing(model, tokenizer):
    assert Engine(model, tokenizer).generate_batch([], max_new_tokens=5) == []
    assert Engine(model, tokenizer).generate_batch([[256]], max_new_tokens=0) == [[]]


def test_streamed_pieces_are_whole_characters(tokenizer):
    text = "añ日😀!"
    pieces = list(stream_text(tokenizer, iter(tokenizer.encode(text))))
    assert pieces == list(text)
    broken = [0xF0, 0x9F, 0x41, 0xFF, 0xC3]
    assert "".join(stream_text(tokenizer, iter(broken))) == bytes(broken).decode(errors="replace")


def test_greedy_continuations_are_those_of_upstream(shared_golden):
    folder = shared_golden / "nanochat-2025-10"
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    state = torch.load(folder / "chatsft_checkpoints/d3/model_000650.pt", map_location="cpu")
    model = model_from_state(ModelConfig(**golden["config"]), state, source="golden")
    engine = Engine(model.eval(), load_tokenizer_pickle(folder / "tokenizer/tokenizer.pkl"))
    prompts = golden["prompt_ids"]
    new = engine.generate_batch(prompts, max_new_tokens=24)
    assert [p + n for p, n in zip(prompts, new, strict=True)] == golden["greedy_24"]


def test_a_use_of_the_calculator_is_shown_in_brackets(tokenizer):
    special = tokenizer.special
    tokens = [
        special("python_start"),
        *tokenizer.encode("3+4"),
        special("python_end"),
        special("output_start"),
    ]
    tokens += [*tokenizer.encode("7"), special("output_end"), *tokenizer.encode("So 7.")]
    assert "".join(stream_text(tokenizer, iter(tokens))) == "[3+4 = 7] So 7."


def test_a_prompt_that_cannot_be_answered_is_refused_with_the_limit(model, tokenizer):
    engine = Engine(model, tokenizer)
    for prompt, reason in (
        ([], "is empty"),
        ([256] * 64, "has 64 tokens; with its answer it must fit into 64"),
        ([256, 265], "token 265; the model knows those from 0 to 264"),
        ([256, -1], "token -1"),
    ):
        with pytest.raises(DataError, match=reason):
            engine.submit(prompt, GREEDY)
    assert not engine.busy and engine.step() == []
    for prompt, reason in (([], "is empty"), ([999], "token 999")):
        with pytest.raises(DataError, match=reason):
            engine.generate_batch([[256], prompt], max_new_tokens=2)


@pytest.mark.parametrize(
    ("prompt_tokens", "most", "written", "finish"),
    [
        (62, 20, 2, "context"),
        (63, 20, 1, "context"),
        (63, 1, 1, "length"),
        (3, 1, 1, "length"),
        (44, 20, 20, "length"),
    ],
)
def test_an_answer_ends_at_its_limit_or_where_the_context_is_full(
    model, tokenizer, prompt_tokens, most, written, finish
):
    prompt = [256, *range(1, prompt_tokens)]
    engine = Engine(model, tokenizer)
    request = engine.submit(prompt, replace(GREEDY, max_new_tokens=most))
    _steps(engine, request)
    assert (request.tokens, request.finish) == (_naive(model, prompt, written, engine._stop), finish)


def test_a_request_is_cancelled_wherever_it_is_and_its_row_is_free_at_once(model, tokenizer):
    engine = Engine(model, tokenizer, Pace(rows=1, chunk=4, chunk_alone=4))
    long, waiting, last = (engine.submit([256, *range(n, n + 20)], GREEDY) for n in (1, 50, 90))
    assert engine.step() == []  # some of the first prompt
    engine.cancel(waiting)
    assert (waiting.finish, waiting.tokens) == ("cancelled", [])
    engine.cancel(long)  # while it is read
    assert (long.finish, long.tokens) == ("cancelled", [])
    for _ in range(6):
        written = engine.step()
    assert [new.request for new in written] == [last] and len(last.tokens) == 1
    engine.step()
    engine.cancel(last)
    kept = list(last.tokens)
    assert (last.finish, len(kept), engine.busy, engine.step()) == ("cancelled", 2, False, [])
    after = engine.submit(PROMPTS[0], GREEDY)
    _steps(engine, after)
    assert after.tokens == _naive(model, PROMPTS[0], 20, engine._stop)
    engine.cancel(after)
    assert after.finish == "length"  # had ended before
    assert last.tokens == kept


def test_a_long_prompt_does_not_hold_up_who_is_being_answered(model, tokenizer):
    engine = Engine(model, tokenizer, Pace(rows=2, chunk=5, chunk_alone=50))
    first = engine.submit(PROMPTS[0], GREEDY)
    engine.step()
    second = engine.submit([256, *range(1, 31)], GREEDY)
    for step in range(7):
        assert len(second.tokens) == 0
        [*_] = engine.step()
        assert len(first.tokens) == 2 + step
    assert len(second.tokens) == 1  # 31 tokens in chunks of 5


def test_a_second_turn_reads_only_what_is_new(model, tokenizer):
    engine = Engine(model, tokenizer)
    question = [256, *range(1, 20)]
    first = engine.submit(question, replace(GREEDY, max_new_tokens=5))
    _steps(engine, first)
    turn = [*question, *first.tokens, 7, 8, 9]
    second = engine.submit(turn, GREEDY)
    _steps(engine, second)
    # Its last token was never read: the answer had ended.
    assert (first.reused_tokens, second.reused_tokens) == (0, len(question) + 4)
    again = engine.submit(question, GREEDY)
    _steps(engine, again)
    assert again.reused_tokens == len(question) - 1  # what comes after the last one has to be found out
    assert second.tokens == _naive(model, turn, 20, engine._stop)
    assert again.tokens == _naive(model, question, 20, engine._stop)


def test_a_beginning_that_all_share_is_read_once(model, tokenizer):
    engine = Engine(model, tokenizer)
    system = [256, *range(30, 50)]
    prompts = [[*system, n, n] for n in range(4)]
    requests = [engine.submit(prompt, GREEDY) for prompt in prompts]
    while engine.busy:
        engine.step()
    assert [request.reused_tokens for request in requests] == [0, *[len(system)] * 3]
    assert [request.tokens for request in requests] == [
        _naive(model, prompt, 20, engine._stop) for prompt in prompts
    ]


def test_an_idle_engine_keeps_a_bounded_amount_of_memory(model, tokenizer):
    engine = Engine(model, tokenizer)
    requests = [engine.submit([256, *range(n, n + 60)], GREEDY) for n in range(32)]
    while engine.busy:
        engine.step()
    cache = engine._writer._resident.cache
    assert all(request.finish == "context" for request in requests)
    assert 0 < sum(map(cache.slots, range(32))) <= 4 * 64  # four contexts


def test_an_answer_ends_before_a_stop_string_that_spans_tokens(tokenizer):
    script = [*b"One. Two END three"]
    engine = _scripted(tokenizer, script)
    request = engine.submit([256], Sampling(temperature=0.0, stop=("o END", "three")))
    pieces = [piece for new in _steps(engine, request) for piece in new.pieces]
    assert (shown(pieces), request.finish) == ("One. Tw", "stop")
    assert bytes(request.tokens) == b"One. Two END"  # with the tokens of the stop string
    assert not engine.busy


def test_what_may_have_begun_a_stop_string_is_shown_where_the_answer_ends(tokenizer):
    engine = _scripted(tokenizer, [*b"Two EN"])
    request = engine.submit([256], Sampling(temperature=0.0, stop=("END",), max_new_tokens=6))
    pieces = [piece for new in _steps(engine, request) for piece in new.pieces]
    assert (shown(pieces), request.finish) == ("Two EN", "length")


def _calls(tokenizer, text):
    """Encode a text in which `<` and `>` stand around a calculation, `(` and `)` around its result."""
    names = dict(zip("<>()", ("python_start", "python_end", "output_start", "output_end"), strict=True))
    return [tokenizer.special(names[c]) if c in names else ord(c) for c in text]


@pytest.mark.parametrize(
    ("wished", "written"),
    [
        ("<1+1", "<1+1"),  # a call without an end
        ("<9<1+1>.", "<9<1+1>(2)."),  # one that begins again
        ("1+1>.", "1+1>."),  # an end without a beginning
        ("<1+>.", "<1+>."),  # an expression without a value
        ("<>.", "<>."),
        ("<1+1><2*3>", "<1+1>(2)<2*3>(6)"),
        ("<1+1>", "<1+1>(2)"),
    ],
)
def test_odd_calculations_are_text_like_any_other(tokenizer, wished, written):
    script, end = _calls(tokenizer, wished), tokenizer.special("assistant_end")
    expected = _calls(tokenizer, written)
    for place, token in enumerate(expected):  # while a result is due, the model's wishes count for nothing
        if script[place : place + 1] != [token]:
            script.insert(place, 0)
    engine = _scripted(tokenizer, [*script, end])
    request = engine.submit([256], Sampling(temperature=0.0))
    _steps(engine, request)
    assert (request.tokens, request.finish) == (expected, "stop")


@pytest.mark.parametrize(("most", "context", "finish"), [(12, 64, "length"), (64, 13, "context")])
def test_a_result_is_cut_off_where_the_answer_ends(tokenizer, most, context, finish):
    engine = _scripted(tokenizer, [*_calls(tokenizer, "<1000*1000>"), 0], context)
    request = engine.submit([256], Sampling(temperature=0.0, max_new_tokens=most))
    written = _steps(engine, request)
    assert (request.tokens, request.finish) == (_calls(tokenizer, "<1000*1000>("), finish)
    assert shown(piece for new in written for piece in new.pieces) == "[1000*1000"


def test_what_the_calculator_returned_has_no_logprobs(tokenizer):
    engine = _scripted(tokenizer, [*_calls(tokenizer, "<1+1>"), 0, 0, 0, ord("."), tokenizer.special("bos")])
    request = engine.submit([256], Sampling(temperature=0.0, logprobs=1))
    known = [entry for new in _steps(engine, request) for entry in new.logprobs]
    assert [entry.token for entry in known] == _calls(tokenizer, "<1+1>.")
    assert all(entry.top[0][0] == entry.token for entry in known)
