"""`torchrun -m trainer`: the same as `wit train`."""

import sys

from trainer.train import main
from wit.errors import UserError

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"wit train: {error}", file=sys.stderr)
        sys.exit(2)
