"""The verbs `plan` and `why`: what a run would do; they run nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import output, plan_tables
from flows.cli.options import AsJson, Overrides, RecipeName, StoreUrl, Until, open_store
from flows.cli.precision import tell_precision
from nanochat import recipes
from nanochat.errors import ConfigError


def plan(
    recipe: RecipeName,
    override: Overrides = None,
    store: StoreUrl = None,
    until: Until = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Treat this stage as not cached; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what `run` would do, why, and what it would cost."""
    from flows.cli.cost_tables import PlanCosts
    from flows.plan import make_plan

    settings, opened = open_store(store)
    planned = make_plan(recipes.find(recipe, override or ()), opened, until=until, force=tuple(force or ()))
    price = settings.dollars_per_hour
    costs = PlanCosts.of(planned, price)
    if as_json:
        output.show_json({**plan_tables.plan_json(planned, price), "forecast": costs.to_json()})
        return
    output.show(plan_tables.plan_table(planned))
    for part in (*costs.shown(), *plan_tables.text_lines(planned)):
        output.show(part)
    output.say(plan_tables.plan_summary(planned, price))
    output.warn(planned.warnings)
    if costs.forecast.seconds is None:  # too small for the published machine: a recipe for this one
        tell_precision(planned)


def why(
    recipe: RecipeName,
    stage: Annotated[str, typer.Argument(help="A stage or node of the recipe.")],
    override: Overrides = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show field by field why a stage is cached, runs or waits."""
    from flows.plan import make_plan

    _, opened = open_store(store)
    planned = make_plan(recipes.find(recipe, override or ()), opened)
    chosen = [p for p in planned.nodes if stage in (p.node.id, p.node.stage.name)]
    if not chosen:
        names = dict.fromkeys(p.node.stage.name for p in planned.nodes)
        raise ConfigError(f"recipe {recipe!r} has no stage {stage!r}", hint=f"stages: {', '.join(names)}")
    if as_json:
        output.show_json([plan_tables.planned_json(p) for p in chosen])
        return
    for p in chosen:
        output.show(f"{p.node.id}: {plan_tables.WORDS[p.action]}: {p.reason}")
        for change in p.changes:
            output.show(f"  {change}")
