from __future__ import annotations

import pytest
import torch

from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def one_thread():
    """Matrices as small as those of these models only lose by sharing."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(former)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
