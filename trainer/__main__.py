"""`torchrun -m trainer`: the same as `wit train`."""

import sys

from wit.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
