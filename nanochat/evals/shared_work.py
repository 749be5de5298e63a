"""The portions of an evaluation, made by all ranks together, and kept while it runs.

Each rank takes the next portion that nobody has taken and leaves what it made of it in a folder that all
ranks of the machine see; rank 0 reads it there, reports progress and keeps restart points. A run that was
killed goes on with the portions that the newest restart point does not have, on any number of ranks: what is
made of a portion depends neither on who makes it nor on when.

What the rows say is the business of the parts (`nanochat.evals.parts`).
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.errors import Interrupted
from nanochat.evals.kept_rows import Found, read_rows, write_rows
from nanochat.evals.portions import EvaluationPart, Portion, Row, longest_first
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime

logger = logging.getLogger(__name__)
_LOOK_S = 0.1  # how often rank 0 looks for what other ranks have made when it has nothing to make
_REPORT_S = 1.0


def make_all(parts: Sequence[EvaluationPart], runtime: Runtime, world: RankGroup) -> Found:
    """Return the rows of all parts; on other ranks than 0, where only a part of them is known, none.

    All ranks call this together. Raises `Interrupted` where any was asked to stop before all was made.
    """
    with _shared_folder(runtime, world) as folder:
        work = _Work(parts, runtime, world, _Desk(folder))
        work.begin()
        made = work.make()
        if world.main and not made:
            work.keep()  # before the others are waited for: one that is gone may be why this run ends
        complete = world.gather(float(made))[0][0]
        if not complete:
            raise Interrupted(world.from_main(work.ended_early() if world.main else ""))
        return work.found


@dataclass(frozen=True)
class _Desk:
    """The folder in which ranks take portions and leave rows, by the number of the portion."""

    folder: Path

    def take(self, number: int) -> bool:
        """Return whether the portion is now this rank's to make, as nobody has taken it before."""
        try:
            (self.folder / f"{number}.taken").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def leave(self, number: int, rows: Mapping[int, Row]) -> None:
        """Leave the rows of a portion for rank 0."""
        part = self.folder / f"{number}.part"
        part.write_text(json.dumps(list(rows.items())), encoding="utf-8")
        part.rename(part.with_suffix(".rows"))

    def collect(self) -> Iterator[tuple[int, dict[int, Row]]]:
        """Yield the portions that were left, once each."""
        for path in sorted(self.folder.glob("*.rows")):
            yield int(path.stem), dict(json.loads(path.read_text(encoding="utf-8")))
            path.unlink()

    def stop(self) -> None:
        """Ask all ranks to stop."""
        (self.folder / "stop").touch()

    def stopped(self) -> bool:
        """Return whether the ranks were asked to stop."""
        return (self.folder / "stop").exists()


@dataclass
class _Tally:
    """What is known of a part while it is made."""

    items: int
    done: int = 0
    right: float = 0.0


