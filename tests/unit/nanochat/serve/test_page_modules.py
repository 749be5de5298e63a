"""The page's modules that know no elements, run by Node: Markdown, colours of code, the tree of messages."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from nanochat.serve.web_page import PAGE_FOLDER

SCRIPT = Path(__file__).parents[3] / "support" / "page_modules.mjs"
SAMPLE = """# Head

Some **bold** and `code`
with a line.

1. one
   - nested
     goes on
2. two

> quote
lazy

| a | b |
|:--|--:|
| 1 | `x|y` |
| 2 |

```python
def f():

    return 1
```

***
#### 7
"""
ATTACKS = (
    *(
        "*",
        "_",
        "`",
        "~",
        "[",
        "]",
        ">",
        "#",
        "|",
        " ",
        "\\",
        "<",
        "- ",
        "1. ",
        "a",
        "\n",
        "a\n",
        "*a",
        "a* ",
    ),
    *("[a](", "[](", "![", "`a``", "**a *b __c _d ~~e ", "> - ", "|a|\n|-|\n", "```\n", "http://", "<http:"),
    *("[a](b 'c ", "~~~a\n", "- a\n  ", "(((", "*_"),
)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Return how to ask several things of the modules at once."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed here; Chromium tests the page as a whole")
    folder = tmp_path_factory.mktemp("page") / "modules"
    shutil.copytree(PAGE_FOLDER, folder)
    (folder / "package.json").write_text('{"type": "module"}')

    def run(name, *arguments):
        questions = json.dumps([(name, argument) for argument in arguments])
        done = subprocess.run([node, SCRIPT, folder], input=questions, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _html(events):
    """Return events as markup, of texts without markup."""
    open_tags, parts = [], []
    for event in events:
        if "open" in event:
            open_tags.append(event["open"])
            parts.append(f"<{event['open']}>")
        elif "close" in event:
            parts.append(f"</{open_tags.pop()}>")
        else:
            parts.append(event["text"])
    assert not open_tags
    return "".join(parts)


def test_emphasis_is_as_commonmark_has_it(ask):
    texts = ["".join(text) for length in range(1, 8) for text in itertools.product("*_a ", repeat=length)]
    texts = [text for text in texts if text == text.strip()]
    texts += ["".join(random.Random(seed).choices("*_a .", k=24)).strip() for seed in range(500)]
    reference = MarkdownIt("commonmark")
    wanted = [reference.renderInline(text) for text in texts]
    found = [_html(events) for events in ask("inline", *texts)]
    assert [(t, f) for t, f, w in zip(texts, found, wanted, strict=True) if f != w] == []


def test_a_text_is_read_alike_in_whatever_pieces_it_comes(ask):
    texts = [
        SAMPLE,
        SAMPLE.replace("\n\n", "\n"),
        SAMPLE.replace("\n", "\r\n"),
        "x" * 9000 + "\n\n- " + "y " * 9000,
    ]
    for text in texts:
        rng = random.Random(1)
        cuts = [sorted(rng.sample(range(len(text)), min(count, len(text)))) for count in (0, 3, 40, 400)]
        pieces = [[text[a:b] for a, b in itertools.pairwise((0, *cut, len(text)))] for cut in cuts]
        whole, *others = ask("blocks", *pieces)
        assert all(other == whole for other in others), text[:40]
    kinds = [child["kind"] for child in ask("blocks", [SAMPLE])[0]["children"]]
    assert kinds == ["heading", "paragraph", "list", "quote", "table", "code", "rule", "heading"]


def test_a_long_line_of_code_stays_whole(ask):
    line = "x = '" + "é😀" * 3000 + "'\n"
    (root,) = ask("blocks", ["```py\n" + line[:5000], line[5000:] + line + "```"])
    assert "".join(root["children"][0]["lines"]) == line + line


def test_no_text_is_more_than_a_bounded_amount_of_work_a_character(ask):
    sizes = (100_000, 400_000)
    costs = ask("cost", *({"text": text, "times": size // len(text)} for text in ATTACKS for size in sizes))
    for text, small, large in zip(ATTACKS, costs[::2], costs[1::2], strict=True):
        assert large["steps"] <= 4.2 * small["steps"] + 100, text
        assert large["steps"] <= 16 * sizes[1], text
        assert large["longest"] <= 8192 and large["depth"] <= 20, text


def test_only_web_and_mail_addresses_become_links(ask):
    refused = (
        *(
            "javascript:alert(1)",
            " javascript:alert(1)",
            "JAVA\tSCRIPT:alert(1)",
            "java\nscript:x",
            "//x.y",
            "/x",
        ),
        *(
            "javascript&#58;alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "blob:https://x.y/z",
        ),
        *(
            "https:x",
            "https://",
            "http://a b",
            "https://x.y/\u202egpj",
            "\x01https://x.y",
            "view-source:https://x.y",
        ),
    )
    assert ask("safeAddress", *refused) == [None] * len(refused)
    taken = ("https://x.y/a?b=c#d", "HTTP://x.y", "mailto:a@b.c")
    assert ask("safeAddress", *taken) == ["https://x.y/a?b=c#d", "http://x.y/", "mailto:a@b.c"]
    # An address that stands inside a refused one is a link of its own, as it would be alone.
    inside = [address for address in refused if not re.search(r"https?://\w", address)]
    links = [form.format(address) for address in inside for form in ("[a]({})", "<{}>", "{}", "![a]({})")]
    events = ask("inline", *links)
    assert [link for link, found in zip(links, events, strict=True) if any("open" in e for e in found)] == []


def test_a_link_holds_no_other_link_and_no_text_is_lost(ask):
    (events,) = ask("inline", "[see https://a.b/ **now**](https://c.d) ![p](https://e.f/g.png) [x] [y](z")
    assert [event["address"] for event in events if "address" in event] == [
        "https://c.d/",
        "https://e.f/g.png",
    ]
    assert "".join(event.get("text", "") for event in events) == "see https://a.b/ now p [x] [y](z"


@pytest.mark.parametrize("language", ["python", "js", "c", "go", "bash", "json", "sql"])
def test_colours_change_no_character_of_code(ask, language):
    rng = random.Random(language)
    pieces = [
        '"',
        "'",
        '"""',
        "`",
        "\\",
        "/*",
        "*/",
        "//",
        "#",
        "--",
        " ",
        "x",
        "é",
        "1.5e3",
        "0x1f",
        "def",
        "if(",
    ]
    lines = ["".join(rng.choices(pieces, k=12)) + "\n" for _ in range(300)]
    (found,) = ask("coloured", {"language": language, "lines": lines})
    assert ["".join(token["text"] for token in tokens) for tokens in found] == lines


