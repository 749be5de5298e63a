"""`POST /v1/completions`: goes on with texts or tokens, without a chat format around them."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from nanochat.errors import DataError
from nanochat.serve.answering import Answers
from nanochat.serve.api_errors import bad_request, refused
from nanochat.serve.asking import check_choices, check_fits, check_model, samplings
from nanochat.serve.completion_form import CompletionForm
from nanochat.serve.completion_request import CompletionRequest
from nanochat.serve.service import ServedModel, Service

_MAX_TOKENS: Final = 16  # the API's, where a request names none


def completion_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        model = service.model
        check_model(body, model)
        _check_unsupported(body)
        prompts = _prompts(body, model, service)
        each = body.n or 1
        drawn = samplings(
            body,
            service.settings.limits,
            max_tokens=body.max_tokens or _MAX_TOKENS,
            logprobs=body.logprobs,
            count=each * len(prompts),
        )
        asked = [(prompts[number // each], sampling) for number, sampling in enumerate(drawn)]
        answers = Answers(service, asked)
        form = CompletionForm(body, model, sum(map(len, prompts)), len(asked))
        return await form.respond(answers, request, stream=body.stream)

    return router


def _check_unsupported(body: CompletionRequest) -> None:
    if body.echo:
        raise bad_request("echo is not supported", "echo")
    if body.suffix:
        raise bad_request("suffix is not supported", "suffix")
    if body.best_of not in (None, body.n or 1):
        raise bad_request("best_of is not supported; n answers are written, and all are returned", "best_of")


def _prompts(body: CompletionRequest, model: ServedModel, service: Service) -> list[list[int]]:
    """Return the tokens of each prompt; texts begin with `bos`, as in training."""
    texts, given = _sorted(body.prompt)
    check_choices((len(texts) + len(given)) * (body.n or 1), service)
    chars, most = sum(map(len, texts)), service.settings.limits.total_chars
    if chars > most:
        raise bad_request(
            f"the prompts have {chars:,} characters together; at most {most:,} are read",
            "prompt",
        )
    bos, encode = model.tokenizer.special("bos"), model.tokenizer.encode
    try:
        prompts = [[bos, *encode(text)] for text in texts]
    except DataError as error:
        raise refused(error, "prompt") from None
    for tokens in given:
        wrong = next((token for token in tokens if not 0 <= token < model.tokenizer.vocab_size), None)
        if wrong is not None or not tokens:
            raise bad_request(
                "a prompt has no tokens"
                if wrong is None
                else f"there is no token {str(wrong)[:20]}; there are {model.tokenizer.vocab_size:,}",
                "prompt",
            )
    for tokens in (*prompts, *given):
        check_fits(tokens, model, "prompt")
    return [*prompts, *given]


def _sorted(prompt: str | list[str] | list[int] | list[list[int]]) -> tuple[list[str], list[list[int]]]:
    """Return the prompts that are texts, or those that are tokens."""
    if isinstance(prompt, str):
        return [prompt], []
    texts = [one for one in prompt if isinstance(one, str)]
    tokens = [one for one in prompt if isinstance(one, list)]
    numbers = [one for one in prompt if isinstance(one, int)]
    if not prompt:
        raise bad_request("there is no prompt", "prompt")
    return texts, [numbers] if numbers else tokens
