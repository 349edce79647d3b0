"""How a rank that fails ends all the others within a minute, with its message.

A collective waits for a rank that is gone until its timeout, which must be long, for a checkpoint
or an evaluation may take minutes on one rank. So each rank has a thread that looks at the store by
which the ranks found each other: who fails writes there why, who lives writes a number that grows,
and rank 0 says of one whose number stands still that it is gone. Who reads that ends at once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback

from torch.distributed import PrefixStore, Store

from wit.errors import UserError

BEAT = 2.0  # seconds between two looks
GONE = 40.0  # seconds without a sign of life
FAILED = "failed"


class Watch:
    """One rank's thread; `stop` it before the store goes."""

    def __init__(self, store: Store, rank: int, size: int, token: int) -> None:
        """To be made when all have met; `token`, equal on all, tells this attempt from others."""
        # A connection of its own: others wait for keys in theirs, and it is taken meanwhile.
        self.store = PrefixStore(f"watch/{token}", store.clone())
        self.rank, self.size = rank, size
        self._stopped = threading.Event()
        self._beats = 0
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; from now on nothing that others do ends this rank."""
        self._stopped.set()
        self._thread.join()

    def tell(self, error: BaseException) -> None:
        """Says why this rank fails, here and to the others; if another was before it, only that."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        try:
            if self.store.check([FAILED]):
                self._say(self.store.get(FAILED).decode())
                return
            said = " ".join(str(error).split())
            if isinstance(error, UserError):
                print(f"wit: rank {self.rank}: {said}", file=sys.stderr, flush=True)
            else:
                traceback.print_exception(error)
                said = f"{type(error).__name__}: {said}"
            self.store.set(FAILED, f"rank {self.rank}: {said}")
        except RuntimeError:  # the store is gone: all know
            return
        self._linger()

    def _look(self) -> None:
        while not self._stopped.wait(BEAT):
            try:
                self._beats += 1
                self.store.set(f"rank/{self.rank}", str(self._beats))
                if self.rank == 0:
                    self._find_gone()
                if self.store.check([FAILED]):
                    self._end(self.store.get(FAILED).decode())
            except RuntimeError:
                self._end("the rank that holds the store is gone")

    def _find_gone(self) -> None:
        now = time.monotonic()
        for rank in range(self.size):
            key = f"rank/{rank}"
            beats = self.store.get(key) if self.store.check([key]) else b""
            if rank not in self._seen or self._seen[rank][0] != beats:
                self._seen[rank] = beats, now
            elif now - self._seen[rank][1] > GONE and not self.store.check([FAILED]):
                self.store.set(FAILED, f"rank {rank}: no sign of life for {GONE:.0f} seconds")

    def _end(self, message: str) -> None:
        if self._stopped.is_set():
            return
        self._say(message)
        self._linger()
        os._exit(1)  # the main thread may wait in a collective for ever

    def _say(self, message: str) -> None:
        print(f"wit: rank {self.rank} ends, because {message}", file=sys.stderr, flush=True)

    def _linger(self) -> None:
        """Gives the others time to read why, where the store ends with this process."""
        of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if self.rank == 0 and not of_agent:
            time.sleep(2 * BEAT)
