"""What the model reads of a conversation in the API's form."""

from __future__ import annotations

import pytest

from nanochat.serve.api_errors import ApiError
from nanochat.serve.chat_prompt import chat_prompt
from nanochat.serve.chat_request import ChatMessage
from nanochat.serve.serve_settings import RequestLimits
from tests.support.serving import tiny_tokenizer

WORDS = tiny_tokenizer(())
CALL = {"id": "c1", "function": {"name": "calculator", "arguments": '{"expression": "3+4"}'}}
USER = {"role": "user", "content": "a"}
USE = {"expression": "3+4", "offset": 0}
PART = {"type": "text", "text": "b"}
AGAIN = {**CALL, "id": "c2"}
CALLED = {"role": "assistant", "tool_calls": [CALL]}
RETURNED = {"role": "tool", "tool_call_id": "c1", "content": "7"}


def prompt(*messages, limits=RequestLimits()):  # noqa: B008 - frozen
    ids = chat_prompt(WORDS, [ChatMessage.model_validate(message) for message in messages], limits)
    return WORDS.decode(ids).replace("<|", "<").replace("|>", ">")


def refusal(*messages, limits=RequestLimits()):  # noqa: B008
    with pytest.raises(ApiError) as found:
        prompt(*messages, limits=limits)
    assert found.value.status == 400
    return found.value


def test_system_and_developer_messages_go_before_the_first_of_the_user():
    system, developer = ({"role": role, "content": role} for role in ("system", "developer"))
    assert prompt(system, developer, USER) == (
        "<bos><user_start>system\n\ndeveloper\n\na<user_end><assistant_start>"
    )
    assert refusal(USER, system, USER).param == "messages[1].role"


def test_a_tools_result_goes_on_with_the_turn_that_called_it():
    called = {"role": "assistant", "content": "so ", "tool_calls": [CALL]}
    begun = "<bos><user_start>a<user_end><assistant_start>so <python_start>3+4<python_end>"
    assert prompt(USER, called, RETURNED) == f"{begun}<output_start>7<output_end>"
    answered = {"role": "assistant", "content": "it is 7"}
    assert prompt(USER, called, RETURNED, answered, USER) == (
        f"{begun}<output_start>7<output_end>it is 7<assistant_end><user_start>a<user_end><assistant_start>"
    )


def test_an_answer_of_this_server_is_read_with_its_uses_of_the_calculator():
    use = {"expression": "3+4", "result": "7", "offset": 3}
    cut = {"expression": "1+", "offset": 5}
    answer = {"role": "assistant", "content": "so 7.", "calculator": [use, cut]}
    parts = {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "so "},
            {"type": "python", "text": "3+4"},
            {"type": "python_output", "text": "7"},
            {"type": "text", "text": "7."},
            {"type": "python", "text": "1+"},
        ],
    }
    turn = "so <python_start>3+4<python_end><output_start>7<output_end>7.<python_start>1+<python_end>"
    assert turn in prompt(USER, answer, USER)
    assert prompt(USER, answer, USER) == prompt(USER, parts, USER)


def test_the_parts_of_a_users_message_are_one_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert prompt({"role": "user", "content": parts}) == prompt({"role": "user", "content": "ab"})
    assert refusal({"role": "user", "content": [{"type": "python", "text": "1"}]}).param == (
        "messages[0].content"
    )


def test_special_tokens_in_a_text_stay_text():
    ids = chat_prompt(WORDS, [ChatMessage(role="user", content="<|assistant_end|>")], RequestLimits())
    assert WORDS.special("assistant_end") not in ids


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "user", "content": ""}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([USER, {"role": "assistant", "content": "b"}], "messages[1].role"),
        ([USER, USER], "messages"),
        ([{"role": "assistant", "content": "b"}, USER], "messages"),
        ([{"role": "system", "content": "b"}], "messages[0].role"),
        ([{**USER, "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{**USER, "calculator": [USE]}], "messages[0].calculator"),
        ([{**USER, "tool_call_id": "c1"}], "messages[0].tool_call_id"),
        (
            [USER, {"role": "assistant", "content": [PART], "calculator": [USE]}, USER],
            "messages[1].calculator",
        ),
        ([USER, RETURNED], "messages[1].tool_call_id"),
        ([USER, {"role": "assistant", "tool_calls": [CALL, CALL]}, RETURNED], "messages[1].tool_calls"),
        (
            [USER, {"role": "assistant", "tool_calls": [CALL]}, {**RETURNED, "tool_call_id": "c2"}],
            "messages[2].tool_call_id",
        ),
        ([USER, CALLED, RETURNED, RETURNED], "messages[3].tool_call_id"),
        ([USER, CALLED, RETURNED, {**CALLED, "tool_calls": [AGAIN]}, RETURNED], "messages[4].tool_call_id"),
        ([USER, {**CALLED, "content": "b"}, {"role": "assistant"}, RETURNED], "messages[1].tool_calls"),
        ([USER, CALLED, USER], "messages[1].tool_calls"),
        *(
            (
                [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": function}]}, RETURNED],
                "messages[1].tool_calls",
            )
            for function in (
                {"name": "weather", "arguments": "{}"},
                {"name": "calculator", "arguments": "{}"},
                {"name": "calculator", "arguments": "3+4"},
                {"name": "calculator", "arguments": "[" * 20_000},
                {"name": "calculator", "arguments": '{"expression": 7}'},
            )
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_place(messages, param):
    assert refusal(*messages).param == param


def test_limits_hold_at_their_edge():
    limits = RequestLimits(messages=3, message_chars=4, total_chars=10)
    user, answer = {"role": "user", "content": "abcd"}, {"role": "assistant", "content": "ab"}
    assert prompt(user, answer, user, limits=limits)
    assert "at most 4" in str(refusal({"role": "user", "content": "abcde"}, limits=limits))
    assert "at most 10" in str(refusal(user, {**answer, "content": "abc"}, user, limits=limits))
    assert "1 to 3" in str(refusal(user, answer, user, answer, user, limits=limits))
    # An answer may be longer than a person's message, or this server's own could not be sent back.
    assert prompt(
        {**user, "content": "a"}, {**answer, "content": "abcdefgh"}, {**user, "content": "a"}, limits=limits
    )
