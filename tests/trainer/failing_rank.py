"""A rank that meets the others, of which one fails as its arguments say; for test_watch.py."""

import sys
import time

import torch
import torch.distributed as dist

from trainer import watch
from trainer.parallel import joined
from wit.errors import UserError


def main(how: str) -> None:
    """Rank 1 fails or falls silent, the others wait for it."""
    with joined("cpu") as world:
        dist.barrier()
        if world.rank == 1:
            print("met", flush=True)
            if how == "user error":
                raise UserError("00001.tar: cut off; harvest it again")
            if how == "bug":
                raise ZeroDivisionError("a bug")
            time.sleep(600)
        while True:  # gloo would see a closed connection; nothing is sent in this one
            time.sleep(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    watch.GONE = float(sys.argv[2])
    main(sys.argv[1])
