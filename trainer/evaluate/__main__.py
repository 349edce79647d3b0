"""`torchrun -m trainer.evaluate`: the same as `wit eval`."""

import sys

from wit.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
