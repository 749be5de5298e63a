"""`python -m tests.campaign`: pipelines under fault after fault, for a time or a number of faults.

Each site is a fresh home with a store, on a small disk or on S3. One or two pipelines run on it while faults
from `tests.campaign.faults` strike; a pipeline that was ended is started again. When one has come to its end,
or the site has had its share of faults, it is left in peace for one more run, and must then be whole, clean
and equal to an undisturbed one. Prints a table; the exit status is 1 if anything was not as it must be. The
seed is printed and makes the same choices again, though not the same timing.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.store.verify import repair, verify
from tests.campaign.faults import CLOCK, FAULTS
from tests.campaign.site import Run, Site, site_on_disk, site_on_s3
from tests.campaign.verdict import Broken, judge_end, judge_peace, judge_records
from tests.e2e.crash_worker import Nursery
from tests.support.s3_server import S3Server, find_weed, running_server

_RUN_LIMIT_S = 300.0
_FAULTS_OF_A_SITE = 25
_COMMANDS, _RACES = 0.12, 0.3  # shares of the starts: the command line, two runs at once
_PAUSES_S = (0.1, 6.0)  # between two faults: some in a burst, some alone


@dataclass
class Campaign:
    """One campaign: what it may do, and what has happened so far."""

    rng: random.Random
    nurseries: tuple[Nursery, Nursery]
    references: Mapping[int, Mapping[str, str]]  # digests by the number of ranks, which round differently
    faults: int
    ends_at: float
    happened: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def over(self) -> bool:
        return self.happened.total() >= self.faults or time.monotonic() > self.ends_at

    def trouble(self, site: Site) -> None:
        """Disturb a site until a pipeline has ended on it, then leave it in peace and judge it."""
        before = self.happened.total()
        while not self.over and self.happened.total() - before < _FAULTS_OF_A_SITE:
            if "done" in self._disturbed_runs(site):
                break
        self._in_peace(site)

    def _disturbed_runs(self, site: Site) -> list[str]:
        runs = self._start(site)
        until = time.monotonic() + _RUN_LIMIT_S
        while any(run.running for run in runs):
            if time.monotonic() > until:
                raise Broken("a run does not end")
            time.sleep(math.exp(self.rng.uniform(*map(math.log, _PAUSES_S))))
            if not self.over:
                self._strike(site)
        ends = [judge_end(run, self.references[site.processes]) for run in runs]
        self.ended.update(ends)
        judge_records(site, self.references[site.processes])
        return ends

    def _start(self, site: Site) -> list[Run]:
        draw = self.rng.random()
        if draw < _COMMANDS:
            return [site.start_command()]
        racing = draw > 1 - _RACES
        self.ended["two pipelines at once"] += racing
        return [site.start(each, **self._settings()) for each in self.nurseries[: 1 + racing]]

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {}
        if self.rng.random() < 0.15:
            settings["clock_s"] = (self.rng.uniform(0, 5), self.rng.choice([-86400, -90, 45, 86400]))
            self._note(CLOCK, str(settings["clock_s"]))
        return settings

    def _strike(self, site: Site) -> None:
        names = list(FAULTS)
        name = self.rng.choices(names, [FAULTS[each][1] for each in names])[0]
        hit = FAULTS[name][0](site, self.rng)
        if hit is not None:
            self._note(name, hit)

    def _note(self, name: str, hit: str) -> None:
        self.happened[name] += 1
        print(f"{self.happened.total():4}  {name}: {hit}", file=sys.stderr, flush=True)

    def _in_peace(self, site: Site) -> None:
        damaged: set[str] = set()
        for _ in range(2):  # what is damaged, but of no use to the first run, is made again by the second
            run = site.start(self.nurseries[0], force=sorted(damaged))
            run.join(_RUN_LIMIT_S)
            if judge_end(run, self.references[site.processes]) != "done":
                raise Broken(f"an undisturbed run ended with {run.outcome}")
            judge_records(site, self.references[site.processes])
            store = site.store()
            for finding in verify(store):
                damaged |= {stage for stage, _ in finding.used_by}
                print(f"      {finding.name}: {repair(store, finding)}", file=sys.stderr)
        judge_peace(site)
        self.ended["sites in order"] += 1


def main() -> int:
    """Run the campaign that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="stop after so many faults")
    parser.add_argument("--minutes", type=float, default=20.0, help="stop after so many minutes")
    parser.add_argument("--seed", type=int, default=None, help="choices; default: another each time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
        nurseries = (stack.enter_context(Nursery()), stack.enter_context(Nursery()))
        campaign = Campaign(
            rng=random.Random(seed), nurseries=nurseries,
            references={number: _undisturbed(folder, nurseries[0], number) for number in (1, 2)},
            faults=options.faults, ends_at=started + 60 * options.minutes,
        )  # fmt: skip
        server = stack.enter_context(_s3(folder))
        broken = _run(campaign, folder, server)
    _report(campaign, seed, time.monotonic() - started)
    return 1 if broken else 0


def _run(campaign: Campaign, folder: Path, server: S3Server | None) -> bool:
    number = 0
    while not campaign.over:
        on_s3 = server is not None and number % 3 == 2
        number += 1
        with site_on_s3(folder, server) if on_s3 and server else site_on_disk(folder) as site:
            site.processes = campaign.rng.choice([1, 1, 2])
            print(f"site {number}, {site.processes} ranks: {site.url}", file=sys.stderr, flush=True)
            try:
                campaign.trouble(site)
            except Broken as error:
                print(f"BROKEN on site {number}: {error}", file=sys.stderr, flush=True)
                return True
    return False


def _undisturbed(folder: Path, nursery: Nursery, processes: int) -> Mapping[str, str]:
    with site_on_disk(folder) as site:
        site.processes = processes
        run = site.start(nursery)
        run.join(_RUN_LIMIT_S)
        if not run.outcome or "digests" not in run.outcome:
            raise Broken(f"an undisturbed run ended with {run.outcome}")
        digests: dict[str, str] = run.outcome["digests"]
        return digests


@contextmanager
def _s3(folder: Path) -> Iterator[S3Server | None]:
    weed = find_weed()
    if weed is None:
        print("no S3 server: the binary `weed` cannot run here", file=sys.stderr)
        yield None
        return
    (folder / "s3").mkdir()
    with running_server(weed, folder / "s3") as server:
        yield server


def _report(campaign: Campaign, seed: int, seconds: float) -> None:
    print(f"seed {seed}, {campaign.happened.total()} faults in {seconds / 60:.1f} minutes")
    for title, counts in (("faults", campaign.happened), ("runs and sites", campaign.ended)):
        print(f"\n{title}")
        for name, count in sorted(counts.items()):
            print(f"  {count:5}  {name}")


if __name__ == "__main__":
    sys.exit(main())
