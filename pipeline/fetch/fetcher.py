"""Pictures for a list of URLs, from ordinary code: behind it an event loop in its own thread."""

import asyncio
import atexit
import functools
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
TAKEN_AT_ONCE = 8  # results after which a shard hears that its caller has them
TOLD_SECONDS = 0.02  # and the time after which it hears of fewer


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
        tell = functools.partial(loop.call_soon_threadsafe, shard.taken)
        try:
            yield from _results(shard, look, tell)
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


def _results(
    shard: Shard, look: Callable[[], None], tell: Callable[[int], object]
) -> Iterator[Fetched]:
    """A shard's results to their end; `tell` it how many more the caller has.

    Each message wakes the event loop up, so there are few while the shard has places left.
    """
    taken = 0
    while True:
        try:
            result = shard.results.get(timeout=TOLD_SECONDS if taken else LOOK_SECONDS)
        except queue.Empty:
            if not taken:
                look()
                continue
        else:
            if not isinstance(result, Fetched):
                break
            yield result
            taken += 1
            if taken < min(TAKEN_AT_ONCE, shard.office.places() // 16):
                continue
        tell(taken)
        taken = 0
    if result is not None:
        raise result


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
