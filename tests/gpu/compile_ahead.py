"""Compiles the kernels that the tests will launch, on all cores, while the first tests run.

A GPU's minutes are few, and Triton compiles one kernel after the other, some seconds each. Forks of the
process that tests compile every case and variant for the device without using it (`dry_run`), and Triton's
cache on the disk hands the results over. So it does the C code of each signature, which Triton 3.6 has a
compiler translate before the first launch (a third of a second, for a kernel of some seconds). What fails
here fails again, and is reported, in its test.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import traceback
from typing import TYPE_CHECKING

from kernels import configs
from kernels.attention import op as attention
from kernels.language import AVAILABLE
from kernels.linear_cross_entropy import op as linear_cross_entropy
from kernels.qk_norm_rotary import op as qk_norm_rotary
from kernels.relu_squared import op as relu_squared
from tests.gpu.operations import CASES, F16, SCALES, Case, Problem, variants

if TYPE_CHECKING:
    from tests.support.kernels.fake_driver import Launch


def start_compiling(sizes: str) -> None:
    """Start the forks; they end by themselves, or with this process."""
    arch = _arch()
    if not AVAILABLE or arch is None:
        return
    forks = max(1, (os.cpu_count() or 1) - 4)
    context = multiprocessing.get_context("fork")
    for share in range(forks):
        context.Process(target=_compile, args=(jobs(arch)[share::forks], sizes, arch), daemon=True).start()


def jobs(arch: int) -> list[tuple[Case, dict[str, str]]]:
    """Return each case as it is, then with each variant that it can use."""
    plain = [(case, dict[str, str]()) for case in CASES]
    return plain + [
        (case, {row.kernel: name})
        for row, name in variants()
        if row.arch <= arch
        for case in CASES
        if case.uses(row) and case.dtype != F16
    ]


def _compile(share: list[tuple[Case, dict[str, str]]], sizes: str, arch: int) -> None:
    from tests.support.kernels.fake_driver import dry_run

    for case, names in share:
        try:
            with dry_run(arch) as launches, configs.trying(**names):
                launch(case, sizes)
            make_launchers(launches)
        except Exception:
            traceback.print_exc()


def make_launchers(launches: list[Launch]) -> None:
    """Compile the C code that launches each kernel; newer Tritons have none."""
    from triton.backends.nvidia import driver

    if hasattr(driver, "make_launcher"):
        for kernel in {id(one.kernel): one.kernel for one in launches}.values():
            driver.CudaLauncher(kernel.src, kernel.metadata)


def launch(case: Case, sizes: str) -> None:
    """Call the op's launch wrappers forward and backward on tensors without memory."""
    _LAUNCHES[case.op](case.draw("meta", SCALES[sizes]))


def _attention(problem: Problem) -> None:
    q, k, v = problem.inputs.values()
    lo, window, scale = problem.fixed.get("lo"), problem.options["window"], q.size(3) ** -0.5
    if window is not None and window >= q.size(1) - 1:
        window = None
    out, lse = attention.forward(q, k, v, lo, window, scale)
    attention.backward(problem.upstream, q, k, v, out, lse, lo, window, scale)


def _loss(problem: Problem) -> None:
    options = problem.options
    arguments = (*problem.inputs.values(), problem.fixed["targets"])
    head = (options["softcap"], -1, options["valid_vocab"])
    if options["reduction"] == "sum":
        linear_cross_entropy.total_with_gradients(*arguments, *head)
    else:
        linear_cross_entropy.losses(*arguments, *head)
        linear_cross_entropy.losses_backward(problem.upstream, *arguments, *head)


def _mlp(problem: Problem) -> None:
    _, a = relu_squared.mlp(*problem.inputs.values())
    relu_squared.mlp_backward(problem.upstream, *problem.inputs.values(), a)


def _rotary(problem: Problem) -> None:
    arguments = (problem.inputs["x"], *problem.fixed.values(), qk_norm_rotary.RMS_EPS)
    qk_norm_rotary.forward(*arguments)
    qk_norm_rotary.backward(problem.upstream, *arguments)


_LAUNCHES = {
    "attention": _attention,
    "linear_cross_entropy": _loss,
    "relu_squared_mlp": _mlp,
    "qk_norm_rotary": _rotary,
}


def _arch() -> int | None:
    """Return the device's compute capability x 10 without starting it; None if that is not known."""
    command = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(printed.split()[0].replace(".", ""))
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None
