"""One Chromium for all tests of the page; each has a profile and a scripted server, and is watched."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.scripted_server import ScriptedServer

# What Debian's Chromium needs in a container, and what keeps it from talking to anybody.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


# Of a module, not of the session: while it is open this thread has a running event loop, which other tests
# of the same process, of Prefect's calls for one, would take for their own.
@pytest.fixture(scope="module")
def browser():
    path = chromium()
    if path is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        expect.set_options(timeout=60_000)  # a busy machine is not a failure
        opened = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def server():
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


@dataclass
class Reader:
    """A person with a browser: opens pages of one profile, and notes what must not happen."""

    context: BrowserContext
    server: ScriptedServer
    wrong: list[str] = field(default_factory=list)

    def open(self, url: str = "") -> Page:
        """Return a new tab with the page."""
        page = self.context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}") or dialog.dismiss())
        page.goto(url or self.server.url)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        # The browser itself reports each answer that is an error, and each server that is gone.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.wrong.append(f"console: {message.text}")


@pytest.fixture
def make_reader(browser, server):
    """Return how to make a reader with some screen; at the end nothing wrong may have been noted."""
    readers = []

    def make(**screen):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **screen})
        reader = Reader(context, server)
        own = ("http://127.0.0.1:", "data:", "blob:")
        context.on(
            "request",
            lambda request: request.url.startswith(own) or reader.wrong.append(f"loaded {request.url}"),
        )
        readers.append(reader)
        return reader

    yield make
    for reader in readers:
        reader.context.close()
    assert [wrong for reader in readers for wrong in reader.wrong] == []


@pytest.fixture
def reader(make_reader):
    return make_reader()


@pytest.fixture
def page(reader):
    return reader.open()
