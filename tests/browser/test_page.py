"""The chat page in Chromium, as a person uses it: by the names of what is on it."""

from __future__ import annotations

import json
import re

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import expect

from nanochat.serve.serve_settings import ServeSettings
from tests.support.scripted_server import CONTEXT_TOKENS, KEY, BreakOff, Hold, Refusal
from tests.support.serving import SUM, server_here, tiny_engine

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("browser")]

CALCULATION = ({"index": 0, "expression": "3+4"}, {"index": 0, "result": "7"})
ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><iframe src=//example.com></iframe>",
    "[a](javascript:alert(1)) [b](JaVaScRiPt&#58;alert(1)) [c](\tjava\nscript:alert(1))",
    "[d](data:text/html,hi)",
    "![picture](https://example.com/pixel.png)",
    '<a href="javascript:alert(1)">x</a> <style>*{display:none}</style> <form action=//example.com>',
    "```html\n</code></pre><script>alert(1)</script>\n```",
    "`</code><script>alert(1)</script>`",
    "| a | b |\n|---|---|\n| <b onmouseover=alert(1)>c</b> | [d](vbscript:x) |",
)
FOUND = """() => {
    const dangerous = 'script, img, iframe, style, object, embed, form:not(#composer), base, meta, link';
    const handled = (node) => [...node.attributes].some(({name}) => /^on/i.test(name));
    return {
        nodes: document.querySelectorAll(`main :is(${dangerous})`).length,
        handlers: [...document.querySelectorAll('*')].filter(handled).length,
        links: [...document.querySelectorAll('main a')].map(({href, rel}) => [href, rel]),
    };
}"""


def _send(page, text):
    page.get_by_role("textbox", name="Message").fill(text)
    page.get_by_role("button", name="Send").click()


def _articles(page, name):
    return page.get_by_role("log").get_by_role("article", name=name)


def _end(located):
    box = located.bounding_box()
    return box["x"] + box["width"]


