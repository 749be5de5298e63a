"""The tasks of CORE, each declared once: how many items the published bundle has, and how long they are.

Data only: what is asked is read from a bundle on disk (`nanochat.evals.core.bundle`), which may hold less.
Lengths are means over 400 items with a vocabulary of 65,536, as
`uv run python tests/benchmarks/count_evaluation.py --data FOLDER` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CoreDeclaration:
    """Size of one task."""

    items: int
    read: int  # tokens of an item, what its rows begin with counted once
    scored: float  # of them through the head


CORE_TASKS = {
    "hellaswag_zeroshot": CoreDeclaration(items=10_042, read=91, scored=62.4),
    "jeopardy": CoreDeclaration(items=2_117, read=330, scored=2.6),
    "bigbench_qa_wikidata": CoreDeclaration(items=20_321, read=122, scored=1.1),
    "arc_easy": CoreDeclaration(items=2_376, read=359, scored=16.7),
    "arc_challenge": CoreDeclaration(items=1_172, read=418, scored=21.7),
    "copa": CoreDeclaration(items=100, read=20, scored=11.2),
    "commonsense_qa": CoreDeclaration(items=1_221, read=473, scored=4.0),
    "piqa": CoreDeclaration(items=1_838, read=414, scored=28.3),
    "openbook_qa": CoreDeclaration(items=500, read=22, scored=12.6),
    "lambada_openai": CoreDeclaration(items=5_153, read=76, scored=1.4),
    "hellaswag": CoreDeclaration(items=10_042, read=565, scored=62.4),
    "winograd": CoreDeclaration(items=273, read=26, scored=10.0),
    "winogrande": CoreDeclaration(items=1_267, read=29, scored=11.4),
    "bigbench_dyck_languages": CoreDeclaration(items=1_000, read=549, scored=1.9),
    "agi_eval_lsat_ar": CoreDeclaration(items=230, read=884, scored=4.0),
    "bigbench_cs_algorithms": CoreDeclaration(items=1_320, read=410, scored=1.2),
    "bigbench_operators": CoreDeclaration(items=210, read=417, scored=2.3),
    "bigbench_repeat_copy_logic": CoreDeclaration(items=32, read=454, scored=16.3),
    "squad": CoreDeclaration(items=10_570, read=2123, scored=4.3),
    "coqa": CoreDeclaration(
        items=7_983, read=420, scored=3.0
    ),  # tokens assumed: it is not in the data that was counted
    "boolq": CoreDeclaration(items=3_270, read=1613, scored=2.0),
    "bigbench_language_identification": CoreDeclaration(items=10_000, read=1756, scored=4.0),
}
"""Label in `core.yaml` -> size."""
CORE_ITEMS = {label: task.items for label, task in CORE_TASKS.items()}