def test_python_is_coloured_over_several_lines(ask):
    lines = ["def f(x):  # why\n", '    """Long\n', "    if # not code\n", '    """ + 1\n']
    (found,) = ask("coloured", {"language": "python", "lines": lines})
    kinds = [[(t["kind"], t["text"].strip()) for t in tokens if t["kind"]] for tokens in found]
    assert kinds[0] == [("keyword", "def"), ("call", "f"), ("comment", "# why")]
    assert kinds[1:3] == [[("string", '"""Long')], [("string", "if # not code")]]
    assert kinds[3] == [("string", '"""'), ("number", "1")]


def _said(name, parent, at, text, *, role="user", revision=0):
    content = (
        {"text": text} if role == "user" else {"parts": [{"type": "text", "text": text}] if text else []}
    )
    return {"id": name, "parent": parent, "at": at, "revision": revision, "role": role, **content}


def _conversation(*messages, **fields):
    made = {message["id"]: message for message in messages}
    whole = {
        "id": "c",
        "title": "t",
        "titledAt": 0,
        "created": 0,
        "changed": 0,
        "messages": made,
        "chosen": {},
    }
    return {**whole, **fields}


def test_two_copies_of_a_conversation_become_one_with_all_messages(ask):
    first = _said("a", None, 1, "question")
    older = _said("b", "a", 2, "beg", role="assistant", revision=1)
    newer = _said("b", "a", 2, "begun and ended", role="assistant", revision=2)
    own = _conversation(first, older, _said("c", "b", 3, "next"))
    other = _conversation(first, newer, _said("d", None, 4, "edited"))
    one, two = ask("merged", {"own": own, "other": other}, {"own": other, "other": own})
    assert one["messages"] == two["messages"]
    assert one["messages"]["b"]["parts"][0]["text"] == "begun and ended"
    assert one["path"] == [["d", ["a", "d"]]]
    assert one["lacked"] and two["lacked"]
    assert not ask("merged", {"own": _conversation(first), "other": own})[0]["lacked"]


