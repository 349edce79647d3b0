"""Compiles this room's kernels, so that the first run need not: `python -m trainer.kernels`."""

from trainer import kernels_bpe, kernels_resize
from wit import kernels_loader


def main() -> None:
    """Loads every kernel."""
    for module in (kernels_bpe, kernels_resize):
        kernels_loader.load(module.__name__)


if __name__ == "__main__":
    main()
