"""Strangers' bytes by the million against what must never break: see `python -m tests.fuzz -h`."""
