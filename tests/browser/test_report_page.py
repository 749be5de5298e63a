"""Reports in Chromium: they fit, are readable in both themes, and their links open the record."""

from __future__ import annotations

import pytest
from axe_core_python.sync_playwright import Axe

from flows.report.difference_page import write_difference
from flows.report.run_difference import difference_of
from flows.report.run_page import write_report
from tests.support.recorded_runs import trained_run


@pytest.fixture
def opened(browser, tmp_path):
    """Return how to open a written page; at the end the browser may have complained of nothing."""
    contexts, said = [], []

    def open_page(path, width=1200, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def report(tmp_path):
    made = trained_run("a run with a long_name_that_does_not_fit_into_one_line_of_a_phone_" * 3)
    made.add("sft", {"samples.jsonl": [{"step": 1, "prompt": "x" * 300, "text": "y" * 300}]}, dollars=100.0)
    return write_report(made.run, tmp_path / "run.html")


def overflow(page):
    """Return by how many pixels a page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("width", [390, 1200])
def test_a_report_fits_the_width_of_the_screen(opened, report, width):
    page = opened(report, width)
    assert overflow(page) == 0
    for plot in page.locator("svg.plot").all():  # labels stand outside of a plot, never outside of the window
        boxes = plot.evaluate(
            "plot => [...plot.querySelectorAll('text')].map(text => text.getBoundingClientRect().toJSON())"
        )
        assert all(box["left"] >= 0 and box["right"] <= width for box in boxes)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_a_report(opened, report, theme):
    found = Axe().run(opened(report, theme=theme))["violations"]
    serious = [
        (v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_themes_differ_and_a_number_leads_to_its_record(opened, report):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(report), opened(report, theme="dark")
    assert light.evaluate(background) != dark.evaluate(background)
    record = light.locator("pre[id^=record-evaluate_sft]")
    assert not record.is_visible()
    light.get_by_role("link", name="37.50 %").click()
    record.wait_for(state="visible")
    assert '"stage": "evaluate_sft"' in record.inner_text()


@pytest.fixture
def difference(tmp_path):
    names = ("toy", "toy -o pretrain.optimizer.embedding_lr=0.30000001 -o pretrain.optimizer.matrix_lr=0.04")
    found = difference_of(names, trained_run().run, trained_run(better=0.1).run)
    return write_difference(found, tmp_path / "diff.html")


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1200, "light")])
def test_a_page_of_two_runs_fits_and_axe_finds_nothing_serious(opened, difference, width, theme):
    page = opened(difference, width, theme)
    assert overflow(page) == 0
    found = Axe().run(page)["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
