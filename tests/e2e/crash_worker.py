"""Processes that run a plan without Prefect, to be killed: `Nursery.start` makes one, with all imports done.

It appends a line to LOG for all that tests count: `planned`, `started`, `finished` and `failed` with the
node, `resumed` with stage and step. At the end it prints one JSON line: each node's digest, or the error that
a user would read. Imports take most of a small run's time: one process does them and forks the others.
Settings: `overrides` of the toy recipe, stages to `force`, `processes` (ranks that train together), `kill_at`
(SIGKILL itself at that moment of its work with the storage), `kill_in_training_s` (SIGKILL this long after
the first training step that it takes), `kill_at_report` (a node and a number: SIGKILL itself at that report
of the node, having kept a restart point as often as it can), `clock_s` (two numbers: after so many seconds
its clock jumps by so many).
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from nanochat import recipes

ROOT = Path(__file__).parents[2]
_TRAINING = ("pretrain", "midtrain", "sft")


class Nursery:
    """A process with everything imported, which forks workers one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, home: Path, store: str, log: Path, **settings: Any) -> int:
        """Start a worker and return its process id; it sees this process's FAULTY_ and AWS_ variables."""
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        passed = {k: v for k, v in os.environ.items() if k.startswith(("FAULTY_", "AWS_"))}
        order = {
            "arguments": [str(home), store, str(log)],
            "settings": settings,
            "environment": {**passed, "TMPDIR": str(home / "tmp")},
        }
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def outcome(self) -> dict[str, Any] | None:
        """Wait for the worker; return what it printed, or None if it was killed."""
        assert self._process.stdout
        end = json.loads(self._process.stdout.readline())
        if end["killed"]:
            return None
        assert end["said"], f"the worker ended with status {end['status']}: an error that no user should see"
        said: dict[str, Any] = end["said"]
        return said

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *error: object) -> None:
        """End it: it ends with its standard input; both pipes are closed."""
        self._process.communicate()


def nurse() -> None:
    """Import everything, then fork a worker for each line of standard input and print how it ended."""
    import flows.run.session
    from flows.run.execute import run_function
    from flows.stages import STAGES

    assert flows.run.session
    for stage in STAGES.values():
        run_function(stage.run)
    importlib.import_module("torch._dynamo")  # what the first optimizer of a process imports, for seconds
    for line in sys.stdin:
        order = json.loads(line)
        answer, tell = os.pipe()
        worker = os.fork()
        if worker == 0:
            os.close(answer)
            os._exit(_work(order, tell))
        os.close(tell)
        print(worker, flush=True)
        with open(answer, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            said = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        killed = status == -signal.SIGKILL
        print(
            json.dumps({"killed": killed, "status": status, "said": json.loads(said or "null")}), flush=True
        )


def _work(order: Mapping[str, Any], tell: int) -> int:
    os.environ.update(order["environment"])
    tempfile.tempdir = None  # asked for anew
    home, url, log = order["arguments"]
    try:
        said = main(Path(home), url, Path(log), order["settings"])
    except BaseException:
        traceback.print_exc()
        return 1
    os.write(tell, json.dumps(said).encode())
    return 0


def main(home: Path, url: str, log: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run the recipe; return its digests, or the error that ended it."""
    from flows.plan import make_plan
    from flows.run.session import begin
    from flows.store import Store
    from nanochat.errors import NanochatError
    from nanochat.system_errors import explain

    say = _Log(log)
    if url.startswith("faulty://"):
        from tests.support.faulty_fs import register

        register()
    try:
        store = Store.open(url, cache=home / "cache")
        if "kill_at" in settings:
            _kill_at(store, settings["kill_at"], say)
        if "clock_s" in settings:
            _clock_jumps(*settings["clock_s"])
        _tell_restarts(say)
        force = tuple(settings.get("force", ()))
        plan = make_plan(recipes.find("toy", settings["overrides"]), store, force=force)
        say("planned")
        kill_at_report = settings.get("kill_at_report")
        context = _context(store, home, settings.get("processes", 1), 0.0 if kill_at_report else 0.4)
        display = _display(say, settings.get("kill_in_training_s"), kill_at_report)
        with begin(plan, context, display, force=force) as session:
            for planned in plan.nodes:
                session.make(planned.node.id)
    except OSError as system:  # as the command line does
        shown = explain(system, places=(home,))
        return {"error": f"OSError {system.errno}", "message": str(shown), "hint": shown.hint}
    except NanochatError as error:
        return {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    return {"digests": {node: record.digest for node, record in session.records.items()}}


class _Log:
    """Appends whole lines to a file that several processes write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *words: object) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(" ".join(str(word) for word in words) + "\n")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_at(store: Any, moment: int, say: _Log) -> None:
    """Count the moments at which a storage may be left behind, and end at one of them.

    Moments are: before and after each change, and each fsync, that is after the bytes of a file are written
    and before it appears, and after it has appeared and before its folder is on disk.
    """
    lock = threading.Lock()
    seen = 0

    def count(what: str) -> None:
        nonlocal seen
        with lock:
            seen += 1
            if seen == moment:
                say("killed", what)
                _kill()

    def wrapped(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            target = args[-1] if name == "upload" else args[0] if args else ""
            count(f"before {name} {target}")
            result = change(*args, **options)
            count(f"after {name} {target}")
            return result

        return call

    for name in ("upload", "create", "write", "delete"):
        setattr(store.storage, name, wrapped(name, getattr(store.storage, name)))
    os.fsync = lambda handle: count("in fsync")  # a killed process loses no written bytes: a power cut does


def _tell_restarts(say: _Log) -> None:
    from flows.store.restart_points import StoreRestartPoints

    latest = StoreRestartPoints.latest

    def told(self: StoreRestartPoints) -> tuple[int, Path] | None:
        found = latest(self)
        if found:
            say("resumed", self.prefix.split("/")[1], found[0])
        return found

    StoreRestartPoints.latest = told  # type: ignore[method-assign]


def _clock_jumps(after_s: float, by_s: float) -> None:
    """Let this process's clock jump, as when a machine is woken up or corrected."""
    began, clock = time.monotonic(), time.time

    def jumped() -> float:
        return clock() + (by_s if time.monotonic() - began > after_s else 0.0)

    time.time = jumped


def _context(store: Any, home: Path, processes: int, every_s: float) -> Any:
    from flows.run.execute import ExecutionContext
    from nanochat.runtime import Runtime

    runtime = Runtime(threads=1, workers=1, processes=processes, restart_point_every_s=every_s)
    return ExecutionContext(store=store, scratch=home / "scratch", runtime=runtime)


def _display(say: _Log, kill_in_training_s: float | None, kill_at_report: list[Any] | None) -> Any:
    from rich.console import Console

    from flows.display.progress import Progress, StageProgress
    from flows.display.run_display import RunDisplay

    class Told(Progress):
        armed = False
        reports: ClassVar[Counter[str]] = Counter()

        def started(self, node: str) -> StageProgress:
            say("started", node)
            return super().started(node)

        def report(self, node: str, metrics: Mapping[str, float], step: int, total_steps: int) -> None:
            self.reports[node] += 1
            if kill_at_report == [node, self.reports[node]]:
                _kill()
            if kill_in_training_s is not None and node in _TRAINING and not self.armed:
                self.armed = True
                timer = threading.Timer(kill_in_training_s, _kill)
                timer.daemon = True
                timer.start()

        def finished(self, node: str, outcome: str) -> None:
            say("failed" if outcome.startswith("failed") else "finished", node)
            super().finished(node, outcome)

    return RunDisplay(progress=Told(Console(file=io.StringIO()), quiet=True))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    nurse()
