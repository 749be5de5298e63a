"""Which precision is the quick one for training on this machine's processor: one line for `plan` and `run`.

A recipe does not know its processor, so products are measured here, where that matters: a stage is still to
be trained in bfloat16, or for so long that the quicker precision saves minutes. Advice only: nothing of it is
part of a key.
"""

from __future__ import annotations

from collections.abc import Mapping

from flows.cli import output
from flows.plan import Plan
from flows.run.provenance import hardware
from flows.stages import TRAINED
from nanochat.config import MidtrainConfig, PretrainConfig, Recipe, SftConfig
from nanochat.model.flops import flops_per_token

_ALIKE = 1.2  # products are not all of a step, and the measurement is short
_LONG_FLOPS = 1e13  # some minutes on two cores; importing torch to measure takes seconds


def tell_precision(plan: Plan) -> None:
    """Print to stderr which precision is quicker here, as a warning where the plan has a slow bfloat16."""
    stages = to_train(plan)
    if not stages or not ("bfloat16" in stages.values() or _is_long(plan.recipe)):
        return
    from nanochat.model.product_speed import product_seconds  # torch is slow to load

    line, slow = advice(stages, product_seconds(plan.recipe.model.n_embd), hardware()["cpu"])
    if slow:
        output.warn([line])
    else:
        output.say(line)


def to_train(plan: Plan) -> dict[str, str]:
    """Return the precision of each stage that is still to be trained, by name."""
    found: dict[str, str] = {}
    for planned in plan.nodes:
        config = planned.node.config
        if planned.action != "hit" and planned.node.stage.name in TRAINED:
            assert isinstance(config, PretrainConfig | MidtrainConfig | SftConfig)
            found[planned.node.stage.name] = config.compute.precision
    return found


def advice(stages: Mapping[str, str], seconds: Mapping[str, float], processor: str) -> tuple[str, bool]:
    """Return the line to print, and whether a stage has bfloat16 where it is the slow one."""
    quick, slow = sorted(seconds, key=seconds.__getitem__)
    ratio = seconds[slow] / seconds[quick]
    if ratio < _ALIKE:
        return f"precision: float32 and bfloat16 products take about the same time here ({processor})", False
    line = f"precision: {quick} products are {ratio:.1f} times as fast as {slow} ones here ({processor})"
    using = [stage for stage, precision in stages.items() if precision == slow]
    if not using:
        return line, False
    options = " ".join(f"-o {stage}.compute.precision={quick}" for stage in using)
    return f"{line}; the quicker one, for a model of its own: {options}", slow == "bfloat16"


def _is_long(recipe: Recipe) -> bool:
    configs = [config for config in recipe.training.values() if isinstance(config, PretrainConfig)]
    flops = [(c.steps or 0) * c.batch_tokens * flops_per_token(c.model) for c in configs]
    return max(flops) > _LONG_FLOPS
