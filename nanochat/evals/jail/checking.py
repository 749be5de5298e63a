"""The checker's side of a judgement: runs a problem's own tests against a program in another process.

The interpreter in which the tests run has never run model-written code. The function under test is a stand-in
that sends arguments and receives plain data, so what the program does to its own interpreter (patched
built-ins, traces, `__eq__`, exit codes) can make its answers wrong, never the verdict right.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from nanochat.evals.jail import plain_data, wire


class Program:
    """The program in its own process: loaded once, called as often as the tests like."""

    def __init__(self, pid: int, line: wire.Line, cpu_seconds: float) -> None:
        self._pid, self._line, self._cpu_seconds = pid, line, cpu_seconds
        self._raised: BaseException | None = None
        self.lost: wire.GoneError | None = None  # stays, whatever a test catches

    def load(self, code: str, wanted: list[str]) -> list[str]:
        """Run the program's own text; return which of the wanted names it defines."""
        reply = self._ask(["load", code, wanted])
        return [name for name in wanted if name in reply[1]]

    def function(self, name: str) -> Callable[..., Any]:
        """Return the stand-in for a function of the program."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, args, kwargs)

        stand_in.__name__ = name
        return stand_in

    def has_raised(self, error: BaseException) -> bool:
        """Return whether an exception came from the program, not from a test."""
        return error is self._raised

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forms = [plain_data.encode(arg, strict=True) for arg in args]
        named = {key: plain_data.encode(arg, strict=True) for key, arg in kwargs.items()}
        reply = self._ask(["call", name, forms, named])
        for arg, value in zip(args, reply[2] or (), strict=False):
            _put(arg, value)
        return reply[1]

    def _ask(self, message: list[Any]) -> list[Any]:
        """Return the program's answer, decoded; raises what the program raised."""
        if self.lost:
            raise self.lost
        try:
            self._line.send(message)
            reply = _decoded(self._line.receive())
        except wire.GoneError as error:
            self.lost = error
            raise
        if reply[0] == "raised":
            self._raised = reply[1]
            raise reply[1]
        return reply

    def end(self) -> bool:
        """End the process; return whether its processor time was up."""
        os.kill(self._pid, signal.SIGKILL)
        _, _, usage = os.wait4(self._pid, 0)
        return usage.ru_utime + usage.ru_stime > self._cpu_seconds


def _decoded(reply: list[Any]) -> list[Any]:
    try:
        match reply:
            case ["loaded", list(names)]:
                return ["loaded", names]
            case ["returned", form, changed]:
                return [
                    "returned",
                    plain_data.decode(form),
                    [plain_data.decode(one) for one in changed or ()],
                ]
            case ["raised", str(kind), list(arguments), text]:
                return ["raised", plain_data.decode_exception(kind, arguments, str(text))]
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise wire.GoneError(f"the program's answer cannot be read: {error}") from error
    raise wire.GoneError("the program's answer cannot be read")


def _put(arg: Any, value: Any) -> None:
    """Do to an argument what the program did to its own copy."""
    if type(arg) is not type(value):
        return
    if isinstance(arg, list):
        arg[:] = value
    elif isinstance(arg, dict | set):
        arg.clear()
        arg.update(value)


def check(program: Program, attempt: dict[str, Any]) -> dict[str, str]:
    """Return the verdict on a program: `status` and, where it did not pass, `detail`."""
    status, detail = "success", ""
    try:
        _run_tests(program, attempt)
    except wire.TimeUpError as error:
        status, detail = "timeout", str(error)
    except wire.GoneError as error:
        status, detail = "error", str(error)
    except MemoryError:
        status = "memory"
    except BaseException as error:
        status = "error" if program.has_raised(error) else "wrong"
        detail = _described(error)
    if program.lost and status in ("success", "wrong"):
        status, detail = "error", str(program.lost)
    if program.end() and status == "error":
        status, detail = "timeout", "the program used all of its processor time"
    return {"status": status, "detail": detail[:500]}


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # the program chose its arguments: a number of too many digits, say
        return type(error).__name__


def _run_tests(program: Program, attempt: dict[str, Any]) -> None:
    names: dict[str, Any] = {}
    _execute(attempt["helpers"], "helpers.py", names)
    helpers = [name for name in names if not name.startswith("__")]
    defined = program.load(attempt["program"], [*helpers, attempt["entry_point"]])
    for name in set(helpers) - set(defined):
        del names[name]
    if attempt["entry_point"] in defined:
        names[attempt["entry_point"]] = program.function(attempt["entry_point"])
    _execute(f"{attempt['test']}\n\ncheck({attempt['entry_point']})\n", "test.py", names)


def _execute(text: str, name: str, names: dict[str, Any]) -> None:
    exec(compile(text, name, "exec", dont_inherit=True), names)
