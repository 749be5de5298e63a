"""Requests that come, wait, are read in chunks, written and cancelled in any order, against each one alone.

Greedy answers are compared with the whole text computed anew, without a cache. Where two logits are closer
than rounding in float32 can tell (`_TIE`), either token is right. Sampled answers are compared with the one
that the same request gets alone from another engine. Products of float32 matrices are rounded otherwise for
one row than for several, and attention otherwise in a chunk than for one token, by some 1e-6 of a logit; a
draw changes if it is that close to going the other way, once in about a million tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from nanochat.chat import calls as calls_module
from nanochat.chat import engine as engine_module
from nanochat.chat.calls import Calls
from nanochat.chat.engine import Engine, Request
from nanochat.chat.writer import Pace
from nanochat.config import ModelConfig, Sampling
from nanochat.model.gpt import GPT

_TIE = 1e-4
_CONTEXT = 64
_SHAPE = {"sequence_len": _CONTEXT, "vocab_size": 265, "n_layer": 3, "n_head": 4, "n_kv_head": 2}


@pytest.fixture(scope="module", params=["classic", "2026"])
def model(request, one_thread):
    model = GPT(ModelConfig(architecture=request.param, n_embd=32, **_SHAPE))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    if request.param == "2026":
        model.transformer.h[0].attn.window = 9  # the least that a configuration can ask for is 128
    return model.eval()


@dataclass
class Schedule:
    """What clients do to an engine, drawn at random."""

    engine: Engine
    draw: random.Random
    open: list[Request] = field(default_factory=list)
    ended: list[Request] = field(default_factory=list)

    def run(self, requests: int) -> None:
        """Submit requests among steps and cancellations, and go on until all have ended."""
        asked = 0
        while asked < requests or self.engine.busy:
            wish = self.draw.random()
            if asked < requests and wish < 0.3:
                self.open.append(self.engine.submit(self.prompt(), self.sampling(asked)))
                asked += 1
            elif self.open and wish < 0.35:
                self.engine.cancel(self.draw.choice(self.open))
            else:
                self.step()
            self.ended += [request for request in self.open if request.finish is not None]
            self.open = [request for request in self.open if request.finish is None]

    def step(self) -> None:
        before = {request: len(request.tokens) for request in self.open}
        for written in self.engine.step():
            assert written.request in before, "something new of a request that had ended"
        for request, count in before.items():
            assert len(request.tokens) <= count + 1

    def prompt(self) -> list[int]:
        """Draw a text: a new one, or one that begins like a text there was, or that goes on with it."""
        new = [self.draw.randrange(256) for _ in range(self.draw.choice([1, 2, 3, 9, 20, 58]))]
        earlier = self.open + self.ended
        if not earlier or self.draw.random() < 0.4:
            return [256, *new]
        begun = self.draw.choice(earlier)
        text = [*begun.prompt, *begun.tokens]
        kept = self.draw.choice([len(begun.prompt), len(text), self.draw.randrange(len(text) + 1)])
        more = new if self.draw.random() < 0.8 else []
        return [*text[:kept], *more][: _CONTEXT - 1] or [256]

    def sampling(self, number: int) -> Sampling:
        temperature = self.draw.choice([0.0, 0.0, 0.8, 1.3])
        return Sampling(
            temperature=temperature,
            top_k=self.draw.choice([None, 5, 40]),
            top_p=self.draw.choice([1.0, 0.9]),
            min_p=self.draw.choice([0.0, 0.05]),
            repetition_penalty=self.draw.choice([1.0, 1.2]) if temperature else 1.0,
            max_new_tokens=self.draw.choice([1, 4, 12, 60]),
            seed=number,
        )


def _engine(model, tokenizer, draw: random.Random, monkeypatch) -> Engine:
    pace = Pace(
        rows=draw.choice([1, 2, 3, 6]), chunk=draw.choice([1, 3, 10]), chunk_alone=draw.choice([2, 30])
    )
    block, together = draw.choice([1, 7, 16]), draw.choice([True, False])
    monkeypatch.setattr(
        engine_module, "KVCache", partial(engine_module.KVCache, block=block, together=together)
    )
    monkeypatch.setattr(engine_module, "ResidentRows", partial(engine_module.ResidentRows, least=2))
    engine = Engine(model, tokenizer, pace)
    engine._stop |= set(range(0, 250, 10))  # so that answers end by themselves too
    return engine


def _is_greedy(engine: Engine, request: Request) -> None:
    """Compare with the whole text computed anew."""
    text = [*request.prompt, *request.tokens]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([text]))[0, len(request.prompt) - 1 :]
    calls = Calls(engine.tokenizer)
    for token, of_token in zip(request.tokens, logits, strict=False):
        if (due := calls.due()) is not None:
            assert token == due
            continue
        calls.wrote(token)
        assert token not in engine._stop
        assert float(of_token.max() - of_token[token]) < _TIE
    if request.finish == "stop":
        assert float(logits[-1].max() - logits[-1][sorted(engine._stop)].max()) < _TIE
    elif request.finish == "context":
        assert len(text) == _CONTEXT


def _is_what_it_gets_alone(engine: Engine, request: Request) -> None:
    alone = Engine(engine.model, engine.tokenizer)
    alone._stop = engine._stop
    again = alone.submit(request.prompt, request.sampling)
    while alone.busy:
        alone.step()
    assert (again.tokens, again.finish) == (request.tokens, request.finish)
    assert again.reused_tokens == 0


def test_every_answer_is_the_one_that_its_request_gets_alone(model, tokenizer, monkeypatch):
    # An expression of noise has no value; every second one is given one here.
    monkeypatch.setattr(calls_module, "calculate", lambda text: "12" if len(text) % 2 else None)
    finishes, reused = set(), 0
    for seed in range(10):
        draw = random.Random(seed)
        with monkeypatch.context() as patch:
            schedule = Schedule(_engine(model, tokenizer, draw, patch), draw)
            schedule.run(requests=30)
        for request in schedule.ended:
            assert len(request.tokens) <= request.sampling.max_new_tokens
            assert (request.finish == "length") == (len(request.tokens) == request.sampling.max_new_tokens)
            if request.sampling.temperature == 0:
                _is_greedy(schedule.engine, request)
            elif request.finish != "cancelled":
                _is_what_it_gets_alone(schedule.engine, request)
        finishes |= {request.finish for request in schedule.ended}
        reused += sum(request.reused_tokens > 0 for request in schedule.ended)
    assert finishes == {"stop", "length", "context", "cancelled"}
    assert reused > 20
