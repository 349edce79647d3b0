"""When everything goes wrong at once: evidence that a run, and not the web, is broken.

An `Alarm` is shown every finished picture of a process, over its lanes together, and says when to
stop. On the real web a third to nearly a half of old links are dead, and hosts die as a whole, so
evidence is counted by site (roughly: by who runs the host), one verdict each, and is judged only
where it spans many of them:

- no network: sites in a row could not be reached, and nobody answered since those requests began
  (so what is slow to fail at a shard's end is no evidence; nor are sites that failed before, while
  others answered);
- of the last WINDOW sites that answered nearly all deny us, fail in the same way, or sent pictures
  that cannot be decoded, also of one format alone;
- the sites of a shard sent one and the same picture;
- or their share has jumped far above what this process saw before;
- faults of our own (`internal_error`) above a small number.

The test is a binomial tail. Under the worst rate that is still called healthy (HEALTHY of all sites
fail in one way; after a jump: three times the rate before) a look is a false alarm with a
probability of at most CHANCE. A picture is looked at in two windows at most and by two tests, so a
shard of 10,000 pictures ends in a false alarm with a probability below 4e-8.
"""

import functools
import math
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.fetch.fetched import Fetched
from wit.outcomes import HOST_FAILURES, OUTCOMES, RESIZE, SUCCESS

HEALTHY = 0.6  # share of sites that may fail in one way
NEARLY_ALL = 0.9
CHANCE = 1e-12
WINDOW = 100  # sites
BASELINE = 300  # verdicts before a jump can be seen
JUMP = 3.0  # times the rate before, which is still no jump
CALM = 0.1  # and below this rate nothing is one
FAULTS, FAULT_SITES, FAULT_SPAN = 10, 5, 10_000  # faults of ours, over sites, within pictures
WARM_UP = 10.0  # seconds: until the decoders have started all first results are failures
OWN_FAULT = 5.0  # seconds that others must have answered meanwhile, so that a failure is its site's
KEPT_SITES = 200_000  # of which it is known that they failed on their own
EXAMPLES = 3
FORMATS = ("jpeg", "png", "webp", "gif", "avif", "bmp", "tiff")
ALIASES = {"jpg": "jpeg", "pjpeg": "jpeg", "x-png": "png", "x-ms-bmp": "bmp", "x-bmp": "bmp"}

UNREACHED = HOST_FAILURES | {"forbidden_address"}
BODIES = {SUCCESS} | {name for name, (status, _) in OUTCOMES.items() if status == RESIZE}
BROKEN = {
    "undecodable",
    "encode_failed",
    "decoder_crashed",
    "decoder_timeout",
    "decoder_out_of_memory",
}
DENIED = {"access_denied", "rate_limited"}
MEDDLED = {
    "server_error",
    "client_error",
    "unexpected_status",
    "invalid_response",
    "headers_too_large",
    "invalid_redirect",
    "redirect_loop",
    "too_many_redirects",
    "empty_body",
    "truncated_body",
    "unsupported_encoding",
    "bad_content_encoding",
}
ANSWERED = BODIES | DENIED | MEDDLED | {"not_found", "too_many_bytes"}

Example = tuple[str, str, str | None]  # outcome, URL, message
NO_NETWORK = "check this machine's network, name server, proxy and clock"


@dataclass(frozen=True)
class Kind:
    """One way in which everything can go wrong.

    Attributes:
        bad, all: outcomes that speak for it, and those in which it can show.
        said: of the sites, after `98 of the last 100 sites`.
        advice: what a person can do.
    """

    bad: frozenset[str] | set[str]
    all: frozenset[str] | set[str]
    said: str
    advice: str


KINDS = {
    "codec": Kind(
        BROKEN,
        BODIES,
        "sent pictures that could not be decoded or stored",
        "a library that decodes or encodes pictures seems broken: install webimagetext's "
        "requirements again",
    ),
    "foreign": Kind(
        {"unsupported_format"},
        BODIES,
        "sent something that is no picture",
        "a portal or a proxy seems to answer with pages of its own: open one of these addresses "
        "from this machine",
    ),
    "denied": Kind(
        DENIED,
        ANSWERED,
        "refused us",
        "this machine's address, or its user agent, seems to be blocked: ask more slowly "
        "(--host-rate), look whether the address stands on a blocklist, or use another",
    ),
    "meddled": Kind(
        MEDDLED,
        ANSWERED,
        "gave an answer that is none",
        "a proxy seems to answer instead of the servers: " + NO_NETWORK,
    ),
    "gone": Kind(
        {"not_found"},
        ANSWERED,
        "say that there is no such picture",
        "the addresses seem to be mangled, or very old: open one of them in a browser",
    ),
    "lost": Kind(
        {"engine_lost"},
        ANSWERED | UNREACHED | {"engine_lost"},
        "were left out by the engine",
        "img2dataset seems to be broken: install it again, or leave out --engine",
    ),
}


