"""What a chat request may hold, in OpenAI's form with a few fields more; everything else is refused.

A parameter that would change the answer is followed or refused, never dropped. Those of `UNUSED` change
nothing about an answer. Limits are checked in `nanochat.serve.chat_prompt` and `nanochat.serve.asking`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Int = Annotated[int, Field(strict=True, gt=-(2**63), lt=2**63)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


class RequestPart(BaseModel):
    """Part of a request."""

    model_config = ConfigDict(extra="forbid")


class ContentPart(RequestPart):
    """A part of a message: text, or nanochat's own record of the calculator."""

    type: Literal["text", "python", "python_output"]
    text: str


class CalledFunction(RequestPart):
    """The function that a model called."""

    name: str
    arguments: str


class ToolCall(RequestPart):
    """A call that an earlier answer made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Int | None = None


class CalculatorUse(RequestPart):
    """What an earlier answer of this server asked the calculator."""

    expression: str
    result: str | None = None
    offset: Annotated[int, Field(strict=True, ge=0, lt=2**63)]
    """Characters of `content` before it."""


class ChatMessage(RequestPart):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    calculator: list[CalculatorUse] | None = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None
    audio: None = None
    function_call: None = None


class FunctionSpec(RequestPart):
    """A function that the client offers."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag | None = None


class ToolSpec(RequestPart):
    """A tool that the client offers."""

    type: Literal["function"]
    function: FunctionSpec


class StreamOptions(RequestPart):
    """How an answer is streamed."""

    include_usage: Flag | None = None
    include_obfuscation: Flag | None = None


class Drawing(RequestPart):
    """How answers are drawn: what requests of all kinds share."""

    model: str | None = None
    n: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    top_p: Number | None = None
    top_k: Annotated[int, Field(strict=True, ge=-1, lt=2**63)] | None = None
    """0 and -1 draw among all tokens."""
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | None = None
    seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    logit_bias: dict[str, Any] | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class ChatRequest(Drawing):
    """A request for the next answer in a conversation."""

    messages: list[ChatMessage]
    max_completion_tokens: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: Flag | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    reasoning_effort: None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None
    verbosity: None = None

    @property
    def client_calculates(self) -> bool:
        """Return whether the client works out what the model calculates."""
        return bool(self.tools) and self.tool_choice != "none"


UNUSED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields that do not concern the answer: who asks, and what a provider does with requests."""
