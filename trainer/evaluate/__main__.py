"""`torchrun -m trainer.evaluate`: the same as `wit eval`."""

import sys

from trainer.evaluate.command import main
from wit.errors import UserError

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"wit eval: {error}", file=sys.stderr)
        sys.exit(2)
