"""Pages that change the code: their blocks, and applying them to a copy of the project.

A fenced block whose first line names a path is a new file, or as `diff` a change to one: lines with a minus
become those with a plus, between lines that stay, and `@@` divides one place from the next.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block: what it is written in, the file that it is about, its text, and the text above it."""

    language: str
    path: str
    text: str
    above: str


def blocks(page: str) -> list[Block]:
    """Return the blocks that name a path."""
    return [
        Block(m[1], m[2], m[3], page[: m.start()].rstrip().rpartition("\n\n")[2])
        for m in _BLOCK.finditer(page)
    ]


def copy_project(root: Path, target: Path) -> None:
    """Copy code, tests, documents and settings."""
    for name in ("flows", "nanochat", "kernels", "tests", "docs", "examples", "infra", ".github"):
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "justfile"):
        shutil.copyfile(root / name, target / name)


def apply(block: Block, root: Path) -> None:
    """Write the new file of a block, or change the file at places that it has exactly once."""
    path = root / block.path
    if block.language != "diff":
        assert not path.exists(), f"{block.path} is there already"
        path.write_text(block.text, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    for place in re.split(r"^@@\n", block.text, flags=re.MULTILINE):
        lines = place.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"{block.path} has this {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
