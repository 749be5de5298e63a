"""The rows of a run as one table per op."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_COLUMNS = ("shape", "method", "direction", "ms (low - high)", "TFLOP/s", "GB/s", "of the limit", "GiB")


def tables(rows: Iterable[dict[str, Any]]) -> str:
    """Return the tables in Markdown, in the order in which ops came first."""
    by_op: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_op.setdefault(row["op"], []).append(row)
    return "\n".join(_table(op, found) for op, found in by_op.items())


def _table(op: str, rows: list[dict[str, Any]]) -> str:
    shapes = [row["shape"] for row in rows]
    rows = sorted(rows, key=lambda row: shapes.index(row["shape"]))  # slow contenders came after all shapes
    cells = [_COLUMNS, *(_cells(row) for row in rows if "reason" not in row)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    lines = [f"| {' | '.join(f'{c:<{w}}' for c, w in zip(row, widths, strict=True))} |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    reasons = [f"* {row['shape']}, {row['method']}: {row['reason']}" for row in rows if "reason" in row]
    timed = [*lines, ""] if len(cells) > 1 else []
    return "\n".join([f"## {op}", "", *timed, *reasons, *([""] if reasons else [])])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    share = f"{row['share']:.0%} {row['bound']}" if "share" in row else ""
    return (
        *(row["shape"], row["method"], row["direction"]),
        f"{row['median_ms']:.3f} ({row['low_ms']:.3f} - {row['high_ms']:.3f})",
        *(f"{row['tflops']:.1f}", f"{row['gbps']:.0f}", share, f"{row['peak_gib']:.2f}"),
    )
