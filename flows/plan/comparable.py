"""Whether bits per byte of a planned pretraining can be compared with those of the one before it.

They can if both are measured on the same text. The tokens do not say so, since another tokenizer makes others
of the same text: the text shard behind them does. Reads at most two records, those behind the earlier value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flows.plan.planned import Planned
from flows.stages import PRETRAIN
from flows.store import Record, Ref

Find = Callable[[Ref], Record | None]


def incomparable(by_id: Mapping[str, Planned], before: Record | None, find: Find) -> str | None:
    """Return why bits per byte will not be comparable with those of an earlier pretraining, or None."""
    planned = by_id.get(PRETRAIN.name)
    if planned is None or planned.action == "hit" or before is None:
        return None
    reason = _other_text(by_id, planned, before, find) or _other_amount(planned, before)
    if reason is None:
        return None
    return f"bits per byte are not comparable with those of {before.stage}/{before.key[:12]}: {reason}"


def _other_text(by_id: Mapping[str, Planned], planned: Planned, before: Record, find: Find) -> str | None:
    tokens = by_id[str(planned.node.inputs["val_tokens"])]
    old_tokens = before.inputs["val_tokens"]
    if tokens.record is not None and tokens.record.digest == old_tokens["digest"]:
        return None
    made = find((old_tokens["stage"], old_tokens["key"]))
    if made is None:
        return None  # collected: nothing says what its text was
    text = by_id[str(tokens.node.inputs["shard"])]
    old_text = made.inputs["shard"]
    if _is_same(text, old_text, find):
        return None
    name, old_name = (node.partition("/")[2] for node in (text.node.id, old_text["node"]))
    if name == old_name:
        return f"the content of their validation text, {name}, is another"
    return f"their validation text is {name}, and was {old_name}"


def _is_same(text: Planned, old: Mapping[str, Any], find: Find) -> bool:
    """Return whether a planned text shard is an old one: by its bytes, else by its key or config."""
    if text.record is not None:
        return bool(text.record.digest == old["digest"])
    if text.key == old["key"]:
        return True
    record = find((old["stage"], old["key"]))
    return record is not None and record.payload.get("config") == text.node.config.identity()


def _other_amount(planned: Planned, before: Record) -> str | None:
    made_with = before.payload.get("config")
    now = planned.node.config.identity().get("eval_tokens")
    then = made_with.get("eval_tokens") if isinstance(made_with, dict) else None
    if now == then or not isinstance(then, int):
        return None
    return f"they are measured on the first {now:,} tokens of the validation text, and were on {then:,}"
