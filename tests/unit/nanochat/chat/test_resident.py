"""Which row a text goes into: as little as possible is read again."""

from __future__ import annotations

from nanochat.chat.resident import ResidentRows
from nanochat.config import ModelConfig
from nanochat.model.kv_cache import KVCache

_CONFIG = ModelConfig(sequence_len=64, vocab_size=99, n_layer=1, n_head=1, n_kv_head=1, n_embd=8)


def _read(rows, text):
    """Take a row for a text, read it there and free the row; return how much the row held before."""
    row, held = rows.take(text)
    rows.cache.texts[row][:] = text
    rows.free(row)
    return held


def test_a_text_that_shares_nothing_goes_into_an_empty_row():
    rows = ResidentRows(KVCache(_CONFIG, rows=2), least=2)
    one, other = [1, 2, 3, 4], [5, 6, 7, 8]
    assert [_read(rows, text) for text in (one, other, one, other)] == [0, 0, 3, 3]
