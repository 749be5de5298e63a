"""What is recorded about a machine, also while another stage is still loading its libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
SLOW = """
import time
time.sleep(0.5)
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 2)
    get_device_name = staticmethod(lambda i: f"device {i}")
"""
ASK = """
import sys, threading, time
from flows.run.provenance import hardware
threading.Thread(target=lambda: __import__("torch")).start()
while "torch" not in sys.modules:
    time.sleep(0.001)
found = hardware()
print(found["gpu"], found["gpus"])
"""


def test_a_library_that_another_thread_is_importing_is_waited_for(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(SLOW)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    done = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["device", "0", "2"], done.stderr


def test_nothing_is_imported_to_tell_of_a_machine():
    ask = (
        "import sys; from flows.run.provenance import hardware;"
        " print(hardware()['gpus'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "False"], done.stderr
