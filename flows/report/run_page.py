"""The report of a run: what it is and cost, its curves, scores, samples and data, and all its records."""

from __future__ import annotations

from pathlib import Path

from flows.report import run_facts
from flows.report.page_file import write_page
from flows.report.record_links import listed_by_stage
from flows.report.recorded_run import RecordedRun
from flows.report.run_samples import samples_of
from flows.report.score_bars import STYLES, score_groups, score_table
from flows.report.training_charts import charts_of, curves_of
from nanochat.publish.published_scores import published_scores


def write_report(run: RecordedRun, target: Path) -> Path:
    """Write the report of a run to `target`; return it.

    Raises ConfigError where `target` is something else than an earlier report.
    """
    results, curves = run.results(), curves_of(run)
    links = run_facts.links_of_models(run)
    published = published_scores(record.to_json() for record in run.records.values())
    samples = samples_of(run, curves)
    return write_page(
        "run.html.j2",
        target,
        name=run.name,
        problems=run.problems,
        absent=run_facts.absent(run),
        description=run_facts.description(run),
        figures=run_facts.figures(run, results),
        costs=run_facts.stage_costs(run),
        priced=any(r.provenance.get("dollars") is not None for r in run.records.values()),
        charts=charts_of(run, curves),
        training=run_facts.training_table(run),
        models=[(model, style, links[model]) for model, style in zip(results, STYLES, strict=False)],
        groups=score_groups(results, published),
        scores=score_table(results, links, published),
        published=published,
        samples=samples,
        texts=run_facts.text_rows(run),
        conversations=run_facts.conversation_table(run),
        notes=run_facts.notes(run),
        records=listed_by_stage(run.records),
    )
