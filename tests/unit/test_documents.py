"""What the documents name can be typed and found: commands, fields, stages, files, links, `just` commands.

And the words that neither they nor the texts in the code use.
"""

from __future__ import annotations

import ast
import json
import re
import shlex

import pytest
import typer.main

from flows.cli.app import app
from flows.stages import STAGES
from flows.store.fingerprint import fingerprint
from nanochat import recipes
from tests.support.documents import (
    DOCUMENTS,
    ROOT,
    difference,
    fences,
    files_to_write,
    masked,
    name_of,
    prose,
    shown,
)

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
TEXTS = {name_of(path): path.read_text(encoding="utf-8") for path in (*DOCUMENTS, WORKFLOW)}
README = TEXTS["README.md"]
COMMAND_LINE = re.compile(r"(?:^|\$ |&& )(?:uv run )?nanochat (?P<words>[a-z].*)$")
DEPLOYMENTS = ("nanochat/cpu",)  # flow and name, which look like a path
UNIDIOMATIC = re.compile(
    r"(?<!there )\b(?:is|are) no\b(?! longer)|\bso many\b|\btold\b|\bhears\b", re.IGNORECASE
)
GROUP = typer.main.get_command(app)
SPANS = {name: re.findall(r"`([^`\n]+)`", prose(text)) for name, text in TEXTS.items()}


def _commands():
    """Return document and the words after `nanochat` of every command in code spans and shell blocks."""
    found = {}
    for name, text in TEXTS.items():
        if name == "docs/recipes.md":  # its spans are values, such as the title `nanochat toy`
            continue
        blocks = [body for kind, body in fences(text) if kind in ("bash", "console")]
        blocks += [text] if name.endswith(".yml") else []
        lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
        for line in (*lines, *SPANS[name]):
            if match := COMMAND_LINE.search(line):
                found.setdefault(match["words"], name)
    return [pytest.param(words, id=f"{name}: {words}") for words, name in found.items()]


@pytest.mark.parametrize("words", _commands())
def test_each_command_parses_as_the_command_line_does(words):
    verb, *arguments = shlex.split(words, comments=True)
    assert verb in GROUP.commands, f"there is no `nanochat {verb}`"
    if not arguments:  # a verb that is only spoken of
        return
    context = GROUP.commands[verb].make_context(verb, arguments)
    recipe = context.params.get("recipe")
    if recipe in recipes.PRESETS:
        fields = [o for o in context.params.get("override") or () if not re.match(r"FIELD|depth=N", o)]
        assert recipes.find(recipe, fields).name
    else:
        assert recipe in (None, "RECIPE"), f"there is no recipe {recipe!r}"


def test_the_readme_is_read_in_one_go():
    assert len(README.splitlines()) < 200


def test_the_picture_shows_the_stages_that_there_are():
    picture = next(body for kind, body in fences(README) if kind == "mermaid")
    without_labels = re.sub(r'\["[^"]*"\]', "", picture.partition("\n")[2])
    assert set(re.findall(r"\w+", without_labels)) == set(STAGES)


def _links():
    found = [(name, target) for name, text in TEXTS.items() for target in re.findall(r"\]\(([^):]+)\)", text)]
    return [pytest.param(name, target, id=f"{name}: {target}") for name, target in dict.fromkeys(found)]


@pytest.mark.parametrize(("name", "target"), _links())
def test_each_link_leads_to_a_file_and_to_a_heading_in_it(name, target):
    path, _, heading = target.partition("#")
    place = (ROOT / name).parent / path if path else ROOT / name
    assert place.exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def _is_path(span):
    first = span.partition("/")[0]
    known = (first not in ("", ".gpu") and (ROOT / first).is_dir()) or first in (
        ".github",
        ".ci",
    )  # not in a clone
    return "/" in span and re.fullmatch(r"[\w./-]+", span) and known and span not in DEPLOYMENTS


@pytest.mark.parametrize("name", TEXTS)
def test_each_file_that_is_named_exists(name):
    words = [word for span in SPANS[name] for word in span.split()]
    named = {word for word in words if _is_path(word) and not (ROOT / word).exists()}
    assert named - files_to_write(TEXTS[name]) == set()


@pytest.mark.parametrize("name", TEXTS)
def test_each_module_that_is_named_or_run_exists(name):
    text = TEXTS[name]
    modules = re.findall(r"python -m ([\w.]+)", text)
    modules += [s for s in SPANS[name] if re.fullmatch(r"(flows|nanochat|kernels)(\.[a-z_0-9]+)+", s)]
    ours = [m for m in modules if m.partition(".")[0] in ("flows", "nanochat", "kernels", "tests")]
    missing = [m for m in dict.fromkeys(ours) if not _module_or_name(m)]
    assert missing == []


