"""Pictures for a list of URLs, from ordinary code: behind it an event loop in its own thread."""

import asyncio
import atexit
import contextlib
import queue
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from pipeline.fetch.fetched import Fetched
from pipeline.fetch.office import Office
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.pool import DecoderPool
from pipeline.fetch.schedule import Shard
from pipeline.fetch.slowest import SlowHost
from wit.web.client import Client
from wit.web.resolver import Lookup, look_up
from wit.web.robots import HostRules

FILES = 16_384
LOOK_SECONDS = 1.0
TAKEN_AT_ONCE = 8


def _nothing() -> None:
    pass


class Fetcher:
    """Fetches, decodes and resizes pictures under a policy.

    Connections, name server answers, the hosts' rates and the decoder processes are kept from one
    `run` to the next, so a lane uses one Fetcher for all its shards. `run` may be called from
    several threads at the same time; hosts' rates then hold for all of them together. Use it as a
    context manager, or call `close`. `lookup` resolves a host name (it may block).
    """

    def __init__(self, policy: FetchPolicy, lookup: Lookup = look_up):
        self.policy = policy
        self._lookup = lookup
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._office: Office | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, urls: Sequence[str], hosts: HostRules, look: Callable[[], None] = _nothing
    ) -> Iterator[Fetched]:
        """Yield what became of each URL, in order of completion, each index exactly once.

        Not more than the policy's `concurrency` results wait for the caller. Closing the iterator
        early (or an exception in its loop) ends the requests, and so does an exception of `look`,
        which is called each second in which nothing comes. Raises UserError where this machine is
        at fault: no sockets, no decoder.
        """
        loop, office = self._start()
        shard = Shard(office, urls, hosts)
        driving = asyncio.run_coroutine_threadsafe(shard.drive(), loop)
        taken = 0
        try:
            while isinstance(result := _next(shard, look), Fetched):
                yield result
                taken += 1
                # Each message wakes the loop up, so while there is more to take it can wait.
                if taken == TAKEN_AT_ONCE or shard.results.empty():
                    loop.call_soon_threadsafe(shard.taken, taken)
                    taken = 0
            if result is not None:
                raise result
        finally:
            if not driving.done():
                loop.call_soon_threadsafe(shard.stop)
            driving.result()

    def slowest(self, hosts: HostRules) -> list[SlowHost]:
        """The servers for which the `run` with these rules waits longest; [] while none goes on."""
        shards = [] if self._office is None else list(self._office.shards)
        return next((shard.slowest.found for shard in shards if shard.hosts is hosts), [])

    def close(self) -> None:
        """Close connections and end the decoder processes."""
        with self._lock:
            loop, thread, office = self._loop, self._thread, self._office
            self._loop = self._thread = self._office = None
        if loop is None or thread is None or office is None:
            return
        atexit.unregister(self.close)

        async def end() -> None:
            for shard in office.shards:
                shard.stop()
            while office.shards:
                await asyncio.sleep(0.001)
            for asked in office.rules.values():
                asked.cancel()
            await asyncio.gather(*office.rules.values(), return_exceptions=True)
            await office.pool.close()
            await office.client.close()

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _start(self) -> tuple[asyncio.AbstractEventLoop, Office]:
        with self._lock:
            if self._loop is None or self._office is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(loop,), name="fetcher")
                self._thread.daemon = True
                self._thread.start()
                self._loop = loop
                self._office = asyncio.run_coroutine_threadsafe(self._open(), loop).result()
                atexit.register(self.close)
            return self._loop, self._office

    async def _open(self) -> Office:
        _allow_sockets()
        pool = DecoderPool(self.policy)
        pool.start()
        return Office(self.policy, Client(self.policy, self._lookup), pool)


def _next(shard: Shard, look: Callable[[], None]) -> Fetched | Exception | None:
    while True:
        with contextlib.suppress(queue.Empty):
            return shard.results.get(timeout=LOOK_SECONDS)
        look()


def _allow_sockets() -> None:
    """Raise this process's own limit of open files; the default of 1,024 is few for sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