@dataclass(frozen=True)
class Evidence:
    """Why to stop.

    Attributes:
        kind: `network`, `internal`, a key of KINDS, or `codec: FORMAT`.
        said: what was seen, with counts.
        examples: URL, outcome and message of up to three sites.
        advice: what to do.
    """

    kind: str
    said: str
    examples: tuple[str, ...]
    advice: str

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.said} ({'; '.join(self.examples)}): {self.advice}"


def site_of(url: str) -> str:
    """Who runs a URL's host, roughly: the last two labels of its name, three below co.uk and alike.

    Too coarse rather than too fine: what falls together counts once.
    """
    authority = url.partition("//")[2].partition("/")[0].rpartition("@")[2]
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    host = authority.partition(":")[0]
    labels = host.split(".")
    if len(labels) < 3 or labels[-1].isdecimal():
        return host
    return ".".join(labels[-3 if len(labels[-1]) == 2 and len(labels[-2]) <= 3 else -2 :])


@functools.lru_cache(maxsize=100_000)
def is_unlikely(bad: int, n: int, rate: float) -> bool:
    """Whether `bad` or more of `n` have at most the probability CHANCE, each having `rate`."""
    terms = (
        math.comb(n, k) * math.exp(k * math.log(rate) + (n - k) * math.log1p(-rate))
        for k in range(bad, n + 1)
    )
    return math.fsum(terms) <= CHANCE


def is_nearly_all(bad: int, n: int) -> bool:
    """Whether so many of so many sites are no healthy run."""
    return bad >= NEARLY_ALL * n and is_unlikely(bad, n, HEALTHY)


@dataclass
class _Window:
    """The last verdict of each of the last WINDOW sites, and how many there were before.

    A verdict is an example where it is bad, None where it is not.
    """

    verdicts: OrderedDict[str, Example | None] = field(default_factory=OrderedDict)
    bad: int = 0
    old_bad: int = 0
    old: int = 0

    def add(self, site: str, verdict: Example | None) -> None:
        if site in self.verdicts:
            self._retire(self.verdicts.pop(site))
        self.verdicts[site] = verdict
        self.bad += verdict is not None
        if len(self.verdicts) > WINDOW:
            self._retire(self.verdicts.popitem(last=False)[1])

    def _retire(self, verdict: Example | None) -> None:
        self.bad -= verdict is not None
        self.old_bad += verdict is not None
        self.old += 1

    def is_alarming(self) -> bool:
        n = len(self.verdicts)
        if self.bad <= CALM * n:
            return False
        if is_nearly_all(self.bad, n):
            return True
        if self.old < BASELINE or n < WINDOW:
            return False
        # The rate before, at the upper end of what its own chance allows; in hundredths.
        before = (self.old_bad + 3 * math.sqrt(self.old_bad) + 3) / self.old
        rate = math.ceil(100 * min(HEALTHY, max(CALM, JUMP * before))) / 100
        return self.bad > rate * n and is_unlikely(self.bad, n, rate)

    def evidence(self, name: str, kind: Kind, subject: str) -> Evidence:
        found = [verdict for verdict in self.verdicts.values() if verdict is not None]
        before = f", before {self.old_bad / self.old:.0%}" if self.old >= BASELINE else ""
        said = f"{self.bad} of the last {len(self.verdicts)} sites{subject} {kind.said}"
        return Evidence(name, f"{said}: {_counts(found)}{before}", _texts(found), kind.advice)


