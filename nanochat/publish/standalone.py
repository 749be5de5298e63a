"""The script in a published folder that answers without this project: `generate_cpu.py`, made of one piece.

What it imports of this project are modules that need the standard library alone: their code is put in place
of the import.
"""

from __future__ import annotations

import re
from importlib.resources import files

_IMPORT = re.compile(r"^from (nanochat\.[\w.]+) import \w+\n", re.MULTILINE)
_BEFORE_CODE = re.compile(r'\A""".*?"""\n+from __future__ import annotations\n', re.DOTALL)


def standalone_script() -> str:
    """Return the text of the script."""
    script = files("nanochat.publish").joinpath("generate_cpu.py").read_text(encoding="utf-8")
    return _IMPORT.sub(lambda found: _code(found[1]), script)


def _code(module: str) -> str:
    """Return the code of a module without docstring and `__future__` import."""
    package, _, name = module.rpartition(".")
    text = files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")
    code, count = _BEFORE_CODE.subn("", text)
    if not count or _IMPORT.search(code):
        raise AssertionError(f"{module} cannot be put into a script of one piece")
    return f"\n# {module}\n{code.strip()}\n"
