"""The correctness part of the GPU check: options, what a test is given, and where its outcome is kept.

With `--results FOLDER` every outcome is in `tests.json` there as soon as there is one, and tests run in a
process of their own: one that hangs, crashes or breaks the CUDA context costs that test, and the rest go on
in a fresh process (`supervision`). With `--seconds` what does not fit is skipped. Without a GPU everything is
skipped, unless `--device cpu` asks for a dry run. No test here times anything.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from nanochat.model import reproducible
from tests.gpu import supervision

os.environ.setdefault(reproducible.VARIABLE, reproducible.MODE)  # products come before the first model

# The most telling first. What compiles ahead has all that time for the variants, which are most of it, and a
# variant is checked once more before it is chosen. Gluon's kernels, the likeliest to hang, come last.
_ORDER = (
    *("operations", "training_step", "d20", "races", "resume", "process_group", "generation", "evaluation"),
    *("variants", "compile"),
)
_LAST = "gluon"


def pytest_addoption(parser):
    group = parser.getgroup("GPU check")
    group.addoption("--device", dest="gpu_device", choices=("cuda", "cpu"), help="default: cuda, if any")
    group.addoption("--sizes", dest="gpu_sizes", choices=("full", "tiny"), help="default: tiny")
    group.addoption("--seconds", dest="gpu_seconds", type=float, help="skip what does not fit")
    group.addoption("--results", dest="gpu_results", type=Path, help="folder of tests.json")


def pytest_cmdline_main(config):
    folder = config.getoption("gpu_results", None)
    if folder is None or supervision.supervised():
        return None
    arguments = [str(argument) for argument in config.invocation_params.args]
    return supervision.supervise(arguments, folder, config.getoption("gpu_seconds") or 3600.0)


def pytest_configure(config):
    folder = config.getoption("gpu_results", None)
    if folder is not None and supervision.supervised():
        recorder = supervision.Recorder(_device(config), folder, _sizes(config))
        config.pluginmanager.register(recorder, "gpu-recorder")


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.gpu)
    item.add_marker(pytest.mark.xdist_group("gpu"))  # one GPU, one process
    if _device(item.config) is None:
        item.add_marker(pytest.mark.skip("no CUDA device (`just gpu --device cpu --sizes tiny`: a dry run)"))


def pytest_collection_modifyitems(items):
    """Put the tests of this folder in order, and leave those of other folders where they are."""
    places = [i for i, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    for place, item in zip(places, sorted((items[i] for i in places), key=_rank), strict=True):
        items[place] = item


def _rank(item):
    return _LAST in item.name, _ORDER.index(item.path.stem.removeprefix("test_"))


def pytest_runtest_setup(item):
    seconds = item.config.getoption("gpu_seconds", None)
    if seconds and time.time() > supervision.began() + seconds:
        pytest.skip(f"the {seconds:.0f} s are used up")


def _device(config):
    asked = config.getoption("gpu_device", None)
    return asked or ("cuda" if torch.cuda.is_available() else None)


def _sizes(config):
    return config.getoption("gpu_sizes", None) or "tiny"


@pytest.fixture(scope="session")
def device(pytestconfig):
    """Name of the device that is checked."""
    return _device(pytestconfig)


@pytest.fixture(scope="session")
def sizes(pytestconfig):
    """`full` or `tiny`."""
    return _sizes(pytestconfig)


@pytest.fixture
def keep(request):
    """Keep numbers of a test as a row of the results."""
    recorder = request.config.pluginmanager.get_plugin("gpu-recorder")
    return lambda **numbers: recorder and recorder.keep(request.node, **numbers)


@pytest.fixture(autouse=True)
def free_memory(device):
    """Give the GPU's memory back after each test."""
    yield
    if device == "cuda":
        torch.cuda.empty_cache()
