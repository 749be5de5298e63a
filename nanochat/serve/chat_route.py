"""`POST /v1/chat/completions`: the next answer in a conversation, whole or as it is written."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from nanochat.serve.answering import Answers
from nanochat.serve.api_errors import bad_request
from nanochat.serve.asking import check_choices, check_fits, check_model, samplings
from nanochat.serve.chat_form import ChatForm
from nanochat.serve.chat_prompt import PARAMETER, TOOL, chat_prompt
from nanochat.serve.chat_request import ChatRequest
from nanochat.serve.service import Service


def chat_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        model = service.model
        check_model(body, model)
        _check_unsupported(body)
        limits = service.settings.limits
        count = body.n or 1
        check_choices(count, service)
        drawn = samplings(body, limits, max_tokens=_max_tokens(body), logprobs=_logprobs(body), count=count)
        prompt = chat_prompt(model.tokenizer, body.messages, limits)
        check_fits(prompt, model, "messages")
        asked = [(prompt, sampling) for sampling in drawn]
        answers = Answers(service, asked, end_at_call=body.client_calculates)
        form = ChatForm(body, model, len(prompt))
        return await form.respond(answers, request, stream=body.stream)

    return router


def _max_tokens(body: ChatRequest) -> int | None:
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise bad_request(
            f"max_tokens is {body.max_tokens} and max_completion_tokens {body.max_completion_tokens};"
            " they mean the same",
            "max_tokens",
        )
    return body.max_completion_tokens if body.max_tokens is None else body.max_tokens


def _logprobs(body: ChatRequest) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    return body.top_logprobs or 0 if body.logprobs else None


def _check_unsupported(body: ChatRequest) -> None:
    for number, tool in enumerate(body.tools or ()):
        parameters = (tool.function.parameters or {}).get("properties", {})
        if tool.function.name != TOOL or not isinstance(parameters, dict) or PARAMETER not in parameters:
            raise bad_request(
                f"tool {number} is {tool.function.name[:80]!r}; the model can use one named {TOOL!r} with a"
                f" parameter {PARAMETER!r}",
                f"tools[{number}]",
            )
    if body.tool_choice not in (None, "auto", "none"):
        raise bad_request(
            "tool_choice can be auto or none: the model decides when it calculates", "tool_choice"
        )
    if body.response_format and body.response_format.get("type") != "text":
        raise bad_request("response_format can be of type text only", "response_format")
    if body.modalities not in (None, ["text"]):
        raise bad_request("modalities can be text only", "modalities")
