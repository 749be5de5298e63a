"""`nanochat chat` in a pseudo-terminal: an answer is stopped, the chat goes on, the terminal is put back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from tests.support.serving import ENDLESS, write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("chat terminal")]
_PATIENCE_S = 120


class Terminal:
    """A program in a pseudo-terminal, and what it has shown."""

    def __init__(self, command, env):
        self.parent, child = pty.openpty()
        self.before = termios.tcgetattr(child)
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(child, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        self.child, self.seen = child, ""

    def type(self, keys):
        self.seen = ""
        os.write(self.parent, keys.encode())

    def wait_for(self, text):
        end = time.monotonic() + _PATIENCE_S
        while text not in self.seen:
            assert time.monotonic() < end and self.process.poll() is None, self.seen
            if select.select([self.parent], [], [], 0.1)[0]:
                new = os.read(self.parent, 65536).decode(errors="replace")
                if "\x1b[6n" in new:  # asks where the cursor is
                    os.write(self.parent, b"\x1b[1;1R")
                self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", new)

    def restored(self):
        return termios.tcgetattr(self.child)[3] == self.before[3]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.parent)
        os.close(self.child)


def test_ctrl_c_ends_an_answer_and_sigterm_the_chat(tmp_path):
    model = write_tiny_model(tmp_path / "model", ENDLESS, context=100_000)
    command = [sys.executable, "-m", "flows", "chat", str(model), "--max-tokens", "90000"]
    env = {
        **os.environ,
        "NANOCHAT_HOME": str(tmp_path / "home"),
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    terminal = Terminal(command, env)
    try:
        terminal.wait_for("/help lists")
        terminal.type("go on for ever\r")
        terminal.wait_for("abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz")
        terminal.type("\x03")
        terminal.wait_for("stopped")
        terminal.type("/tokens\r")
        terminal.wait_for("1 turn")
        terminal.type("half a line")
        terminal.wait_for("half a line")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(_PATIENCE_S) == 128 + signal.SIGTERM
        assert terminal.restored()
        assert (tmp_path / "home/chat_history").read_text().count("go on for ever") == 1
    finally:
        terminal.close()