def _module_or_name(dotted):
    """Return whether there is such a module, or a module with such a name in it."""
    path = ROOT.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module, name = path.parent, path.name
    file = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__init__.py"
    return file.exists() and re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) is not None


def test_each_just_command_is_in_the_justfile():
    justfile = (ROOT / "justfile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+)[^:\n]*:", justfile, flags=re.MULTILINE))
    used = {
        word for text in TEXTS.values() for word in re.findall(r"(?:^|`)just ([a-z-]+)", text, re.MULTILINE)
    }
    assert used
    assert used <= known


def test_each_benchmark_of_the_page_takes_the_options_that_it_shows():
    lines = re.findall(r"`uv run python (?:-m )?(tests[\w./]+)([^`]*)`", TEXTS["docs/benchmarks.md"])
    assert lines
    for script, options in lines:
        file = ROOT / (script if script.endswith(".py") else f"{script.replace('.', '/')}.py")
        source = file.read_text(encoding="utf-8")
        assert [o for o in re.findall(r"--[\w-]+", options) if f'"{o}"' not in source] == [], script


def test_the_newest_section_of_the_changelog_names_the_version_of_each_stage():
    newest = TEXTS["CHANGELOG.md"].split("\n## ")[1]
    line = newest.partition("- stage versions: ")[2].partition("\n- ")[0]
    assert dict(re.findall(r"(\w+) (\d+)", line)) == {s.name: str(s.version) for s in STAGES.values()}


def test_the_key_that_is_explained_is_the_hash_of_what_is_shown():
    inspect = next(
        s for s in shown(ROOT / "docs/architecture.md") if s.command.startswith("nanochat inspect")
    )
    text = "\n".join(inspect.lines)
    payload = json.loads(text.partition("hashed\n")[2].partition("\n…")[0])
    assert inspect.lines[0] == f"tokenize/{fingerprint(payload)}"


@pytest.mark.parametrize(
    ("line", "other", "same"),
    [
        ("sft    done    f0d8fe8ecd8c  35.4 s", "sft  done  0123456789ab  1 min 03 s", True),
        ("sft    done    f0d8fe8ecd8c  35.4 s", "sft  cached  0123456789ab  35.4 s", False),
        (
            "pretrain  21,400  3.92e+19  2 h 56 min  70.61  2.2 GB",
            "pretrain  1  2.0e+3  9 s  0.01  7 B",
            True,
        ),
        ("core    0.7438", "chatcore    0.7438", False),
        ("gsm8k   0.0%  97.0%", "gsm8k   0.0%", False),
        ("d20  shard_00000", "d32  shard_00000", False),
        ("x  made 2026-01-01T00:00:00+00:00", "x  made 2027-11-25T15:17:38+00:00", True),
    ],
)
def test_only_what_differs_from_run_to_run_is_masked(line, other, same):
    assert (masked(line) == masked(other)) == same


@pytest.mark.parametrize(
    ("lines", "first_wrong"),
    [
        (["a", "b", "c"], None),
        (["a", "…", "c"], None),
        (["…", "b", "…"], None),
        (["a", "c"], "c"),
        (["a", "b"], "(the end, not 'c')"),
        (["…", "c", "…", "b", "…"], "b"),
        (["b", "…"], "b"),
        (["a", "b", "c", "d"], "d"),
    ],
)
def test_a_document_may_leave_lines_out_only_where_it_says_so(lines, first_wrong):
    assert difference(lines, ["a", "b", "c"]) == first_wrong


def _unidiomatic(text):
    return [match.group() for match in UNIDIOMATIC.finditer(" ".join(text.split()))]


def _texts(source):
    """Yield docstrings, messages and help texts: every string of a source, with `{}` where a value goes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("name", TEXTS)
def test_documents_are_in_idiomatic_english(name):
    assert _unidiomatic(prose(TEXTS[name])) == []


@pytest.mark.parametrize("layer", ["flows", "nanochat", "kernels"])
def test_texts_in_the_code_are_in_idiomatic_english(layer):
    sources = sorted((ROOT / layer).rglob("*.py"))
    assert sources
    texts = {name_of(path): _texts(path.read_text(encoding="utf-8")) for path in sources}
    found = {name: [text for text in of if _unidiomatic(text)] for name, of in texts.items()}
    assert {name: of for name, of in found.items() if of} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x is no folder", ["is no"]),
        ("There is no folder; it is no longer used.", []),
        ("The server is\nno\nlonger up, and there are\nno others.", []),
        ("They are\nno folders, so many it was told of.", ["are no", "so many", "told"]),
    ],
)
def test_unidiomatic_words_are_found(text, found):
    assert _unidiomatic(text) == found
