"""What a run says of itself: lines for a person, JSON lines for programs, and TensorBoard.

Only rank 0 writes. Steps that are trained again after a kill are written again; the last line of a
step counts.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

JSONL, BOARD = "log.jsonl", "tensorboard"


class Log:
    """The logs of a run's folder; a rank other than 0 gets one that writes nothing.

    Averages since the last line: call `step` each step, and `line` when one is due.
    """

    def __init__(self, out: str, rank: int, screen: TextIO | None = None) -> None:
        self.rank, self.screen = rank, screen or sys.stderr
        self.sums: dict[str, tuple[float, int]] = {}  # and of how many
        self.steps = self.faults = 0
        self.since = time.perf_counter()
        if rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            Path(out).mkdir(parents=True, exist_ok=True)
            self.file = open(os.path.join(out, JSONL), "a", encoding="utf-8")  # noqa: SIM115
            self.board = SummaryWriter(os.path.join(out, BOARD))

    def say(self, text: str) -> None:
        """Writes a line for a person; the first rank does."""
        if self.rank == 0:
            print(text, file=self.screen, flush=True)

    def complain(self, text: str) -> None:
        """Writes a line for a person, with what strangers named in it; any rank does."""
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        print(text if self.rank == 0 else f"rank {self.rank}: {text}", file=self.screen, flush=True)

    def start(self) -> None:
        """Begins to measure: what came before is no training."""
        self.since = time.perf_counter()

    def step(self, **values: float) -> None:
        """Counts a step, and adds its numbers to the averages of the next line."""
        self.steps += 1
        self.add(**values)

    def add(self, **values: float) -> None:
        """Adds numbers to the averages of the next line."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, count + 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within it no time passes for the averages: for what is no training."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began

    def averages(self) -> dict[str, float]:
        """The averages since the last line, with `seconds` a step; the next ones begin now."""
        now = time.perf_counter()
        found = {name: total / count for name, (total, count) in self.sums.items()}
        found["seconds"] = (now - self.since) / max(1, self.steps)
        self.sums, self.steps, self.since = {}, 0, now
        return found

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Writes numbers of a step under a kind (train, validation, end) for programs."""
        if self.rank:
            return
        plain = {
            k: (v if not isinstance(v, float) or math.isfinite(v) else str(v))
            for k, v in values.items()
        }
        self.file.write(json.dumps({"step": step, "kind": kind, **plain}, sort_keys=True) + "\n")
        self.file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        if self.rank == 0:
            self.board.close()
            self.file.close()
