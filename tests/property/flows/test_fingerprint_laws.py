"""Laws of identity: the same value is the same text, another value is another one."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.store.fingerprint import canonical_json, fingerprint

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
    | _TEXT
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


def _shuffled(value: Any, seed: int) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        random.Random(seed).shuffle(items)
        return {key: _shuffled(item, seed) for key, item in items}
    if isinstance(value, list):
        return tuple(_shuffled(item, seed) for item in value)
    return value


@given(_VALUES)
def test_canonical_text_reads_back_as_the_value(value):
    assert json.loads(canonical_json(value)) == value


@given(_VALUES, st.integers(0, 99))
def test_order_of_keys_and_kind_of_sequence_do_not_matter(value, seed):
    assert canonical_json(_shuffled(value, seed)) == canonical_json(value)


@given(_VALUES)
def test_text_is_a_fixed_point(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(_VALUES, _VALUES)
def test_two_values_share_a_fingerprint_only_if_they_share_the_text(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (canonical_json(one) == canonical_json(other))
