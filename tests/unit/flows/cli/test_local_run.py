"""What `nanochat run` does around the flow: here, about damage in what it shows."""

from __future__ import annotations

from pathlib import Path

from flows.cli import local_run
from flows.cli.local_run import RunOptions, RunResult, run_and_read
from flows.cli.output import stderr
from flows.display.run_display import RunDisplay
from flows.plan import Plan, make_plan
from flows.run.execute import ExecutionContext
from flows.run.session import begin
from flows.settings import Settings
from flows.store import Store
from flows.store.records import blob_name
from nanochat import recipes
from nanochat.runtime import Runtime
from tests.support.stand_ins import with_stand_in_stages


def _without_prefect(
    plan: Plan, store: Store, settings: Settings, options: RunOptions, progress
) -> RunResult:
    context = ExecutionContext(store=store, scratch=settings.scratch, runtime=Runtime())
    with begin(plan, context, RunDisplay(progress=progress), force=options.force) as session:
        for planned in session.plan.nodes:
            session.make(planned.node.id)
    return RunResult(session.records, tuple(session.executed))


def test_a_damaged_model_that_everything_was_made_from_is_made_again_before_it_is_shown(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(local_run, "_run_flow", _without_prefect)
    settings = Settings.from_environment({"NANOCHAT_HOME": str(tmp_path)})
    store = Store.open(settings.store_url, cache=settings.cache)

    def run() -> tuple[RunResult, Path | None]:
        plan = make_plan(recipes.find("toy"), store)
        options = RunOptions(runtime={})
        done, folder, _ = run_and_read(plan, store, settings, options, stderr(), tmp_path / "models")
        return done, folder

    with with_stand_in_stages():
        first, folder = run()
        model = (folder / "result.bin").read_bytes()
        path = Path(store.url, blob_name(first.records["publish"].files[0].sha256))
        path.chmod(0o644)
        path.write_bytes(bytes(len(model)))
        second, folder = run()
    assert first.executed and second.executed == ("publish",)
    assert second.records == first.records
    assert (folder / "result.bin").read_bytes() == model
    assert "it is made again" in capsys.readouterr().err