def _answered(page, count=1):
    """Wait until so far `count` answers are whole."""
    expect(_articles(page, "Model")).to_have_count(count)
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_an_answer_streams_stops_and_is_kept_over_a_reload(page, server):
    expect(page.get_by_role("log")).to_be_hidden()
    examples = page.locator("#empty").get_by_role("button")
    assert examples.count() >= 3
    hold = Hold()
    server.will("one ", *CALCULATION, "**two**", hold, " three")
    page.get_by_role("textbox", name="Message").fill("count")
    page.keyboard.press("Enter")
    answer = _articles(page, "Model")
    expect(answer.get_by_text("two")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(answer.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    details = answer.get_by_role("group")
    expect(details.get_by_text("Calculator: 3+4 = 7")).to_be_visible()
    assert details.get_attribute("open") is None

    page.reload()
    expect(_articles(page, "Model").get_by_text("two")).to_be_visible()
    server.will("done")
    _send(page, "go on")
    _answered(page, 2)
    expect(page.get_by_role("status")).to_contain_text(f"of {CONTEXT_TOKENS}")
    parts = [("text", "one "), ("python", "3+4"), ("python_output", "7"), ("text", "**two**")]
    assert server.asked[1]["messages"] == [
        {"role": "user", "content": "count"},
        {"role": "assistant", "content": [{"type": kind, "text": text} for kind, text in parts]},
        {"role": "user", "content": "go on"},
    ]


def test_edits_and_further_answers_are_branches(page, server):
    server.will("first")
    _send(page, "question")
    _answered(page)
    for wording in ("second", "third"):
        server.will(wording)
        _articles(page, "Model").hover()
        _articles(page, "Model").get_by_role("button", name="Regenerate").click()
        expect(_articles(page, "Model").get_by_text(wording)).to_be_visible()
        _answered(page)
    answer = _articles(page, "Model")
    expect(answer.get_by_text("3/3")).to_be_visible()
    answer.get_by_role("button", name="Previous version").click()
    expect(answer.get_by_text("second")).to_be_visible()
    expect(answer.get_by_text("2/3")).to_be_visible()
    assert [asked["messages"] for asked in server.asked] == [[{"role": "user", "content": "question"}]] * 3

    _articles(page, "You").hover()
    _articles(page, "You").get_by_role("button", name="Edit").click()
    server.will("fourth")
    _send(page, "other question")
    expect(_articles(page, "You").get_by_text("2/2")).to_be_visible()
    _answered(page)
    _articles(page, "You").get_by_role("button", name="Previous version").click()
    expect(
        _articles(page, "Model").get_by_text("second")
    ).to_be_visible()  # the version that was chosen there


def test_conversations_are_renamed_exported_and_deleted_with_a_way_back(page, server):
    server.will("hi ", *CALCULATION)
    _send(page, "**hello** <b>there</b>")
    _answered(page)
    navigation = page.get_by_role("navigation", name="Conversations")
    navigation.get_by_role("button", name="Rename").click()
    title = "Mine & <i>yours</i> " + "and so on " * 9
    page.keyboard.type(title)
    page.keyboard.press("Enter")
    expect(navigation.get_by_role("button", name=title, exact=True)).to_be_visible()
    item, delete = navigation.get_by_role("listitem"), navigation.get_by_role("button", name="Delete")
    assert _end(delete) <= _end(item) <= _end(navigation)  # however long the title is

    navigation.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        navigation.get_by_role("button", name="JSON").click()
    content = [{"type": "text", "text": "hi "}, {"type": "python", "text": "3+4"}]
    assert json.loads(download.value.path().read_text())["messages"] == [
        {"role": "user", "content": "**hello** <b>there</b>"},
        {"role": "assistant", "content": [*content, {"type": "python_output", "text": "7"}]},
    ]
    navigation.get_by_role("button", name="New conversation").click()
    _send(page, "second")
    _answered(page)
    expect(navigation.get_by_role("listitem")).to_have_count(2)
    navigation.get_by_role("button", name="second", exact=True).click()
    navigation.get_by_role("listitem").first.get_by_role("button", name="Delete").click()
    expect(navigation.get_by_role("listitem")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(navigation.get_by_role("listitem")).to_have_count(2)
    assert page.locator("nav i, nav b, article i:not(.dots i), article b").count() == 0


def test_two_tabs_share_conversations_and_lose_nothing(reader, server):
    first, second = reader.open(), reader.open()
    _send(first, "from the first")
    _answered(first)
    title = second.get_by_role("navigation").get_by_role("button", name="from the first", exact=True)
    title.click()
    expect(_articles(second, "Model")).to_have_count(1)
    hold = Hold()
    server.will("slow", hold)
    _send(first, "again from the first")
    assert hold.reached.wait(60)
    server.will("quick")
    _articles(second, "You").first.hover()
    _articles(second, "You").first.get_by_role("button", name="Edit").click()
    _send(second, "otherwise")
    expect(_articles(second, "Model").get_by_text("quick")).to_be_visible()
    hold.go_on.set()
    _answered(first, 2)
    for tab in (first, second):
        tab.reload()
    second.get_by_role("navigation").get_by_role("button", name="from the first", exact=True).click()
    stored = second.evaluate(
        "Object.values(localStorage).map(text => JSON.parse(text)).find(c => c.messages)"
    )
    texts = {m.get("text") or "".join(p["text"] for p in m["parts"]) for m in stored["messages"].values()}
    assert texts == {"from the first", "ok", "again from the first", "slow", "otherwise", "quick"}


def test_what_is_being_written_survives_another_tab_and_what_is_deleted_is_no_longer_edited(reader, server):
    first = reader.open()
    navigation = first.get_by_role("navigation", name="Conversations")
    for title in ("older", "newer"):
        navigation.get_by_role("button", name="New conversation").click()
        _send(first, title)
        _answered(first)
    second = reader.open()
    first.bring_to_front()  # a click waits for a tab that is drawn: the other one's go without
    elsewhere = second.get_by_role("navigation", name="Conversations")

    navigation.get_by_role("button", name="Rename").last.click()  # older
    first.keyboard.type("half a ")
    elsewhere.get_by_role("button", name="older", exact=True).dispatch_event("click")
    second.get_by_role("textbox", name="Message").fill("which makes it the first of the list")
    second.keyboard.press("Enter")
    _answered(second, 2)
    expect(navigation.locator("li").first.get_by_role("textbox", name="Title")).to_be_focused()
    first.keyboard.type("title")
    first.keyboard.press("Enter")
    expect(elsewhere.get_by_role("button", name="half a title", exact=True)).to_be_visible()

    navigation.get_by_role("button", name="Rename").first.click()
    elsewhere.get_by_role("button", name="Rename").first.dispatch_event("click")
    second.keyboard.type("theirs")
    second.keyboard.press("Enter")
    first.keyboard.press("Enter")  # nothing was changed here
    expect(navigation.get_by_role("button", name="theirs", exact=True)).to_be_visible()

    for deleted_in in (elsewhere, navigation):
        navigation.locator("li .title").first.click()
        _articles(first, "You").first.get_by_role("button", name="Edit").click()
        deleted_in.get_by_role("button", name="Delete").first.dispatch_event("click")
        expect(_articles(first, "You")).to_have_count(0)
        expect(first.get_by_text("Editing:")).to_be_hidden()
        expect(first.get_by_role("textbox", name="Message")).to_have_value("")

    hold = Hold()
    server.will(hold)
    _send(first, "nobody will read it")
    assert hold.reached.wait(60)
    navigation.get_by_role("button", name="New conversation").click()
    elsewhere.get_by_role("button", name="Delete").first.dispatch_event("click")
    assert hold.left.wait(60)  # the server writes no answer of a conversation that is gone


def test_settings_reach_the_request_and_outlive_a_reload(page, server):
    fields = {"Temperature": "0.5", "Top-p": "0.9", "Top-k": "7", "Longest answer": "33", "Seed": "12"}
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name="Settings")
    for label, value in {**fields, "System prompt": "Be brief."}.items():
        dialog.get_by_label(label).fill(value)
    dialog.get_by_label("Temperature").fill("99")  # refused: what was right is kept
    expect(dialog.get_by_label("Temperature")).to_have_attribute("aria-invalid", "true")
    dialog.get_by_role("button", name="Close").click()
    page.reload()
    _send(page, "hi")
    _answered(page)
    body = server.asked[0]
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_tokens": 33, "seed": 12, "stream": True}
    assert {name: body[name] for name in wanted} == wanted
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def test_what_the_model_writes_never_becomes_markup(page, server):
    asked = ({"index": 0, "expression": ATTACKS[0]}, {"index": 0, "result": ATTACKS[1]})
    server.will(*(f"{attack}\n\n" for attack in ATTACKS), "[good](https://example.com/)", *asked)
    _send(page, ATTACKS[1])
    _answered(page)
    server.will_refuse(Refusal(400, ATTACKS[1]))
    _send(page, ATTACKS[0])
    expect(page.get_by_role("alert")).to_contain_text("<img src=x")
    found = page.evaluate(FOUND)
    assert (found["nodes"], found["handlers"]) == (0, 0)
    assert [link[0] for link in found["links"]] == ["https://example.com/pixel.png", "https://example.com/"]
    assert all("noopener" in link[1] for link in found["links"])
    expect(_articles(page, "Model").first).to_contain_text("<script>alert(1)</script>")


def test_a_link_says_where_it_leads_unless_its_text_begins_with_that(page, server):
    links = {
        "[https://paypal.com/?evil.com](https://evil.com/)": " (evil.com)",
        "https://paypal.com@evil.com/": " (evil.com)",
        "[evil.com.paypal.com](https://evil.com)": " (evil.com)",
        "[now](https://a.b:81/c)": " (a.b:81)",
        "[mail](mailto:a@b.c)": " (a@b.c)",
        "[A.B/c](https://a.b/c) https://a.b?c <mailto:a@b.c>": "",
    }
    server.will(*(f"{link}\n\n" for link in links))
    _send(page, "links")
    _answered(page)
    shown = "nodes => nodes.map(p => [...p.querySelectorAll('.target')].map(t => t.textContent).join(''))"
    assert _articles(page, "Model").locator("p:has(a)").evaluate_all(shown) == list(links.values())


def test_markdown_and_code_are_shown_and_copied(reader, server):
    reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = reader.open()
    server.will(
        "# Head\n\n1. one\n2. two\n\n> quote\n\n*em* `code`\n\n```python\ndef f(x):\n",
        "    return 'a'\n```\n",
    )
    _send(page, "write code")
    _answered(page)
    answer = _articles(page, "Model")
    expect(answer.get_by_role("heading", name="Head")).to_be_visible()
    expect(answer.get_by_role("listitem")).to_have_count(2)
    answer.get_by_role("button", name="Copy code").click()
    code = "def f(x):\n    return 'a'"
    assert page.evaluate("navigator.clipboard.readText()").rstrip("\n") == code
    assert answer.locator("pre span").count() >= 3  # highlighted


def test_each_text_has_its_own_direction(page, server):
    server.will("שלום **עולם**\n\n- פריט\n\n> שורה\n\nEnglish")
    _send(page, "hello")
    _answered(page)
    directions = "nodes => nodes.map(node => getComputedStyle(node).direction)"
    answer = _articles(page, "Model")
    assert answer.locator("ul, blockquote").evaluate_all(directions) == ["rtl", "rtl"]  # bullet and bar
    ends = answer.locator(".text > p").evaluate_all("""nodes => nodes.map(node => {
        const range = document.createRange();
        range.selectNodeContents(node);
        return range.getBoundingClientRect().left - node.getBoundingClientRect().left;
    })""")
    assert ends[0] > 100 and ends[1] < 1


def test_a_long_answer_is_drawn_once(page, server):
    server.will(*(f"word{i} " + ("\n\n" if i % 40 == 39 else "") for i in range(4000)))
    page.evaluate("""() => {
        window.changed = 0;
        new MutationObserver(found => { for (const m of found) window.changed += 1 + m.addedNodes.length; })
            .observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true});
    }""")
    _send(page, "much")
    expect(_articles(page, "Model").get_by_text("word3999")).to_be_attached(timeout=120_000)
    _answered(page)
    assert page.evaluate("window.changed") < 3 * 4000  # drawing it anew with each token would be millions


def test_the_server_goes_and_comes_back(page, server):
    server.will("half of it", BreakOff())
    _send(page, "question")
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    expect(_articles(page, "Model").get_by_text("half of it")).to_be_visible()
    server.stop()
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("does not answer")
    server.start()
    expect(alert).not_to_contain_text("does not answer", timeout=60_000)  # it looks for it by itself
    server.will("here again")
    alert.get_by_role("button", name="Try again").click()
    expect(_articles(page, "Model").get_by_text("here again")).to_be_visible()
    expect(alert).to_be_hidden()


def test_refusals_say_what_can_be_done(page, server):
    alert = page.get_by_role("alert")
    for count, question in enumerate(("one", "two", "three"), 1):
        _send(page, question)
        _answered(page, count)
    server.will_refuse(Refusal(429, "full", headers={"Retry-After": "7"}))
    _send(page, "four")
    expect(alert).to_contain_text("7 s")
    server.will_refuse(Refusal(400, "too long", "context_length_exceeded"))
    alert.get_by_role("button", name="Try again").click()
    server.will("shorter")
    alert.get_by_role("button", name=re.compile("Try again without the oldest")).click()
    expect(_articles(page, "Model").get_by_text("shorter")).to_be_visible()
    whole, less = server.asked[-2]["messages"], server.asked[-1]["messages"]
    assert len(less) < len(whole) and less == whole[-len(less) :] and less[0]["role"] == "user"

    server.needs_key = True
    _send(page, "five")
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key").fill(KEY)
    dialog.get_by_role("button", name="Use this key").click()
    _answered(page, 5)
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")


def test_a_key_that_is_given_only_with_the_first_message_lets_the_page_know_the_model(reader, server):
    server.needs_key = True
    page = reader.open()
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_role("button", name="Cancel").click()
    _send(page, "hi")
    dialog.get_by_label("Key").fill(KEY)
    dialog.get_by_role("button", name="Use this key").click()
    _answered(page)
    expect(page.get_by_role("status")).to_contain_text(f"of {CONTEXT_TOKENS}")


def test_a_phone_shows_everything_in_its_width(make_reader, server):
    page = make_reader(viewport={"width": 390, "height": 844}, has_touch=True).open()
    wide = (
        "```\n"
        + "x" * 300
        + "\n```\n\n"
        + "y" * 200
        + "\n\n|"
        + " column |" * 12
        + "\n|"
        + "---|" * 12
        + "\n"
    )
    server.will(wide, *CALCULATION)
    _send(page, "z" * 200)
    _answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Menu").click()
    navigation = page.get_by_role("navigation", name="Conversations")
    expect(navigation.get_by_role("button", name="New conversation")).to_be_visible()
    page.keyboard.press("Escape")
    expect(navigation.get_by_role("button", name="New conversation")).not_to_be_in_viewport()


def test_the_keyboard_is_enough(page, server):
    skip = page.get_by_role("link", name="Skip to the message field")
    assert skip.evaluate("link => link === document.querySelector('a, button, input, textarea, summary')")
    skip.focus()
    page.keyboard.press("Enter")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    hold = Hold()
    server.will("slow", hold)
    page.keyboard.press("Enter")
    expect(_articles(page, "Model").get_by_text("slow")).to_be_visible()
    page.keyboard.press("Escape")
    expect(_articles(page, "Model").get_by_text("Stopped.")).to_be_visible()
    assert server.asked[0]["messages"][0]["content"] == "one\ntwo"
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("one\ntwo")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    expect(_articles(page, "Model")).to_have_count(0)


def test_the_other_theme_is_kept_until_it_is_the_systems_again(page):
    colours = []
    for _ in range(3):
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == colours[-1]
        page.get_by_role("button", name="Theme").click()
    assert colours[0] == colours[2] != colours[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(make_reader, server, theme):
    page = make_reader(color_scheme=theme).open()
    axe = Axe()

    def check(state):
        page.wait_for_timeout(400)  # colours of a transition are none of either theme
        found = axe.run(page)["violations"]
        serious = [
            (v["id"], [n["html"][:120] for n in v["nodes"]])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], (state, theme)

    check("empty")
    server.will(
        "# Head\n\n`code` [link](https://example.com/)\n\n```python\nx = 'a'  # why\n```\n\n> quote\n",
        *CALCULATION,
    )
    _send(page, "hello")
    _answered(page)
    check("conversation")
    server.will_refuse(Refusal(400, "no"))
    _send(page, "hello")
    expect(page.get_by_role("alert")).to_be_visible()
    check("error")
    page.get_by_role("button", name="Settings").click()
    check("settings")


def test_the_page_talks_with_the_real_server(make_reader):
    with server_here(ServeSettings(), lambda: tiny_engine(SUM)) as (url, _):
        page = make_reader().open(url)
        for count in (1, 2):  # the second turn sends the calculator's use back
            _send(page, "What is 3 plus 4?")
            _answered(page, count)
            answer = _articles(page, "Model").nth(count - 1)
            expect(answer.get_by_text("Calculator: 3+4 = 7")).to_be_visible()
            expect(answer).to_contain_text("That makes 7, or 日本語.")
        expect(page.get_by_role("status")).to_contain_text("of 1,024")
