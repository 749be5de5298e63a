"""`POST /chat/completions`: upstream's own API, for programs written for its server.

A stream of `{"token": …, "gpu": 0}`, then `{"done": true}`. What the calculator did stands in the text.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from nanochat.serve.answering import Answers
from nanochat.serve.asking import check_fits, samplings
from nanochat.serve.calculator_uses import InlineReader
from nanochat.serve.chat_prompt import chat_prompt
from nanochat.serve.chat_request import ChatMessage, Drawing, RequestPart
from nanochat.serve.event_stream import EventStream
from nanochat.serve.service import Service


class UpstreamMessage(RequestPart):
    """One message, as upstream has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class UpstreamRequest(RequestPart):
    """A request, as upstream has it."""

    messages: list[UpstreamMessage]
    temperature: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | None = None
    top_k: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None


def upstream_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/chat/completions")
    async def chat_completions(body: UpstreamRequest) -> Response:
        model, limits = service.model, service.settings.limits
        drawing = Drawing(temperature=body.temperature, top_k=body.top_k)
        sampling = samplings(drawing, limits, max_tokens=body.max_tokens, logprobs=None, count=1)[0]
        messages = [ChatMessage(role=one.role, content=one.content) for one in body.messages]
        prompt = chat_prompt(model.tokenizer, messages, limits)
        check_fits(prompt, model, "messages")
        answers = Answers(service, [(prompt, sampling)])
        return EventStream(_events(answers), answers)

    return router


async def _events(answers: Answers) -> AsyncIterator[str]:
    reader = InlineReader()
    async for some in answers.news():
        for _, news in some:
            if text := reader.read(news.pieces, last=news.last):
                yield json.dumps({"token": text, "gpu": news.engine})
    yield json.dumps({"done": True})
