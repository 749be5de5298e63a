"""Pictures for the documents: `python -m tests.browser.screenshots MODEL REPORT`.

MODEL is a published folder, such as the one that `nanochat run toy` writes, REPORT a page of `nanochat
report`. Needs a Chromium and `nanochat serve`; writes `docs/images/{chat,report}-{light,dark,phone}.png`.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, chromium
from tests.support.serving import running_server

IMAGES = Path(__file__).parents[2] / "docs/images"
SCREENS: Mapping[str, Mapping[str, Any]] = {
    "light": {"viewport": {"width": 1120, "height": 560}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1120, "height": 560}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 560}, "device_scale_factor": 1.5},
}
QUESTIONS = ("Hello!", "What is 3 plus 4?")  # a conversation each
_COLOURS = 96  # of a palette: text stays sharp, and a picture is some tens of kilobytes
SECTIONS = {"light": "", "dark": "#training", "phone": "#benchmarks"}  # of the report, one in each picture
_HIGH = 760  # pixels of a report's picture


def main(model: Path, report: Path) -> None:
    """Take all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        running_server(model, home=Path(home)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        for name, screen in SCREENS.items():
            page = browser.new_context(**screen).new_page()
            page.goto(server.url)
            _talk(page)
            _save(page.screenshot(), IMAGES / f"chat-{name}.png")
            size = {"width": screen["viewport"]["width"], "height": _HIGH}
            page = browser.new_context(**{**screen, "viewport": size}).new_page()
            page.goto(report.absolute().as_uri() + SECTIONS[name])
            _save(page.screenshot(), IMAGES / f"report-{name}.png")
        browser.close()


def _talk(page: Page) -> None:
    page.get_by_role("button", name="Settings").or_(page.get_by_role("button", name="Menu")).first.wait_for()
    # The likeliest answers, so that pictures differ only where the page does.
    page.evaluate("""localStorage.setItem("nanochat.settings", JSON.stringify({temperature: 0}))""")
    page.reload()
    for question in QUESTIONS:
        page.keyboard.press("Control+Shift+O")
        page.get_by_role("textbox", name="Message").fill(question)
        page.keyboard.press("Enter")
        expect(page.get_by_role("article", name="You")).to_have_text(question)
        page.get_by_role("button", name="Send").wait_for()
    page.get_by_role("group").locator("summary").click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)


def _save(picture: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(picture)) as whole:
        small = whole.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
