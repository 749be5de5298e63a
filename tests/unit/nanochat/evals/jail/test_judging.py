from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from nanochat.config import EvaluateConfig
from nanochat.evals.jail import levels, seatbelt
from nanochat.evals.jail.judging import Attempt, JailError, Limits, Verdict, judge, judge_all
from nanochat.evals.jail.system_calls import NUMBERS
from nanochat.evals.protocol import protocol, protocol_lines

_LEVELS = ["seatbelt"] if sys.platform == "darwin" else ["namespaces", "landlock"]


def _attempt(program, check, helpers="", entry_point="f"):
    test = "def check(candidate):\n" + textwrap.indent(textwrap.dedent(check), "    ")
    return Attempt(program=textwrap.dedent(program), test=test, entry_point=entry_point, helpers=helpers)


def _require(level):
    try:
        judge(_attempt("def f(): pass", "candidate()"), level)
    except JailError as error:
        if level == "namespaces" or sys.platform == "darwin":
            pytest.skip(str(error))
        raise


_HELPER = "def double(x):\n    return 2 * x\n"
_REVERSES = "def f(x):\n    x.reverse()\n    return len(x)"
_PASS = {
    "plain": _attempt("def f(x): return x + 1", "assert candidate(1) == 2"),
    "any answer type": _attempt(
        "def f(x): return {x: (x, [x])}", "assert candidate('a') == {'a': ('a', ['a'])}"
    ),
    "imports": _attempt(
        "import hashlib, math, re, collections, itertools, functools, datetime, decimal, heapq, zlib\n"
        "from typing import List\ndef f(x: List[str]): return hashlib.md5(x[0].encode()).hexdigest()[:4]",
        "assert candidate(['a']) == '0cc1'",
    ),
    "prints": _attempt("print('x' * 10**6)\ndef f(x): print(x); return x", "assert candidate(1) == 1"),
    "keywords": _attempt("def f(a, *, b=1): return a - b", "assert candidate(3, b=2) == 1"),
    "an expected exception": _attempt(
        "def f(x): return 1 // x",
        "try:\n    candidate(0)\n    assert 0\nexcept ZeroDivisionError as e:\n    assert 'zero' in str(e)",
    ),
    "a changed argument": _attempt(_REVERSES, "x = [1, 2]\nassert candidate(x) == 2\nassert x == [2, 1]"),
    "a helper of the prompt": _attempt(
        _HELPER + "def f(x): return double(x)", "assert candidate(2) == double(2)", _HELPER
    ),
    "its own name": _attempt("def f(x): return sorted(x)", "assert candidate([2, 1]) == f([1, 2])"),
    "a set in one order each time": _attempt(
        "def f(): return ''.join(set('abc'))", "assert candidate() == candidate()"
    ),
    "elements of its own": _attempt(
        "import collections\ndef f(x): return collections.deque(x)",
        "assert tuple(candidate([1, 2])) == (1, 2)",
    ),
    "what is in itself": _attempt(
        "class Own:\n    def __iter__(self): return iter([self, self])\n"
        "def f(x):\n    x.append(Own())\n    return x",
        "assert candidate([1])",
    ),
    "no main guard": _attempt(
        "def f(): return 1\nif __name__ == '__main__': 1 / 0", "assert candidate() == 1"
    ),
}
_FAIL = {
    "wrong": [
        _attempt("def f(x): return x", "assert candidate(1) == 2"),
        _attempt("def f(x): return x", "assert undefined(1)"),
        _attempt(
            "def f(x): return x", "assert candidate(double(1)) == 2", _HELPER
        ),  # it does not define double
        _attempt("def g(x): return x", "assert candidate(1) == 1"),
        _attempt("double = lambda x: f(x)\ndef f(x): return 0", "assert candidate(2) == double(2)", _HELPER),
    ],
    "error": [
        _attempt("def f(:", "assert True"),
        _attempt("raise ValueError", "assert True"),
        _attempt("def f(x): return [][x]", "assert candidate(1) == 2"),
        _attempt("f = 3", "assert candidate(1) == 2"),
        _attempt("import os\ndef f(x): os._exit(0)", "try:\n    candidate(1)\nexcept:\n    pass"),
        _attempt("import numpy\ndef f(x): return 1", "assert candidate(1) == 1"),
    ],
    "memory": [_attempt("def f(x): return len(bytearray(10**9))", "assert candidate(1)")],
}


@pytest.mark.parametrize("level", _LEVELS)
def test_honest_programs_are_judged_as_in_one_interpreter(level):
    _require(level)
    attempts = [*_PASS.values(), *(attempt for failing in _FAIL.values() for attempt in failing)]
    expected = ["success"] * len(_PASS) + [s for s, failing in _FAIL.items() for _ in failing]
    verdicts = judge_all(attempts, level, workers=4)
    assert [v.status for v in verdicts] == expected, [v.detail for v in verdicts]


