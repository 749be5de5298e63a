"""The verb `eval`: scores one model or two, and shows what became of single items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli import eval_tables, output
from flows.cli.model_options import ModelRef, Source, Step, Tag, choice_of
from flows.cli.options import AllowUnsafeCode, AsJson, Device, StoreUrl, open_store
from nanochat.errors import ConfigError
from nanochat.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.models.score import Examinee, Questions, Scores
    from flows.models.scored import Example
    from nanochat.formats.published import Choice

_SEVERAL = "repeatable"


def evaluate(
    ref: ModelRef,
    store: StoreUrl = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only these chat tasks, `core` or `val_bpb`; {_SEVERAL} (default: what its recipe asks)."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum problems per task.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="REF2", help="Ask another model the same, and compare item by item."),
    ] = None,
    show: Annotated[
        Literal["right", "wrong", "flips"] | None,
        typer.Option(
            help="Also print items of this kind with prompt and reply; flips are those of --compare."
        ),
    ] = None,
    show_items: Annotated[int, typer.Option(min=1, help="How many of them per task.")] = 3,
    recorded: Annotated[
        bool,
        typer.Option("--recorded", help="Read what the models' own evaluations found; no model is run."),
    ] = False,
    by_subject: Annotated[
        bool, typer.Option("--by-subject", help="Also a line for each subject of a task that has them: MMLU.")
    ] = False,
    harness: Annotated[
        Path | None,
        typer.Option(help="Also write REF, its tasks and results for lm-evaluation-harness: a new folder."),
    ] = None,
    device: Device = "cpu",
    source: Source = None,
    tag: Tag = None,
    step: Step = None,
    allow_unsafe_code: AllowUnsafeCode = False,
    as_json: AsJson = False,
) -> None:
    """Score a model, or compare two.

    Nothing is kept. A model of the store is asked the problems of its own recipe, a folder or an import
    those of the newest evaluation in the store.
    """
    if show == "flips" and not compare:
        raise ConfigError("--show flips shows where two models differ", hint="name the other: --compare REF2")
    from flows.models.import_export import refuse_used
    from flows.models.recorded import recorded_scores
    from flows.models.score import beside, find_examinee, questions
    from flows.models.scored import examples

    if harness:
        refuse_used(harness.expanduser())  # before hours of work
    _, opened = open_store(store)
    examinees = [find_examinee(opened, ref, choice_of(source, tag, step))]
    examinees += [beside(examinees[0], find_examinee(opened, compare))] if compare else []
    tasks = tuple(dict.fromkeys(task or ()))
    with questions(
        opened, examinees[0], tasks=tasks, limit=limit, allow_unsafe_code=allow_unsafe_code
    ) as asked:
        output.say(f"problems: {_named(asked)}")
        scores = (
            [recorded_scores(asked, examinee) for examinee in examinees]
            if recorded
            else _asked(asked, examinees, device)
        )
        shown = examples(asked, scores, show, show_items) if show else []
        if harness:
            _write_for_harness(harness.expanduser(), asked, scores[0], choice_of(source, tag, step))
    if as_json:
        output.show_json(_as_json(asked, scores, shown))
    else:
        _print(scores, shown, by_subject=by_subject)


def _asked(asked: Questions, examinees: Sequence[Examinee], device: str) -> list[Scores]:
    from flows.display.progress import Progress

    scores = []
    with Progress(output.stderr()) as progress:
        for examinee in examinees:
            line = f"eval {examinee.name}"
            runtime = Runtime(device=device, tracker=progress.started(line))
            scores.append(asked.score(examinee, runtime))
            progress.finished(line, "done")
    return scores


def _write_for_harness(folder: Path, asked: Questions, scores: Scores, choice: Choice) -> None:
    from flows.models.harness_folder import write_harness_folder

    done = write_harness_folder(folder, asked, scores, choice)
    output.say(f"for lm-evaluation-harness: {', '.join(done.tasks)}")
    if done.left_out:
        output.say(f"left out, since their answers are written: {', '.join(done.left_out)}")
    output.say(f"ask it with: {done.command}")


def _named(asked: Questions) -> str:
    return f"{asked.source.stage}/{asked.source.key[:12]}"


def _as_json(asked: Questions, scores: Sequence[Scores], shown: Sequence[Example]) -> dict[str, Any]:
    from flows.models.scored import comparison, comparison_json
    from nanochat.evals.intervals import LEVEL

    found: dict[str, Any] = {
        "problems": _named(asked),
        "level": LEVEL,
        "models": list(map(_scores_json, scores)),
    }
    if len(scores) > 1:
        found["comparison"] = comparison_json(*comparison(scores[0], scores[1]))
    return found | {"shown": [example.to_json() for example in shown]}


def _scores_json(scores: Scores) -> dict[str, Any]:
    from flows.models.scored import metric_lines, task_lines

    metrics = {
        name: {"value": value, **({"low": interval.low, "high": interval.high} if interval else {})}
        for name, (value, interval) in metric_lines(scores).items()
    }
    return {
        "model": scores.examinee.name,
        "tasks": {name: line.to_json() for name, line in task_lines(scores).items()},
        "metrics": metrics,
        "protocol": scores.results.get("protocol"),
    }


def _print(scores: Sequence[Scores], shown: Sequence[Example], *, by_subject: bool) -> None:
    from flows.models.scored import metric_lines, task_lines

    for one in scores:
        if len(scores) > 1:
            output.show(one.examinee.name)
        output.show(eval_tables.scores_table(task_lines(one), metric_lines(one), groups=by_subject))
        output.show("")
    if len(scores) > 1:
        _print_comparison(scores[0], scores[1])
    for example in shown:
        output.show(f"\n{eval_tables.example_text(example)}")


def _print_comparison(first: Scores, second: Scores) -> None:
    from flows.models.scored import comparison, metric_lines, task_lines

    tasks, metrics = comparison(first, second)
    lines = [task_lines(scores) for scores in (first, second)]
    values = {name: (lines[0][name].accuracy.value, lines[1][name].accuracy.value) for name in tasks}
    sums = [metric_lines(scores) for scores in (first, second)]
    values |= {name: (sums[0][name][0], sums[1][name][0]) for name in metrics}
    names = (first.examinee.name, second.examinee.name)
    output.show(eval_tables.comparison_table(names, values, tasks, metrics))
