"""What is fed with strangers' bytes, and what must be true of every answer.

A target takes bytes and gives back an answer that can be compared: the same bytes, the same answer.
The answer is a tuple, of which the first names what to count it under. It raises AssertionError
where a promise is broken; whatever else it raises is a finding, too. The first byte of an input
chooses the way in (KINDS, WAYS), except for pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import os
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.extract import encoding, html, http, wat
from pipeline.extract.rows import Rows
from pipeline.fetch.images import Decoded, decode_resize
from pipeline.fetch.office import Office
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.pool import DecoderPool
from pipeline.sources.crawl import read_crawl
from pipeline.sources.source import Source
from pipeline.sources.tables import read_table
from pipeline.tally import Tally
from wit.errors import UserError
from wit.outcomes import OUTCOMES, SUCCESS
from wit.pairs import LINKS
from wit.web.client import REDIRECT, Client
from wit.web.guard import Refused, Target, parse_url
from wit.web.optouts import opted_out, read_tdmrep, reserved, tdm_reserves
from wit.web.rates import HostRates, parse_retry_after
from wit.web.recording import Recording
from wit.web.robots import KINDS as ROBOTS_KINDS
from wit.web.robots import fetch_rule
from wit.web.rules import parse, read_text, speaks

AGENT = "FuzzBot/1.0 (+https://example.org/bot)"
PAGE = "http://example.org/folder/page.html"
NOW = 1.7e9
Answer = tuple[Any, ...]
NEXT = b"\n--next answer--\n"  # between the answers of an input of `responses`

# --- extract ----------------------------------------------------------------------------------

KINDS = ("crawl", "page", "csv", "tsv", "jsonl", "parquet", "response", "wat")
CHARSETS = ("", "utf-8", "utf-16", "shift_jis", "gb18030", "iso-2022-jp", "windows-1251", "x-none")


def extract(data: bytes) -> Answer:
    """Image links out of a file or a page: only UserError, every link counted once."""
    kind, body = KINDS[data[0] % len(KINDS)] if data else KINDS[0], data[1:]
    tally, batches = Tally(), list[pa.RecordBatch]()
    try:
        if kind == "crawl":
            batches = list(read_crawl(io.BytesIO(body), "fuzz", tally, lambda done: None))
        elif kind == "page":
            charset = CHARSETS[len(body) % len(CHARSETS)]
            batches = _page(body, f"text/html; charset={charset}", tally)
        elif kind == "response":
            batches = _response(body, tally)
        elif kind == "wat":
            batches = _wat(body, tally)
        else:
            batches = _table(body, kind, tally)
    except UserError as error:
        told = str(error)
        if "\n" in told:
            raise AssertionError("an error of more than one line") from error
        return kind, told
    assert tally.unaccounted == 0 or kind == "parquet", f"{tally.unaccounted} links unaccounted"
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(LINKS), "another schema"
        for url, text in zip(batch["url"].to_pylist(), batch["text"].to_pylist(), strict=True):
            assert url.startswith(("http://", "https://"))
            assert text.strip() == text != ""
    rows = sum(len(batch) for batch in batches)
    assert rows == tally.counts.get("extracted", 0), "rows are not what was counted"
    content = repr([batch.to_pydict() for batch in batches]).encode("utf-8", "surrogatepass")
    return kind, repr(tally.to_json()), hashlib.sha256(content).hexdigest()


def _page(body: bytes, content_type: str, tally: Tally) -> list[pa.RecordBatch]:
    rows = Rows()
    page = encoding.to_utf8(body, content_type)
    html.extract(page, PAGE, 0, rows, tally)
    return [rows.take(tally)] if len(rows) else []


def _response(body: bytes, tally: Tally) -> list[pa.RecordBatch]:
    response = http.split_response(body)
    if response is None:
        return []
    try:
        page, faults = http.decode_body(*response, http.LARGEST_PAGE)
    except http.TooLarge:
        return []
    for fault in faults:
        tally.fault(0, fault)
    return _page(page, response[0].get("content-type", ""), tally)


def _wat(body: bytes, tally: Tally) -> list[pa.RecordBatch]:
    unusual = Rows()
    records = wat.Records(unusual)
    records.add(body, PAGE, 0, tally)
    batches = [records.take(tally)] if len(records) else []
    return batches + ([unusual.take(tally)] if len(unusual) else [])


def _table(body: bytes, kind: Any, tally: Tally) -> list[pa.RecordBatch]:
    with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
        file.write(body)
        file.flush()
        try:
            source = Source(file.name, "table", format=kind)
            return list(read_table(source, tally, lambda done: None))
        except UserError as error:
            raise UserError(str(error).replace(file.name, "FILE")) from None


# --- pictures ---------------------------------------------------------------------------------

POLICIES = (
    FetchPolicy(AGENT),
    FetchPolicy(AGENT, resize_mode="no", min_image_size=2),
    FetchPolicy(AGENT, resize_mode="center_crop", encode_format="webp", encode_quality=80),
    FetchPolicy(
        AGENT, resize_mode="keep_ratio", image_size=64, encode_format="png", encode_quality=6
    ),
)


def pictures(data: bytes) -> Answer:
    """One picture in this process: a closed outcome, and on success a picture as announced."""
    policy = POLICIES[len(data) % len(POLICIES)]
    return check_picture(decode_resize(data, policy), policy)


def check_picture(decoded: Decoded, policy: FetchPolicy) -> Answer:
    """The answer to compare of what was decoded, in this process or another."""
    assert decoded.outcome in OUTCOMES, f"outcome {decoded.outcome!r}"
    assert decoded.outcome != "internal_error", decoded.message
    assert decoded.message is None or decoded.message.isprintable(), "an unprintable message"
    if decoded.outcome == SUCCESS:
        assert decoded.image
        assert decoded.sha256 == hashlib.sha256(decoded.image).hexdigest()
        with Image.open(io.BytesIO(decoded.image)) as opened:
            opened.load()
            assert opened.size == (decoded.width, decoded.height), "another size than announced"
            assert opened.mode in ("RGB", "L", "P", "1"), f"mode {opened.mode}"
            assert not opened.getexif(), "EXIF in the stored picture"
        assert min(decoded.original_width or 0, decoded.original_height or 0) > 0
        if policy.resize_mode in ("border", "center_crop"):
            assert (decoded.width, decoded.height) == (policy.image_size,) * 2
    else:
        assert decoded.image is None, "a picture that failed has bytes"
    return decoded.outcome, repr(decoded.to_json())


class Pool:
    """A decoder process for `pictures`, as the fetcher has it: `decode` blocks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pools = [self._make(policy) for policy in POLICIES]

    def _make(self, policy: FetchPolicy) -> DecoderPool:
        one = {**policy.to_json(), "decode_workers": 1, "decode_seconds": 20.0}
        pool = DecoderPool(FetchPolicy.from_json(one))
        self._loop.call_soon_threadsafe(pool.start)
        return pool

    def __call__(self, data: bytes) -> Answer:
        """The answer, as `pictures` gives it."""
        number = len(data) % len(POLICIES)
        decoding = self._pools[number].decode(data)
        decoded = asyncio.run_coroutine_threadsafe(decoding, self._loop).result(60)
        return check_picture(decoded, POLICIES[number])

    def close(self) -> None:
        """Ends the processes."""
        for pool in self._pools:
            asyncio.run_coroutine_threadsafe(pool.close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# --- responses --------------------------------------------------------------------------------

SECONDS = 5.0  # for one request to a server that sends what it has and hangs up
WAYS = ("picture", "robots", "words")
PATHS = ("/", "/a/b.jpg?c=d", "/%7Euser/%E6%97%A5.jpg", "/private/x", "/a" * 50)
DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex", "none", "unavailable_after")


def _no_name(host: str) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


class _Watched(Client):
    """A client that may only reach loopback, whatever it decides."""

    def _socket(self, info: Any) -> socket.socket:
        assert info[4][0] == "127.0.0.1", f"a connection to {info[4]} was about to be made"
        return super()._socket(info)


class Web:
    """A server that sends what it is given, and the client that asks it, in one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self.noted: str | None = None
        self.answers: deque[bytes] = deque()
        self._loop.run_until_complete(self._open())

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.noted = f"{context.get('message')}: {context.get('exception')!r}"

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.policy = FetchPolicy(
            AGENT,
            host_rate=0,
            allow_addresses=(address,),
            resolve={"fuzz.test": address},
            total_seconds=SECONDS,
            max_bytes=200_000,
            retries=0,
            tdmrep=False,
        )
        self.client = _Watched(self.policy, _no_name)
        self.office = Office(self.policy, self.client, DecoderPool(self.policy))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answers.popleft() if self.answers else b"")
            await writer.drain()
        writer.close()

    def run(self, way: str, answers: list[bytes]) -> Answer:
        """What the client makes of the answers."""
        self.answers = deque(answers)
        return self._loop.run_until_complete(getattr(self, way)())

    async def picture(self) -> Answer:
        """A picture asked for, its redirects followed, all of it recorded."""
        recording = Recording()

        async def before(target: Target) -> None:
            self.client.guard.admit(target)

        try:
            answer = await self.client.get(
                parse_url("http://fuzz.test/a.jpg"),
                before=before,
                refuse=self.office.refuse,
                recording=recording,
            )
        except Refused as refused:
            if refused.outcome not in OUTCOMES:
                raise
            return (refused.outcome,)
        self.client.put_down(answer)
        assert answer.outcome in OUTCOMES or (answer.outcome == REDIRECT and answer.location)
        assert answer.outcome != "internal_error", answer.message
        assert answer.outcome != "total_timeout", "a server that hung up was waited for"
        assert answer.message is None or len(answer.message) <= 300
        assert bool(answer.body) == (answer.outcome == SUCCESS)
        assert len(answer.body) <= self.policy.max_bytes
        assert answer.retry_after is None or answer.retry_after >= 0
        assert answer.target.host == "fuzz.test" or answer.outcome != SUCCESS
        digest = hashlib.sha256(answer.body).hexdigest()
        return answer.outcome, answer.message, answer.status, answer.content_type, digest

    async def robots(self) -> Answer:
        """A host's rules asked for, and what they say of some URLs."""
        rule = await fetch_rule(self.client, "http://fuzz.test", HostRates(0, 8))
        assert rule.robots in ROBOTS_KINDS
        assert rule.crawl_delay is None or rule.crawl_delay >= 0
        verdicts = [rule.verdict(f"http://fuzz.test{path}", "fuzzbot") for path in PATHS]
        assert all(verdict is None or verdict[0] in OUTCOMES for verdict in verdicts)
        return rule.robots, rule.rules, rule.crawl_delay, repr(verdicts)

    async def words(self) -> Answer:
        """Straight into the readers of robots.txt, tdmrep.json and single headers."""
        return tuple(map(_words, self.answers))

    def close(self) -> None:
        """Closes the connections."""

        async def end() -> None:
            self._server.close()
            await self.client.close()

        self._loop.run_until_complete(end())
        self._loop.close()


def _words(data: bytes) -> Answer:
    text = read_text(data)
    rules = parse(text, "fuzzbot")
    found: list[Any] = [speaks(text), rules.crawl_delay, rules.no_training]
    found += [rules.may_fetch(f"http://fuzz.test{path}") for path in PATHS]
    tdm = read_tdmrep(data)
    found.append(tdm and [tdm_reserves(tdm, f"http://fuzz.test{path}") for path in PATHS])
    line = data[:2000].decode("latin-1")
    found += [opted_out([line], "fuzzbot", DIRECTIVES, NOW), reserved(line)]
    wait = parse_retry_after(line, NOW)
    assert wait is None or wait >= 0
    found.append(wait)
    with contextlib.suppress(Refused):
        target = parse_url(line, parse_url("http://fuzz.test/a/b"))
        assert parse_url(target.url) == target, "a URL that changes when it is read again"
        found.append(target.url)
    return tuple(map(repr, found))


_web: Web | None = None


def responses(data: bytes) -> Answer:
    """Answers of a server, one after another."""
    global _web
    _web = _web or Web()
    way = WAYS[data[0] % len(WAYS)] if data else WAYS[0]
    answer = _web.run(way, data[1:].split(NEXT))
    noted, _web.noted = _web.noted, None
    assert noted is None, noted
    return (way if way != "picture" else answer[0]), answer


TARGETS: dict[str, Callable[[bytes], Answer]] = {
    "extract": extract,
    "pictures": pictures,
    "responses": responses,
}


def resident() -> int:
    """Bytes of this process that are in memory, what is no longer used given back."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
