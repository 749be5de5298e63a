"""How many conversations a chat stage uses, and why it does not use the others: counts, and in words.

Plain numbers: who counts is `nanochat.data.chat.chat_tokens`, who prints is `flows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nanochat.config import ChatDataConfig
from nanochat.data.chat.task_files import is_own_task

MOST_LOST = 0.05  # of the rows; beyond it a warning says so


@dataclass(kw_only=True)
class RowCounts:
    """Conversations of one data set, or of several together; each is in one of used, skipped, held out."""

    used: int = 0
    cut: int = 0  # used, without what is beyond the longest length
    skipped: int = 0  # nothing to train on within the longest length
    held_out: int = 0  # validated on, not trained on
    longest: int = 0  # tokens of the longest before it is cut

    @property
    def rows(self) -> int:
        """Return all of them."""
        return self.used + self.skipped + self.held_out

    def trained(self, tokens: int, max_tokens: int, *, has_target: bool) -> None:
        """Count a conversation for training; `tokens` is its length before it is cut."""
        self.longest = max(self.longest, tokens)
        if has_target:
            self.used += 1
            self.cut += tokens > max_tokens
        else:
            self.skipped += 1

    def __add__(self, other: RowCounts) -> RowCounts:
        """Return the counts of both together."""
        return RowCounts(
            used=self.used + other.used,
            cut=self.cut + other.cut,
            skipped=self.skipped + other.skipped,
            held_out=self.held_out + other.held_out,
            longest=max(self.longest, other.longest),
        )


def notes(counts: Mapping[str, RowCounts], config: ChatDataConfig) -> list[str]:
    """Return in words what becomes of the rows of all tasks, and of the user's own among them."""
    total = sum(counts.values(), RowCounts())
    own = sum((rows for task, rows in counts.items() if is_own_task(task)), RowCounts())
    lines = [_line("", total, config)]
    if own.rows:
        lines.append(_line("your own: ", own, config))
    lost = [
        _warning(whose, rows, config)
        for whose, rows in (("your own rows", own), ("all rows", total))
        if rows.cut + rows.skipped > MOST_LOST * rows.rows
    ]
    return lines + lost[:1]


def _line(whose: str, rows: RowCounts, config: ChatDataConfig) -> str:
    limit = f"{config.max_tokens:,} tokens"
    parts = [f"{rows.used:,} used"]
    parts.append(f"{rows.cut:,} of them cut to {limit}")
    parts.append(
        f"{rows.skipped:,} skipped" + (f" (no answer to train on within {limit})" if rows.skipped else "")
    )
    parts.append(f"{rows.held_out:,} held out" + (" to validate on" if rows.held_out else ""))
    return f"{whose}{rows.rows:,} rows: {', '.join(parts)}"


def _warning(whose: str, rows: RowCounts, config: ChatDataConfig) -> str:
    lost = rows.cut + rows.skipped
    way_out = "shorter conversations keep them whole"
    if config.targets == "answers":  # cut at the context; elsewhere at a fixed length
        way_out = f"a larger sequence_len of the model, or {way_out}"
    return (
        f"warning: {lost / rows.rows:.0%} of {whose} are cut or skipped: the longest has"
        f" {rows.longest:,} tokens, {config.max_tokens:,} fit; {way_out}"
    )
