"""What model-written code could try: nothing has an effect outside, and each gets its own verdict.

The whole battery runs once for each level of the jail and kind of user; a run without a jail shows that the
attacks are real.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import jail_battery
from tests.support.jail_attacks import ATTACKS, FORGERIES

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="attacks by the numbers of x86-64"
)

_IS_ROOT = os.geteuid() == 0
_USERS = ("root", "ordinary") if _IS_ROOT else ("ordinary",)
_NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}
_RECENT = "import sys; sys.exit(sys.version_info < (3, 11))"


def _battery(level, user, code):
    change = _NOBODY if _IS_ROOT and user == "ordinary" else {}
    command = [_interpreter(user), str(code / "tests/support/jail_battery.py"), level]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(code), "JAIL_SECRET": "to be seen by nobody"}
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, check=False, **change
    )
    if level == "namespaces" and "the jail could not be built" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["user"] == 0) == (user == "root")
    return found


@pytest.fixture(scope="module")
def code():
    """Copy the code to where every user may read it; this checkout may be below a private folder."""
    with tempfile.TemporaryDirectory(prefix="jail-code-") as folder:
        Path(folder).chmod(0o755)
        without_bytecode = shutil.ignore_patterns("__pycache__")
        for part in ("nanochat", "tests/support"):
            shutil.copytree(jail_battery.ROOT / part, Path(folder, part), ignore=without_bytecode)
        shutil.copy(jail_battery.ROOT / "pyproject.toml", folder)
        yield Path(folder)


def _interpreter(user):
    """Return an interpreter that the user may run: one below a private home is not for others."""
    if user == "root" or not _IS_ROOT:
        return sys.executable
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([path, "-c", _RECENT], check=True, cwd="/", capture_output=True, **_NOBODY)
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    pytest.skip("no Python 3.11 or later that an ordinary user may run")


@pytest.mark.parametrize("user", _USERS)
@pytest.mark.parametrize("level", ["namespaces", "landlock"])
def test_attacks_touch_nothing_outside_and_each_gets_its_own_verdict(level, user, code):
    found = _battery(level, user, code)
    assert found["touched"] == {}
    assert [a.name for a in ATTACKS] == list(found["verdicts"])
    assert {a.name: v for a in ATTACKS if (v := found["verdicts"][a.name])[0] not in a.verdicts} == {}


@pytest.mark.skipif(not _IS_ROOT, reason="root alone can do all of them")
def test_attacks_work_where_there_is_no_jail_but_forgeries_do_not(code):
    found = _battery("none", "root", code)
    works = {name for name, (status, _) in found["verdicts"].items() if status == "success"}
    works |= set(found["touched"])
    forgeries = {attack.name for attack in FORGERIES}
    assert {a.name for a in ATTACKS if a.harmless and a.name not in forgeries} - works == set()
    assert not works & forgeries
