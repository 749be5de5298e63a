"""`python -m tests.support.notebook FILE` executes the code cells of a notebook, one after another.

For notebooks of plain Python: no kernel, no magics, and nothing is written back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def code_cells(path: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook in order."""
    return [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]


def execute(path: Path) -> None:
    """Execute all code cells in one namespace; an error names its cell."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(path), 1):
        exec(compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec"), namespace)


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
