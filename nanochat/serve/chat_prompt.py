"""From the messages of a request to the tokens that the model reads.

The API has tool calls and their results as messages of their own; the model has them inside one turn of the
assistant. Messages of the assistant and of tools that follow each other become one turn, which the model goes
on with if a tool's result is the last of all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from nanochat.errors import DataError
from nanochat.serve.api_errors import bad_request, refused
from nanochat.serve.chat_request import CalculatorUse, ChatMessage, ToolCall
from nanochat.serve.serve_settings import RequestLimits
from nanochat.tokenizer.chat_format import Message, Part, render
from nanochat.tokenizer.tokenizer import Tokenizer

TOOL = "calculator"
PARAMETER = "expression"


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[ChatMessage], limits: RequestLimits) -> list[int]:
    """Return the tokens before the answer; raise ApiError for messages that there is no answer to."""
    _check_sizes(messages, limits)
    if messages[-1].role not in ("user", "tool"):
        raise bad_request(
            f"the last message is of role {messages[-1].role}; an answer follows one of role user or tool",
            f"messages[{len(messages) - 1}].role",
        )
    turns = _turns(messages)
    try:
        ids, _ = render(tokenizer, turns, None)
    except DataError as error:
        raise refused(error, "messages") from None
    if turns[-1]["role"] == "assistant":
        return ids[:-1]  # it goes on: without the token that ends a turn
    return [*ids, tokenizer.special("assistant_start")]


def _check_sizes(messages: Sequence[ChatMessage], limits: RequestLimits) -> None:
    if not 1 <= len(messages) <= limits.messages:
        raise bad_request(f"there are {len(messages)} messages; 1 to {limits.messages} are read", "messages")
    total = 0
    for number, message in enumerate(messages):
        chars = _chars(message)
        total += chars
        param = f"messages[{number}].content"
        of_assistant = message.role == "assistant"
        if not chars and message.role not in ("assistant", "tool"):
            raise bad_request(f"message {number} is empty", param)
        if chars > limits.message_chars and not of_assistant:
            raise bad_request(
                f"message {number} has {chars:,} characters; at most {limits.message_chars:,} are read", param
            )
    if total > limits.total_chars:
        raise bad_request(
            f"the messages have {total:,} characters together; at most {limits.total_chars:,} are read",
            "messages",
        )


def _chars(message: ChatMessage) -> int:
    content = message.content
    texts = [content] if isinstance(content, str) else [part.text for part in content or ()]
    texts += [call.function.arguments for call in message.tool_calls or ()]
    texts += [text for use in message.calculator or () for text in (use.expression, use.result or "")]
    return sum(map(len, texts))


def _turns(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return the conversation as the model has it."""
    turns: list[Message] = []
    system: list[str] = []
    parts: list[Part] | None = None  # of the assistant's turn
    for number, message in enumerate(messages):
        _check_place(message, number)
        if message.role in ("system", "developer"):
            if len(system) < number:
                raise bad_request(
                    f"message {number} is of role {message.role}; such messages come before all others",
                    f"messages[{number}].role",
                )
            system.append(_text(message, number))
        elif message.role == "user":
            turns.append({"role": "user", "content": _text(message, number)})
            parts = None
        else:
            if parts is None:
                parts = []
                turns.append({"role": "assistant", "content": parts})
            parts += _parts(messages, number)
    if system:
        turns.insert(0, {"role": "system", "content": "\n\n".join(system)})
    return turns


def _check_place(message: ChatMessage, number: int) -> None:
    """Raise ApiError where a field stands on a message on which it means nothing."""
    whose = {"tool_calls": "assistant", "calculator": "assistant", "tool_call_id": "tool"}
    for name, role in whose.items():
        if getattr(message, name) and message.role != role:
            raise bad_request(
                f"message {number} of role {message.role} has {name}, which only one of role {role} can have",
                f"messages[{number}].{name}",
            )
    if message.calculator and isinstance(message.content, list):
        raise bad_request(
            f"message {number} has calculator beside a content of parts, which say where it was used",
            f"messages[{number}].calculator",
        )


def _text(message: ChatMessage, number: int) -> str:
    """Return the text of a message that a person wrote."""
    if isinstance(message.content, str):
        return message.content
    for part in message.content or ():
        if part.type != "text":
            raise bad_request(
                f"message {number} of role {message.role} has a part of type {part.type}; its parts are text",
                f"messages[{number}].content",
            )
    return "".join(part.text for part in message.content or ())


def _parts(messages: Sequence[ChatMessage], number: int) -> list[Part]:
    """Return what a message of the assistant or a tool adds to the assistant's turn."""
    message = messages[number]
    if message.role == "tool":
        _check_answers_a_call(messages, number)
        return [{"type": "python_output", "text": _text(message, number)}]
    if isinstance(message.content, list):
        parts: list[Part] = [{"type": part.type, "text": part.text} for part in message.content]
    else:
        parts = _with_uses(message.content or "", message.calculator or ())
    calls = message.tool_calls or ()
    if len(calls) > 1:
        raise bad_request(
            f"message {number} makes {len(calls)} calls; the model makes one at a time, and reads its result",
            f"messages[{number}].tool_calls",
        )
    if calls:
        _check_is_answered(messages, number)
    return parts + [_call(call, number) for call in calls]


def _with_uses(text: str, uses: Sequence[CalculatorUse]) -> list[Part]:
    """Return an answer of ours that the client sent back with its uses of the calculator."""
    parts: list[Part] = []
    at = 0
    for use in sorted(uses, key=lambda use: use.offset):
        if use.offset > at:
            parts.append({"type": "text", "text": text[at : use.offset]})
            at = use.offset
        parts.append({"type": "python", "text": use.expression})
        if use.result is not None:
            parts.append({"type": "python_output", "text": use.result})
    return [*parts, {"type": "text", "text": text[at:]}] if text[at:] else parts


def _call(call: ToolCall, number: int) -> Part:
    param = f"messages[{number}].tool_calls"
    if call.function.name != TOOL:
        raise bad_request(
            f"message {number} calls {call.function.name[:80]!r}; the model knows {TOOL!r} only", param
        )
    try:
        arguments = json.loads(call.function.arguments)
        expression = arguments[PARAMETER]
    except (ValueError, LookupError, TypeError, RecursionError):
        expression = None
    if not isinstance(expression, str):
        raise bad_request(
            f'the arguments of a call in message {number} are not of the form {{"{PARAMETER}": "3+4"}}', param
        )
    return {"type": "python", "text": expression}


def _check_answers_a_call(messages: Sequence[ChatMessage], number: int) -> None:
    """Raise ApiError where a tool's message does not follow the call that it answers."""
    called = [call.id for call in messages[number - 1].tool_calls or ()] if number else []
    if messages[number].tool_call_id not in called:
        raise bad_request(
            f"message {number} of role tool has tool_call_id {messages[number].tool_call_id!r:.80}, and the"
            " message before it makes no such call",
            f"messages[{number}].tool_call_id",
        )


def _check_is_answered(messages: Sequence[ChatMessage], number: int) -> None:
    """Raise ApiError where no tool's message follows a call."""
    if [after.role for after in messages[number + 1 : number + 2]] != ["tool"]:
        raise bad_request(
            f"message {number} makes a call, and no message of role tool with its result follows",
            f"messages[{number}].tool_calls",
        )
