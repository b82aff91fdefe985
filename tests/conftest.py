"""One thread and no network, for the tests and for every process that they start. Set before torch is loaded."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

# Triton kernels run through its interpreter, on tensors of the CPU: TRITON_INTERPRET=0 compiles them where a GPU is.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Code compiled for one instruction set is wrong under another, and torch's cache does not tell them apart.
if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"torchinductor_{capability}"))

# A process started in the background of a shell ignores Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples every time, so that a change is judged by what it changes: HYPOTHESIS_PROFILE=search draws new ones.
# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Files with tests of 10 seconds and more. They are run first, so that no core waits for the last of them at the end.
LONG = ("test_import_order.py", "test_tutorial.py", "test_fuzz.py", "test_ray.py", "test_kill.py", "test_offload.py",
        "test_pages.py", "test_installed.py", "test_extras.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """Later collections of garbage leave out the libraries and the tests themselves, a million objects that stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def few_timed_calls() -> Iterator[None]:
    """Profiles time each layer with the fewest calls: a third of a tiny profile was timing, and no test compares it."""
    from bitplan.planner.costs import clock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "_BUDGET", 0.0)
        yield
