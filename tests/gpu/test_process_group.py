"""One rank under torchrun, with NCCL on a GPU: sharded steps give the bytes of steps without a group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_RANK = Path(__file__).parent / "one_rank.py"
_ROOT = Path(__file__).parents[2]


def test_a_group_of_one_rank_gives_the_same_bytes(device, sizes, tmp_path):
    result = tmp_path / "differs"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1")
    command = [*torchrun, "--local-addr=127.0.0.1", str(_RANK), device, sizes, str(result)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    }
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    assert result.read_text(encoding="utf-8") == "", "these differ"