def test_verdicts_do_not_depend_on_how_many_are_judged_at_once():
    # Each is at work for a tenth of its limit, and waits for its turn for many times that limit.
    works = "import time\ndef f(x):\n    while time.process_time() < 0.05: pass\n    return x"
    attempts = [_attempt(works, f"assert candidate({i}) == {i - i % 2}") for i in range(64)]
    level, limits = levels.strongest(allow_unsafe_code=False), Limits(cpu_seconds=0.4, asleep_seconds=2.0)
    verdicts = judge_all(attempts, level, workers=64, limits=limits)
    assert [v.status for v in verdicts] == ["success", "wrong"] * 32


def test_why_a_program_failed_is_said_and_short():
    level = levels.strongest(allow_unsafe_code=False)
    verdict = judge(_attempt("def f(x): raise KeyError('k' * 10**6)", "candidate(1)"), level)
    assert verdict.status == "error"
    assert verdict.detail.startswith("KeyError: 'kkk")
    assert len(verdict.detail) == 500


def test_a_jail_that_cannot_be_built_is_an_error_and_no_verdict():
    with pytest.raises(JailError, match="could not be built"):
        judge(_PASS["plain"], "seatbelt" if sys.platform == "linux" else "landlock")


_WITHOUT_NAMESPACES = """
import os
from nanochat.evals.jail.system_calls import library
user, group = os.getuid(), os.getgid()
library("unshare", 0x10000000)
def write(name, text):
    with open(f"/proc/{name}", "w") as file:
        file.write(text)
write("self/setgroups", "deny")
write("self/uid_map", f"0 {user} 1")
write("self/gid_map", f"0 {group} 1")
write("sys/user/max_user_namespaces", "0")
from nanochat.evals.jail.levels import strongest
print(strongest(allow_unsafe_code=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="levels of Linux")
def test_the_second_level_is_taken_where_user_namespaces_are_forbidden():
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NAMESPACES], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("landlock\n", "")
    assert levels.strongest(allow_unsafe_code=True) == "namespaces"


def test_without_a_jail_code_runs_only_where_it_is_allowed(monkeypatch):
    monkeypatch.setattr(levels, "_tried", lambda: (None, ("landlock: not in this kernel",)))
    with pytest.raises(JailError, match="landlock: not in this kernel") as raised:
        levels.strongest(allow_unsafe_code=False)
    assert "--allow-unsafe-code" in raised.value.hint
    assert levels.strongest(allow_unsafe_code=True) == "none"
    assert [v.status for v in judge_all(list(_PASS.values()), "none", workers=4)] == ["success"] * len(_PASS)


def test_the_record_says_where_code_may_have_run_without_a_jail():
    safe = protocol(EvaluateConfig(), with_core=False)
    unsafe = protocol(EvaluateConfig(allow_unsafe_code=True), with_core=False)
    assert not any("NOT JAILED" in line for line in protocol_lines(safe))
    (line,) = (line for line in protocol_lines(unsafe) if "NOT JAILED" in line)
    assert line.startswith("code ") and "--allow-unsafe-code" in line


def test_the_rules_of_macos_allow_reading_the_interpreter_alone():
    rules = seatbelt.profile(["/opt/python/lib", '/a "quoted" \\ folder'], program=True)
    assert rules.startswith("(version 1)\n(deny default)\n")
    assert '(subpath "/opt/python/lib") (subpath "/a \\"quoted\\" \\\\ folder")' in rules
    assert not [word for word in ("write", "network", "fork", "exec", "signal", "mach") if word in rules]
    assert set(seatbelt.profile([], program=False).split("\n")) - set(rules.split("\n")) >= {"(allow signal)"}


def test_every_system_call_has_a_number_of_its_own():
    for column in (0, 1):
        numbers = [pair[column] for pair in NUMBERS.values() if pair[column] is not None]
        assert len(numbers) == len(set(numbers))


_FORGED = """
import sys
forged = ["ValueError", [["int", "0x" + "f" * 9999]], ""]
sys.modules["nanochat.evals.jail.plain_data"].encode_exception = lambda error: forged
def f(): raise ValueError
"""


def test_an_exception_whose_text_cannot_be_written_is_the_programs_error():
    level = levels.strongest(allow_unsafe_code=False)
    assert judge(_attempt(_FORGED, "candidate()"), level) == Verdict(status="error", detail="ValueError")


def test_a_process_out_of_processor_time_is_first_signalled_then_ended():
    code = (
        "import resource; from nanochat.evals.jail.confinement import limit; limit(1.5, 2**30);"
        "print(resource.getrlimit(resource.RLIMIT_CPU))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 4)\n"


def test_many_short_sleeps_are_one_long_one():
    level, limits = levels.strongest(allow_unsafe_code=False), Limits(asleep_seconds=0.3)
    attempt = _attempt("import time\ndef f(): time.sleep(0.1)", "for _ in range(10): candidate()")
    assert judge(attempt, level, limits=limits).status == "timeout"