@dataclass
class _Work:
    parts: Sequence[EvaluationPart]
    runtime: Runtime
    world: RankGroup
    desk: _Desk
    found: Found = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.portions = longest_first(self.parts)
        self.by_name = {part.name: part for part in self.parts}
        self.tallies = {part.name: _Tally(len(part.work)) for part in self.parts}
        self.missing: set[int] = set()  # portions that rank 0 waits for; only it has any
        self._kept = self._finished = 0  # portions: in the newest restart point, and found so far
        self._kept_at = self._collected_at = time.monotonic()

    def begin(self) -> None:
        """Take over what a restart point has, before any rank takes a portion."""
        self.found = {part.name: {} for part in self.parts}
        if self.world.main:
            self._restore()
        self.world.gather(0.0)  # the others wait for it

    def make(self) -> bool:
        """Make portions until there are none left; return whether all were made."""
        for number, portion in enumerate(self.portions):
            if self._asked_to_stop():
                return False
            if self.desk.take(number) and not self._make(number, portion):
                return False
        self._collect()
        while self.missing:  # others are at work on these
            if self._asked_to_stop():
                return False
            self._look_around()
            time.sleep(_LOOK_S)
            self._collect()
        return True

    def keep(self) -> None:
        """Keep a restart point, unless the newest has all that is finished."""
        self._collect()
        if self._finished > self._kept:
            with tempfile.TemporaryDirectory(prefix="nanochat-restart-", dir=self.runtime.scratch) as name:
                write_rows(Path(name), self.parts, self.found)
                self.runtime.restart_points.save(self._finished, Path(name))
            self._kept = self._finished
        self._kept_at = time.monotonic()

    def ended_early(self) -> str:
        """Keep what there is; return what to say of it. Rank 0 only."""
        self.keep()
        kept = self._kept if self.runtime.restart_points.latest() else 0
        what = f"{kept} are kept" if kept else "nothing is kept"
        return f"stopped after {self._finished} of {len(self.portions)} portions of the evaluation; {what}"

    def _make(self, number: int, portion: Portion) -> bool:
        """Make one portion; return False if it was given up, as the run is to stop."""
        part = self.by_name[portion.part]
        rows: dict[int, Row] = {}
        for batch in part.make(portion.items):
            rows.update(batch)
            if self.world.main:
                self._count(part, batch)
                self._look_around()
            if len(rows) < len(portion.items) and self._asked_to_stop():
                return False
        if self.world.main:
            self._take_over(number, portion, rows)
            self._look_around()
        else:
            self.desk.leave(number, rows)
        return True

    def _asked_to_stop(self) -> bool:
        if self.runtime.stop.is_set():
            self.desk.stop()
        return self.desk.stopped()

    def _look_around(self) -> None:
        """Take over what others have made, and keep it, now and then."""
        if time.monotonic() - self._collected_at >= _REPORT_S:
            self._collect()
        if time.monotonic() - self._kept_at >= self.runtime.restart_point_every_s:
            self.keep()

    def _collect(self) -> None:
        """Take over what other ranks have made, on rank 0."""
        if not self.world.main:
            return
        self._collected_at = time.monotonic()
        for number, rows in self.desk.collect():
            portion = self.portions[number]
            self._count(self.by_name[portion.part], rows)
            self._take_over(number, portion, rows)

    def _take_over(self, number: int, portion: Portion, rows: Mapping[int, Row]) -> None:
        self.found[portion.part].update(rows)
        self.missing.discard(number)
        self._finished += 1

    def _count(self, part: EvaluationPart, rows: Mapping[int, Row]) -> None:
        """Report how far a part is."""
        tally = self.tallies[part.name]
        tally.done += len(rows)
        if part.baseline is not None and rows:
            tally.right += sum(sum(row["right"]) / len(row["right"]) for row in rows.values())
            accuracy = tally.right / tally.done
            self._report({f"eval/{part.name}": accuracy}, tally)
        elif rows:
            self._report({f"progress/{part.name}": tally.done / tally.items}, tally)

    def _report(self, metrics: Mapping[str, float], tally: _Tally) -> None:
        self.runtime.tracker.log(metrics, step=tally.done, total_steps=tally.items)

    def _restore(self) -> None:
        """Take over the portions that the newest restart point has all rows of."""
        latest = self.runtime.restart_points.latest()
        kept = read_rows(latest[1], self.parts) if latest else {}
        for number, portion in enumerate(self.portions):
            rows = kept.get(portion.part, {})
            if rows.keys() >= set(portion.items):
                self.desk.take(number)
                rows = {item: rows[item] for item in portion.items}
                self._count(self.by_name[portion.part], rows)
                self._take_over(number, portion, rows)
            else:
                self.missing.add(number)
        self._kept = self._finished
        if latest:
            text = f"continuing after {self._finished} of {len(self.portions)} portions"
            self.runtime.tracker.log_text(text, step=self._finished)


@contextmanager
def _shared_folder(runtime: Runtime, world: RankGroup) -> Iterator[Path]:
    """Give a folder of rank 0's to all ranks while the block runs."""
    if not world.main:
        yield Path(world.from_main(""))
        return
    with tempfile.TemporaryDirectory(prefix="nanochat-portions-", dir=runtime.scratch) as name:
        yield Path(world.from_main(name))
