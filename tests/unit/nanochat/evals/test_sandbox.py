from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from nanochat.evals.sandbox import run_python


def _run(program, **limits):
    return run_python(textwrap.dedent(program), **limits)


def test_program_that_ends_well_succeeds_and_its_output_is_kept():
    result = _run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (result.status, result.stdout, result.stderr) == ("success", "out\n", "err\n")


@pytest.mark.parametrize(
    "program", ["raise ValueError('boom')", "def f(:", "assert 1 == 2", "import sys; sys.exit(0)"]
)
def test_exception_or_early_exit_is_an_error(program):
    assert _run(program).status == "error"


def test_message_of_an_exception_is_kept():
    assert "ValueError: boom" in _run("raise ValueError('boom')").stderr


def test_leaving_without_the_checks_is_no_success():
    assert _run("import os; os._exit(0)").status == "error"


def test_a_main_guard_does_not_run_and_there_are_no_other_names():
    assert _run("if __name__ == '__main__':\n    raise ValueError").status == "success"
    assert _run("assert set(globals()) == {'__builtins__'}").status == "success"


def test_endless_loop_is_killed():
    assert _run("while True: pass", timeout_s=0.5).status == "timeout"


def test_sleeping_is_killed_too():
    assert _run("import time; time.sleep(60)", timeout_s=0.5).status == "timeout"


def test_too_much_memory_is_named():
    assert _run("x = bytearray(10**9)").status == "memory"


def test_grandchildren_do_not_outlive_the_program(tmp_path):
    flag = tmp_path / "alive"
    program = f"""
        import os, time
        try:
            pid = os.fork()
        except OSError:
            pid = 1
        if pid == 0:
            time.sleep(1)
            open({str(flag)!r}, "w").close()
        """
    _run(program)
    assert run_python("import time; time.sleep(1.3)").status == "success"
    assert not flag.exists()


def test_input_environment_and_folder_are_the_programs_own(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    program = """
        import os, sys
        assert "SECRET_TOKEN" not in os.environ
        assert sys.stdin.read() == ""
        assert os.listdir() == ["program.py"]
        open("written", "w").write("x")
        assert len(sys.argv) == 1
        assert not [name for name in globals() if name in ("limits", "source", "memory")]
        """
    before = sorted(Path.cwd().iterdir())
    result = _run(program)
    assert result.status == "success", result.stderr
    assert sorted(Path.cwd().iterdir()) == before


def test_large_files_cannot_be_written():
    assert _run("open('big', 'wb').write(bytes(40 * 2**20))").status == "error"
