"""What ptxas made of a kernel, read from the cubin with the tools in the Triton wheel: no GPU, no driver.

`inspect` counts; `faults` returns what is wrong with a kernel on H100. Zero spills is not enough: ptxas may
also serialize the tensor-core pipeline (it waits after every instruction), which shows as about two WARPGROUP
instructions for each HGMMA; a healthy kernel has a handful in all.
"""

from __future__ import annotations

import collections
import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

import triton

from tests.support.kernels.estimate import estimate

SHARED_MAX = 232_448  # bytes a block may have on sm_90: 227 KB
_REGISTERS = 65_536  # of one multiprocessor
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)")


@dataclass(frozen=True)
class MachineCode:
    """Counts of one compiled kernel; instructions are counted once each, not per iteration."""

    registers: int  # per thread
    stack: int  # bytes per thread
    spills: int  # loads and stores of local memory
    shared: int  # bytes per block
    warps: int
    wgmma: int  # Hopper's tensor-core instructions
    tcgen05: int  # Blackwell's
    mma_sync: int  # Ampere's
    tma_loads: int
    cp_async: int
    serialized: bool
    instructions: int
    overlapped: int  # percent of the main loop's other work that runs behind wgmma; see `estimate`
    barriers: int  # of all warps, per iteration of the main loop
    bound_tflops: int  # of the main loop, by count


def inspect(kernel: Any) -> MachineCode:
    """Disassemble a CompiledKernel."""
    sass, resources = disassemble(kernel), _cuobjdump(kernel.asm["cubin"], "-res-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+)", resources)
    if found is None:
        raise ValueError(f"no register count in {resources!r}")
    count = collections.Counter(_INSTRUCTION.findall(sass))
    registers, metadata = int(found[1]), kernel.metadata
    loop = estimate(
        sass,
        warps=metadata.num_warps,
        registers=registers,
        shared=metadata.shared,
        stages=metadata.num_stages,
    )
    return MachineCode(
        registers=registers,
        stack=int(found[2]),
        spills=count["LDL"] + count["STL"],
        shared=metadata.shared,
        warps=metadata.num_warps,
        wgmma=count["HGMMA"] + count["QGMMA"],
        tcgen05=sum(n for name, n in count.items() if name.startswith("UTC") and "MMA" in name),
        mma_sync=count["HMMA"],
        tma_loads=count["UTMALDG"],
        cp_async=count["LDGSTS"],
        serialized=bool(count["HGMMA"]) and count["WARPGROUP"] >= 2 * count["HGMMA"],
        instructions=sum(count.values()),
        overlapped=loop.overlapped if loop else 0,
        barriers=loop.barriers if loop else 0,
        bound_tflops=loop.bound_tflops if loop else 0,
    )


def disassemble(kernel: Any) -> str:
    """Return the SASS of a CompiledKernel."""
    return _cuobjdump(kernel.asm["cubin"], "-sass")


def faults(code: MachineCode, *, tensor_core: bool, tma: bool) -> list[str]:
    """Return in words what an H100 kernel must not have; the flags are what it is designed to use."""
    checks = {
        f"{code.shared} bytes of shared memory, {SHARED_MAX} allowed": code.shared > SHARED_MAX,
        f"{code.spills} spill instructions, {code.stack} bytes of stack": bool(code.spills or code.stack),
        "no wgmma": tensor_core and not code.wgmma,
        f"{code.mma_sync} mma.sync instructions, which are slow here": bool(code.mma_sync),
        "ptxas serialized the wgmma pipeline": code.serialized,
        "no TMA loads": tma and not code.tma_loads,
        f"{code.registers} registers for {code.warps} warps do not fit": code.registers * 32 * code.warps
        > _REGISTERS,
    }
    return [text for text, wrong in checks.items() if wrong]


def _cuobjdump(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
