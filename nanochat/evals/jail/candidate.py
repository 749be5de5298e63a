"""The program's side of a judgement: loads model-written code and answers calls of its functions.

Everything here runs in one process with that code, and nothing here is secret from it or protected against
it: it can at most answer something else. The tests are not in this process.
"""

from __future__ import annotations

import os
from typing import Any

from nanochat.evals.jail import plain_data, wire


def serve(requests: int, replies: int) -> None:
    """Load the program, then answer calls until nobody asks."""
    globals_: dict[str, Any] = {}
    while (request := wire.receive(requests)) is not None:
        kind, *rest = request
        try:
            reply = _load(globals_, *rest) if kind == "load" else _call(globals_, *rest)
        except BaseException as error:  # sys.exit as well: the test may expect it
            reply = ["raised", *_described(error)]
        _answer(replies, reply)


def _load(globals_: dict[str, Any], code: str, wanted: list[str]) -> list[Any]:
    exec(compile(code, "program.py", "exec", dont_inherit=True), globals_)
    return ["loaded", [name for name in wanted if name in globals_]]


def _call(globals_: dict[str, Any], name: str, arguments: list[Any], named: dict[str, Any]) -> list[Any]:
    values = [plain_data.decode(argument) for argument in arguments]
    result = globals_[name](*values, **{key: plain_data.decode(form) for key, form in named.items()})
    form = _form(result)
    after = [_form(value) for value in values]
    return ["returned", form, None if after == arguments else after]


def _form(result: Any) -> Any:
    try:
        return plain_data.encode(result)
    except RecursionError:  # a list in itself, say
        return ["opaque", type(result).__name__, True, None]


def _described(error: BaseException) -> list[Any]:
    try:
        return plain_data.encode_exception(error)
    except BaseException:  # its own __str__ may raise anything
        return ["Exception", [], "an exception without a text"]


def _answer(replies: int, reply: list[Any]) -> None:
    try:
        wire.send(replies, reply)
    except ValueError as error:
        wire.send(replies, ["raised", "ValueError", [str(error)], str(error)])
    except OSError:
        os._exit(1)  # nobody waits for the answer
