"""Names to checked addresses: cached, with a limited number of look-ups at a time."""

import asyncio
import concurrent.futures
import socket
from collections import OrderedDict
from collections.abc import Callable

from aiohttp.abc import AbstractResolver, ResolveResult

from wit.web.guard import Guard, Refused
from wit.web.policy import WebPolicy

KEPT_NAMES = 50_000
NO_ANSWER_SECONDS = 60.0  # a name that did not resolve is asked again after this time

Lookup = Callable[[str], list[str]]


def look_up(host: str) -> list[str]:
    """Resolve a name through the system, as an absolute name: search domains would multiply it."""
    found = socket.getaddrinfo(f"{host}.", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedResolver(AbstractResolver):
    """aiohttp's resolver that answers with checked addresses only."""

    def __init__(self, guard: Guard, policy: WebPolicy, lookup: Lookup):
        self.guard = guard
        self.policy = policy
        self.lookup = lookup
        self._threads = concurrent.futures.ThreadPoolExecutor(policy.dns_workers, "dns")
        self._known: OrderedDict[str, tuple[float, list[str] | str]] = OrderedDict()
        # A look-up's time runs from when a thread is free for it.
        self._free = asyncio.Semaphore(policy.dns_workers)
        self._asking: dict[str, asyncio.Task[list[str] | str]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of a host; raises Refused if one of them may not be connected to."""
        if host in self.guard.names:
            address, given = self.guard.names[host]
            addresses: list[str] | str = [address]
            port = given or port
        else:
            addresses = await self._addresses(host)
        if isinstance(addresses, str):
            raise Refused("dns_failure", addresses)
        self.guard.check_all(addresses, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def lowest(self, host: str) -> str:
        """The lowest of a host's addresses, which stands for its server; empty where none is found.

        Not checked: it is for counting, not for connecting.
        """
        if host in self.guard.names:
            return self.guard.names[host][0]
        if host.startswith("[") or host.replace(".", "").isdecimal():
            return host.strip("[]")
        addresses = await self._addresses(host)
        return "" if isinstance(addresses, str) else min(addresses)

    async def _addresses(self, host: str) -> list[str] | str:
        """The addresses of a name, or why there are none."""
        now = asyncio.get_running_loop().time()
        until, addresses = self._known.get(host, (0.0, []))
        if now < until:
            self._known.move_to_end(host)
            return addresses
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = asyncio.create_task(self._ask(host))
            task.add_done_callback(lambda _: self._asking.pop(host, None))
        # Shielded: one request that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, host: str) -> list[str] | str:
        loop = asyncio.get_running_loop()
        addresses: list[str] | str = "the name server does not answer"
        for _ in range(2):
            try:
                async with self._free:
                    asked = loop.run_in_executor(self._threads, self.lookup, host)
                    addresses = await asyncio.wait_for(asked, self.policy.connect_seconds)
                break
            except TimeoutError:
                break
            except socket.gaierror as error:
                if error.errno != socket.EAI_AGAIN:
                    addresses = "no such name"
                    break
            except (OSError, UnicodeError):
                addresses = "the name cannot be looked up"
                break
        if not addresses:
            addresses = "the name has no address"
        keep = NO_ANSWER_SECONDS if isinstance(addresses, str) else self.policy.dns_seconds
        self._known[host] = (loop.time() + keep, addresses)
        if len(self._known) > KEPT_NAMES:
            self._known.popitem(last=False)
        return addresses

    async def close(self) -> None:
        """Forget pending look-ups; a thread that still waits for the name server ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
