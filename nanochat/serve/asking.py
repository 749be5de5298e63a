"""From a request to how its answers are drawn: limits, defaults, and parameters that are not supported."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from nanochat.config import Sampling
from nanochat.serve.api_errors import ApiError, bad_request
from nanochat.serve.chat_request import Drawing
from nanochat.serve.serve_settings import RequestLimits
from nanochat.serve.service import ServedModel, Service

_SEEDS = 2**63


def check_model(request: Drawing, model: ServedModel) -> None:
    """Raise ApiError where a request names another model."""
    if request.model not in (None, model.id):
        raise ApiError(
            404,
            f"the model {str(request.model)[:80]!r} is not served here; this server has {model.id!r}",
            param="model",
            code="model_not_found",
        )


def samplings(
    request: Drawing, limits: RequestLimits, *, max_tokens: int | None, logprobs: int | None, count: int
) -> list[Sampling]:
    """Return how each of `count` answers is drawn: with the seed itself, then with one more each."""
    _check(request, limits, max_tokens)
    seed = request.seed if request.seed is not None else secrets.randbelow(_SEEDS)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    given = {
        name: value
        for name in ("temperature", "top_p", "min_p", "repetition_penalty")
        if (value := getattr(request, name)) is not None
    }
    top_k = Sampling.top_k if request.top_k is None else request.top_k if request.top_k > 0 else None
    try:
        return [
            Sampling(
                **given,
                top_k=top_k,
                stop=tuple(stop),
                logprobs=logprobs,
                max_new_tokens=max_tokens or limits.max_tokens,
                seed=(seed + number) % _SEEDS if seed >= 0 else seed + number,
            )
            for number in range(count)
        ]
    except ValueError as error:
        raise bad_request(str(error), str(error).partition(" ")[0]) from None


def _check(request: Drawing, limits: RequestLimits, max_tokens: int | None) -> None:
    for name, value, most in (
        ("temperature", request.temperature, limits.temperature),
        ("top_k", request.top_k, limits.top_k),
        ("max_tokens", max_tokens, limits.max_tokens),
    ):
        if value is not None and value > most:
            raise bad_request(f"{name} is {value:g}; it must be at most {most:g}", name)
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(request, name):
            raise bad_request(
                f"{name} is not supported; 0 or none is accepted, and repetition_penalty is there", name
            )
    if request.logit_bias:
        raise bad_request("logit_bias is not supported", "logit_bias")
    if request.stream_options is not None and not request.stream:
        raise bad_request("stream_options are for requests with stream: true", "stream_options")


def check_choices(count: int, service: Service) -> None:
    """Raise ApiError for more answers than a request may ask for, or than there can ever be room for."""
    most = min(service.settings.limits.choices, service.desk.room)
    if count > most > 0:
        raise bad_request(f"{count} answers are asked for; at most {most} are written", "n")


def check_fits(prompt: Sequence[int], model: ServedModel, param: str) -> None:
    """Raise ApiError for a prompt that leaves the context no place for an answer."""
    if len(prompt) >= model.context_tokens:
        raise bad_request(
            f"the prompt has {len(prompt):,} tokens; with its answer it must fit into"
            f" {model.context_tokens:,}",
            param,
            "context_length_exceeded",
        )
