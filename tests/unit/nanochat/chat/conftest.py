from __future__ import annotations

import pytest

from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
