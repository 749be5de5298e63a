"""A law of garbage collection: whenever it runs, even without a grace period, running plans end well."""

from __future__ import annotations

import tempfile
import threading
import uuid
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli.output import stderr
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import make_plan
from flows.run.execute import ExecutionContext
from flows.run.session import begin
from flows.store import Record, Store, roots
from flows.store.gc import collect
from nanochat import recipes
from nanochat.runtime import Runtime
from tests.support.small_plans import Shape, planned_as
from tests.support.turns import Turns

RECIPE = recipes.find("toy")


@st.composite
def shapes(draw):
    count = draw(st.integers(2, 5))
    return Shape(
        tuple(tuple(sorted(draw(st.sets(st.integers(0, n - 1))))) if n else () for n in range(count))
    )


def values(shape):
    return st.lists(st.integers(0, 3), min_size=len(shape.inputs), max_size=len(shape.inputs))


def run(store: Store, scratch: Path) -> dict[str, Record]:
    """Plan and run what the recipe is at the moment."""
    plan = make_plan(RECIPE, store)
    context = ExecutionContext(store=store, scratch=scratch, runtime=Runtime(threads=1))
    with (
        Progress(stderr(), quiet=True) as progress,
        begin(plan, context, RunDisplay(progress=progress)) as session,
    ):
        for planned in plan.nodes:
            session.make(planned.node.id)
    return session.records


@settings(max_examples=25)
@given(st.data())
def test_a_plan_ends_with_the_same_digests_whenever_garbage_is_collected(data):
    shape = data.draw(shapes())
    earlier = data.draw(st.lists(values(shape), min_size=1, max_size=2), "values of earlier runs")
    now = data.draw(values(shape), "values of this run")
    turns = Turns(data.draw(st.lists(st.booleans(), max_size=150), "whether the turn passes"))
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(roots, "_LOOK_S", 0.0):
        url = f"memory://{uuid.uuid4().hex}"
        store = Store.open(url, cache=Path(folder, "cache"))
        for before in earlier:
            with planned_as(shape.nodes(before)):
                run(Store.open(url, cache=Path(folder, "another machine's")), Path(folder))
        for name in store.roots() if data.draw(st.booleans(), "earlier results may go") else ():
            store.drop_root(name)
        ended, made = threading.Event(), {}

        def work():
            try:
                made.update(run(store, Path(folder)))
            finally:
                ended.set()

        def collect_on():
            while not ended.is_set():
                collect(store, grace_s=0, without_roots=True)

        turns.gate(store.storage)
        with planned_as(shape.nodes(now)):
            turns.run(work, collect_on)
        collect(store, grace_s=0)
        assert {n: store.read_bytes(r.files[0]) for n, r in made.items()} == shape.contents(now)
        results = {ref for refs in store.roots().values() for ref in refs}
        assert results == store.find_many(results).keys() != set()
        assert not store.storage.listing("leases") and len(store.storage.listing("roots")) == 1
