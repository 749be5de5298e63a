"""torchrun for one job folder: starts the ranks, ends them together, and reports which one was killed.

`python -m nanochat.ranks.agent PARENT_PID PROCESSES FOLDER` is what `nanochat.ranks.launch`
starts: torchrun itself with this job's arguments, bound to the life of its parent. It writes nothing to
standard output, which belongs to rank 0.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from nanochat.ranks.launch import killed, leave_error

_PR_SET_PDEATHSIG = 1
AGENT_PID = "RANKS_AGENT_PID"


def die_with(parent: int) -> None:
    """Ask for SIGTERM when the process `parent` ends (Linux only); end at once if it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        raise SystemExit(f"parent process {parent} is gone")


def main(parent: int, processes: int, folder: Path) -> int:
    """Run the job's ranks to their end; return 0 if all ended well."""
    die_with(parent)
    os.environ[AGENT_PID] = str(os.getpid())  # a rank that begins as this process dies has another parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    torchrun = ["--standalone", f"--nproc-per-node={processes}", "--local-addr=127.0.0.1"]
    torchrun.append(f"--log-dir={folder}")  # else in a temporary folder, which stays if torchrun is killed
    try:
        run.main([*torchrun, "--signals-to-handle=SIGTERM", "-m", "nanochat.ranks.worker", str(folder)])
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
                error_of_rank = killed(f"rank {rank} of {processes}", -failure.exitcode)
                leave_error(folder, "torchrun", error_of_rank, order=1)
        return 1
    except SignalException as error:
        leave_error(folder, "torchrun", killed("torchrun", error.sigval), order=1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
