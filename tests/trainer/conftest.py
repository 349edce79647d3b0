"""The trainer's tests compute on one thread: sums in one order, whatever machine runs them."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undoes what a test before has set; several processes of tests share the cores."""
    try:
        import torch
    except ModuleNotFoundError:  # its tests skip then
        return
    torch.set_num_threads(1)
