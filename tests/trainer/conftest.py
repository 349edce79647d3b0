"""The trainer's tests compute on one thread: several processes of tests share the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start
try:
    import torch
except ModuleNotFoundError:  # its tests skip then
    pass
else:
    torch.set_num_threads(1)
