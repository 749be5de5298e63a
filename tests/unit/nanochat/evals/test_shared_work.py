"""Ranks share the work of an evaluation, and a run that ended early goes on with what is missing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nanochat.errors import DataError, Interrupted
from nanochat.evals.portions import EvaluationPart
from nanochat.evals.shared_work import make_all
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import FolderRestartPoints, NullTracker, Runtime
from tests.support.ranks import on_ranks

pytestmark = pytest.mark.xdist_group("ranks")


class Parts:
    """Two parts of five portions, which note what is made; ranks wait for each other twice: all make some."""

    def __init__(self, *, stop_after: int | None = None, fail: bool = False) -> None:
        self.made: list[tuple[str, int]] = []
        self.stop = threading.Event()
        self.stop_after, self.fail = stop_after, fail

    def all(self) -> list[EvaluationPart]:
        work = dict.fromkeys(range(10), 8_192.0)
        return [
            EvaluationPart(
                name="task", work=work, make=lambda items: self._make("task", items), baseline=0.5
            ),
            EvaluationPart(name="val_bpb", work=work, make=lambda items: self._make("val_bpb", items)),
        ]

    def _make(self, name: str, items: Any) -> Any:
        if len(self.made) < 4:
            RankGroup.current().gather(0.0)
        for item in items:
            self.made.append((name, item))
            if len(self.made) == self.stop_after:
                self.stop.set()
            if self.fail and len(self.made) == 3:
                raise DataError("an item is bad")
            yield {item: _answer(item) if name == "task" else [item / 7, item]}


def _answer(item: int) -> dict[str, Any]:
    lists = {"predictions": ["A"], "right": [item % 3 == 0], "loglikelihoods": [-item / 7], "replies": []}
    return {"item": item, "prompt_sha256": f"{item}", "gold": "A", "group": "", **lists}


ALL = {
    "task": {item: _answer(item) for item in range(10)},
    "val_bpb": {item: [item / 7, item] for item in range(10)},
}


class _Recorder(NullTracker):
    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        assert total_steps == 10
        if "eval/task" in metrics:
            self.steps.append((step, metrics["eval/task"]))
        else:  # bits per byte are not known before the end
            assert metrics == {"progress/val_bpb": step / 10}


def run(folder: Path, parts: Parts, *, every_s: float = 1e9, tracker: Any = None) -> Any:
    """Make all parts as a rank, with restart points in the folder."""
    runtime = Runtime(
        scratch=folder,
        restart_points=FolderRestartPoints(folder / "points"),
        restart_point_every_s=every_s,
        stop=parts.stop,
        tracker=tracker or NullTracker(),
    )
    return make_all(parts.all(), runtime, RankGroup.current())


def as_rank(folder: Path, stop_on: int | None = None, fail_on: int | None = None) -> Any:
    """Run as one of several ranks; return what was found, made, and reported."""
    world, recorder = RankGroup.current(), _Recorder()
    parts = Parts(stop_after=3 if world.rank == stop_on else None, fail=world.rank == fail_on)
    try:
        found = run(folder, parts, tracker=recorder)
    except Interrupted as error:
        found = str(error)
    return found, parts.made, recorder.steps


@pytest.mark.parametrize("size", [2, 3])
def test_each_portion_is_made_by_one_rank_and_rank_0_has_all(size: int, tmp_path: Path) -> None:
    by_rank = on_ranks(size, as_rank, tmp_path)
    assert by_rank[0][0] == ALL
    made = [item for _, items, _ in by_rank for item in items]
    assert sorted(made) == sorted((name, item) for name in ALL for item in range(10))
    assert all(items for _, items, _ in by_rank)
    assert by_rank[0][2][-1] == (10, 0.4)  # of all ranks
    assert all(not steps for _, _, steps in by_rank[1:])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop_on", [0, 1])
def test_a_stop_of_any_rank_stops_all_and_other_ranks_go_on_from_there(stop_on: int, tmp_path: Path) -> None:
    (message, made, _), (other_message, other_made, _) = on_ranks(2, as_rank, tmp_path, stop_on)
    assert message == other_message
    assert message.startswith("stopped after ") and "of 10 portions of the evaluation" in message
    finished = int(message.split()[2])
    assert message.endswith(f"; {finished} are kept") and 1 <= finished < 10
    parts = Parts()
    assert run(tmp_path, parts) == ALL
    assert len(parts.made) == 20 - 2 * finished
    assert len(parts.made) + len(made) + len(other_made) <= 22  # two portions were given up half made


def test_what_is_finished_is_kept_when_a_rank_has_failed_and_the_others_are_asked_to_stop(
    tmp_path: Path,
) -> None:
    lost, failed = on_ranks(2, as_rank, tmp_path, 0, 1)
    assert isinstance(failed, DataError) and isinstance(lost, RuntimeError)
    parts = Parts()
    assert run(tmp_path, parts) == ALL
    assert len(parts.made) < 20


def test_a_run_killed_after_any_item_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    for stop_after in (1, 2, 7, 20):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        parts = Parts()
        parts.all = lambda parts=parts, n=stop_after: [_until(part, n, parts) for part in Parts.all(parts)]
        with pytest.raises(KeyboardInterrupt):
            run(folder, parts, every_s=0.0)
        again = Parts()
        assert run(folder, again) == ALL
        assert len(again.made) == 20 - 2 * ((stop_after - 1) // 2)  # portions have two items


def _until(part: EvaluationPart, most: int, parts: Parts) -> EvaluationPart:
    """Return the part, which is killed as the item after `most` is to be made."""

    def make(items: Any) -> Any:
        for batch in part.make(items):
            if len(parts.made) == most:
                raise KeyboardInterrupt
            yield batch

    return EvaluationPart(name=part.name, work=part.work, make=make, baseline=part.baseline)


@pytest.mark.parametrize("damaged", ["items/task.parquet", "rows.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "other"])
def test_a_damaged_restart_point_is_a_miss(damaged: str, how: str, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, Parts(stop_after=17))
    [point] = (tmp_path / "points").iterdir()
    path = point / damaged
    data = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(data[: len(data) // 2] if how == "cut" else b"[]")
    parts = Parts()
    assert run(tmp_path, parts) == ALL
    assert {name for name, _ in parts.made} >= {"task" if "task" in damaged else "val_bpb"}
    assert len(parts.made) < 20


def test_a_stop_after_the_last_item_is_too_late(tmp_path: Path) -> None:
    assert run(tmp_path, Parts(stop_after=20)) == ALL


def test_a_stop_before_the_first_item_keeps_nothing(tmp_path: Path) -> None:
    parts = Parts()
    parts.stop.set()
    with pytest.raises(
        Interrupted, match="stopped after 0 of 10 portions of the evaluation; nothing is kept"
    ):
        run(tmp_path, parts)
    assert parts.made == []