class Alarm:
    """What the finished pictures of a process say about the process. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows = {name: _Window() for name in KINDS}
        self._formats = {name: _Window() for name in FORMATS}
        self._began: float | None = None
        self._answered = -math.inf  # when an answer came last
        self._silent: dict[str, Example] = {}  # sites that fail since
        self._failing: set[str] = set()  # sites that fail on their own
        self._seen = 0
        self._faults: deque[tuple[int, str, Example]] = deque()

    def see(self, fetched: Fetched, url: str, now: float) -> Evidence | None:
        """Takes a result into account; the evidence where it is time to stop.

        now: seconds of a steady clock, when the result came.
        """
        with self._lock:
            begun = now - fetched.elapsed_ms / 1000
            self._began = begun if self._began is None else self._began
            self._seen += 1
            site, outcome = site_of(url), fetched.outcome
            example = outcome, url, fetched.message
            if outcome == "internal_error":
                self._faults.append((self._seen, site, example))
            self._weigh_network(site, example, begun, now)
            for name, kind in KINDS.items():
                if outcome in kind.all:
                    verdict = example if outcome in kind.bad else None
                    self._windows[name].add(site, verdict)
                    form = _format(fetched.content_type) if name == "codec" else None
                    if form is not None:
                        self._formats[form].add(site, verdict)
            is_good = outcome == SUCCESS or self._is_warming(now)
            return None if is_good else self._judge()

    def waits(self, now: float) -> bool:
        """Whether a finished shard has to wait: things look bad, but it is too early to tell."""
        with self._lock:
            return self._is_warming(now) and self._judge() is not None

    def verdict(self) -> Evidence | None:
        """The evidence, where there is enough of it."""
        with self._lock:
            return self._judge()

    def _is_warming(self, now: float) -> bool:
        return self._began is None or now < self._began + WARM_UP

    def _weigh_network(self, site: str, example: Example, begun: float, now: float) -> None:
        if example[0] in ANSWERED:
            self._answered = now
            if len(self._failing) + len(self._silent) > KEPT_SITES:
                self._failing.clear()
            self._failing.update(self._silent)
            self._failing.discard(site)
            self._silent.clear()
        elif example[0] in UNREACHED:
            if begun < self._answered - OWN_FAULT:
                self._failing.add(site)
            elif begun >= self._answered and site not in self._failing:
                self._silent[site] = example

    def _judge(self) -> Evidence | None:
        if is_nearly_all(len(self._silent), len(self._silent)):
            return unreached(self._silent.values(), "in a row")
        for name, kind in KINDS.items():
            if self._windows[name].is_alarming():
                return self._windows[name].evidence(name, kind, "")
        for name, window in self._formats.items():
            if window.is_alarming():
                subject = f" with a picture of type {name}"
                return window.evidence(f"codec: {name}", KINDS["codec"], subject)
        while self._faults and self._faults[0][0] <= self._seen - FAULT_SPAN:
            self._faults.popleft()
        sites = {site: example for _, site, example in self._faults}
        if len(self._faults) >= FAULTS and len(sites) >= FAULT_SITES:
            said = f"this program failed on {len(self._faults)} pictures of {len(sites)} sites"
            advice = "please report it with this line"
            return Evidence("internal", said, _texts(sites.values()), advice)
        return None


def unreached(examples: Iterable[Example], where: str) -> Evidence:
    """The evidence that these sites could not be reached."""
    found = list(examples)
    said = f"{len(found)} sites {where} could not be reached, and none answered: {_counts(found)}"
    return Evidence("network", said, _texts(found), NO_NETWORK)


def judge_hosts(hosts: Sequence[str], robots: Sequence[str]) -> Evidence | None:
    """The evidence that the network went away while hosts were asked for their robots.txt.

    Args:
        hosts: origins, in the order in which they were asked.
        robots: of each, what wit.web.robots.ROBOTS says.
    """
    window = _Window()
    for host, decision in zip(hosts, robots, strict=True):
        is_bad = decision in ("unreachable", "forbidden_address")
        window.add(site_of(host), (decision, host, None) if is_bad else None)
        if is_bad and is_nearly_all(window.bad, len(window.verdicts)):
            kind = Kind(set(), set(), "did not answer for their robots.txt", NO_NETWORK)
            return window.evidence("network", kind, "")
    return None


def judge_placeholders(urls: Sequence[str], found: Sequence[bool]) -> Evidence | None:
    """The evidence that a proxy, or whoever keeps us out, answers with one picture for all.

    A site that sent nothing but placeholders counts once, however many. One that fails as a whole
    is no evidence, then, nor are placeholders beside pictures.

    Args:
        urls: of a shard's pictures.
        found: of each, whether it is a placeholder (pipeline.placeholders).
    """
    sites: dict[str, Example | None] = {}
    for url, is_placeholder in zip(urls, found, strict=True):
        site = site_of(url)
        if is_placeholder:
            sites.setdefault(site, ("placeholder", url, None))
        else:
            sites[site] = None
    bad = [example for example in sites.values() if example is not None]
    if not is_nearly_all(len(bad), len(sites)):
        return None
    said = f"{len(bad)} of the {len(sites)} sites of a shard sent nothing but the same few pictures"
    return Evidence("placeholder", said, _texts(bad), KINDS["foreign"].advice)


def _format(content_type: str | None) -> str | None:
    kind, _, name = (content_type or "").partition(";")[0].strip().lower().partition("/")
    name = ALIASES.get(name, name)
    return name if kind == "image" and name in FORMATS else None


def _counts(examples: Iterable[Example]) -> str:
    ranked = Counter(outcome for outcome, _, _ in examples).most_common()
    return ", ".join(f"{outcome} {number}" for outcome, number in ranked)


def _texts(examples: Iterable[Example]) -> tuple[str, ...]:
    return tuple(map(_text, list(examples)[-EXAMPLES:]))


def _text(example: Example) -> str:
    outcome, url, message = example
    text = f"{url[:150]} {outcome}" + (f", {message[:80]}" if message else "")
    return "".join(c if c.isprintable() and c != "\\" else "?" for c in text)
