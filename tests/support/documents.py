"""The documents that people read: what they show of commands, and how that is compared with real output.

A code block of kind `console` has lines `$ command`, each followed by what it prints. A line `…` stands for
lines left out. Numbers, times, sizes, hashes and what a model writes are masked on both sides; everything
else, column by column, must be as it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "infra/*.md", "kernels/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
LEFT_OUT = "…"
_FENCE = re.compile(r"^```(\w+)(?: [^\n]*)?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_WRITTEN_FILE = re.compile(r"^```\w+ (\S+)$", flags=re.MULTILINE)
_MASKS = (
    (r"(step \d+: .*?) → .*", r"\1 → TEXT"),  # what a model wrote
    (r"^nanochat  .*", "nanochat  TEXT"),
    (r"file://\S*/", "file://…/"),
    (r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", "TIME"),
    (r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b", "HASH"),
    (r"\b\d[\d.]* (?:h|min|s)\b(?: \d+ (?:min|s)\b)?", "DURATION"),
    (r"\b\d[\d,.]* (?:B|kB|MB|GB|TB)\b", "SIZE"),
    (r"(?<![\w.-])-?\d[\d,.]*(?:e[-+]?\d+)?(?!\w)", "N"),
    (r" {2,}", "  "),  # the width of a column follows from its numbers
)


@dataclass(frozen=True)
class Shown:
    """A command in a document and the lines that the document shows of its output."""

    document: str
    command: str
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.document}: {self.command}"


def name_of(path: Path) -> str:
    """Return the name of a document from the root of the checkout."""
    return path.relative_to(ROOT).as_posix()


def fences(text: str) -> list[tuple[str, str]]:
    """Return kind and body of each code block."""
    return _FENCE.findall(text)


def files_to_write(text: str) -> set[str]:
    """Return the files that a document has its reader write: a code block names its file behind its kind."""
    return set(_WRITTEN_FILE.findall(text))


def prose(text: str) -> str:
    """Return a document without its code blocks."""
    return _FENCE.sub("", text)


def shown(path: Path) -> list[Shown]:
    """Return the commands of a document whose output it shows."""
    found = []
    for kind, body in fences(path.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:] if kind == "console" else ():
            command, *lines = part.splitlines()
            found.append(Shown(name_of(path), command, tuple(lines)))
    return found


def masked(line: str) -> str:
    """Return a line of output with everything masked that differs from run to run."""
    for pattern, mask in _MASKS:
        line = re.sub(pattern, mask, line)
    return line.rstrip()


def difference(shown: Sequence[str], printed: Sequence[str]) -> str | None:
    """Return the first shown line that is not where it should be in what was printed; None: all are."""
    expected, real = _lines(shown), _lines(printed)
    at, anywhere = 0, False
    for line in expected:
        if line == LEFT_OUT:
            anywhere = True
            continue
        found = next((i for i in range(at, len(real)) if real[i] == line), None) if anywhere else at
        if found is None or found >= len(real) or real[found] != line:
            return line
        at, anywhere = found + 1, False
    return None if anywhere or at == len(real) else f"(the end, not {real[at]!r})"


def _lines(text: Sequence[str]) -> list[str]:
    return [masked(line) for line in text if line.strip()]