def test_what_is_asked_alternates_and_can_begin_later(ask):
    messages = (
        _said("a", None, 1, "one"),
        _said("b", "a", 2, "", role="assistant"),  # no answer came
        _said("c", "b", 3, "two"),
        _said("d", "c", 4, "answer", role="assistant"),
        _said("e", "d", 5, "three"),
    )
    question = {"conversation": _conversation(*messages), "last": "e"}
    whole, later = ask("asked", {**question, "leftOut": 0}, {**question, "leftOut": 2})
    turns = [{"role": "assistant", "content": "answer"}, {"role": "user", "content": "three"}]
    assert whole["sent"] == whole["exported"] == [{"role": "user", "content": "one\n\ntwo"}, *turns]
    assert later["sent"] == [{"role": "user", "content": "two"}, *turns]


def test_events_are_whole_in_whatever_pieces_they_come(ask):
    stream = 'data: {"a": 1}\r\n\r\n: a comment\n\ndata:two\ndata: lines\n\nevent: x\ndata: é😀\n\ndata: cut'
    wanted = ['{"a": 1}', "two\nlines", "é😀"]
    assert ask("events", [stream], list(stream), [stream[:9], stream[9:30], stream[30:]]) == [wanted] * 3


def _stream(*chunks):
    return "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)


def _chunk(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_what_a_server_may_not_send_breaks_an_answer_off_and_nothing_else(ask):
    junk = (
        _chunk(content=5),
        _chunk(content={"a": 1}),
        _chunk(calculator={"expression": {"a": 1}}),
        _chunk(calculator={"index": 0, "result": [1]}),
        _chunk(finish={"a": 1}),
        {"error": "text"},
        "null",
        "{{{",
    )
    asked = [{"status": 200, "body": _stream(_chunk(content="a"), chunk)} for chunk in junk]
    assert ask("taken", *asked) == [[{"text": "a"}, {"error": "broken"}]] * len(junk)
    refusals = [{"status": 500, "body": body} for body in ("null", "5", '{"error": 5}', "<html>", "")]
    assert ask("taken", *refusals) == [[{"error": "refused"}]] * len(refusals)


def test_a_key_that_no_request_can_carry_is_a_wrong_key_and_not_a_server_that_is_gone(ask):
    body = _stream(_chunk(content="a"), _chunk(finish="stop"))
    asked = [
        {"status": 200, "body": body, "key": key}
        for key in ("schl\u00fcssel", "\u043a\u043b\u044e\u0447", "a\nb")
    ]
    whole = [{"text": "a"}, {"finish": "stop"}]
    assert ask("taken", *asked) == [whole, [{"error": "key"}], [{"error": "key"}]]


def test_an_answer_that_has_ended_is_whole_whatever_comes_after_it(ask):
    ended = _stream(_chunk(content="a"), _chunk(finish="stop"))
    rests = ("", 'data: {"choi', _stream("{{{"), _stream({"choices": [], "usage": {"prompt_tokens": None}}))
    asked = [
        {"status": 200, "body": ended + rest, "breaks": breaks} for rest in rests for breaks in (False, True)
    ]
    assert ask("taken", *asked) == [[{"text": "a"}, {"finish": "stop"}]] * len(asked)
    assert ask("taken", {"status": 200, "body": _stream(_chunk(content="a")), "breaks": True}) == [
        [{"text": "a"}, {"error": "broken"}]
    ]


def test_a_kept_conversation_is_shown_only_if_its_messages_are_one_tree(ask):
    question, reply = _said("a", None, 1, "q"), _said("b", "a", 2, "r", role="assistant")
    whole = (
        _conversation(),
        _conversation(question, reply),
        _conversation(question, _said("b", "a", 2, "q")),
    )
    damaged = (
        _conversation(_said("b", None, 1, "r", role="assistant")),
        _conversation(question, reply, _said("c", "b", 3, "r", role="assistant")),
        _conversation(question, _said("b", "none", 2, "r", role="assistant")),
        _conversation(question, _said("b", "c", 2, "r", role="assistant"), _said("c", "b", 3, "q")),
        _conversation(_said("root", None, 1, "q")),
        _conversation(_said("__proto__", None, 1, "q")),
        _conversation(_said("b", "constructor", 1, "q")),
    )
    texts = [json.dumps(conversation) for conversation in (*whole, *damaged)]
    assert ask("isWhole", *texts) == [True] * len(whole) + [False] * len(damaged)


def test_a_file_is_named_after_its_conversation_in_any_script(ask):
    names = {
        "What is 3+4?": "What-is-3-4",
        "Café ✨ olé": "Café-olé",
        "हिन्दी में": "हिन्दी-में",
        "한국어": "한국어",
        "../../etc": "etc",
        "\u202e": "conversation",
    }
    assert ask("fileName", *names) == list(names.values())
    assert ask("fileName", "𠀀" * 60) == ["𠀀" * 50]
