"""A robots.txt file's rules for one agent: RFC 9309, in the reading of Google's own parser.

Lines, groups, typing errors that are understood, longest match and `Allow: /index.html` follow
that parser (google/robotstxt, robots.cc) byte for byte. RFC 9309 also compares percent-encoded
characters with plain ones (2.2.2), where the parser takes them as written; here a Disallow holds
if it does in either reading and an Allow only as written, so nothing is asked that one of the two
forbids. Beside the RFC, for our agent's groups: Crawl-delay and Request-rate in seconds between
requests, and Content-Signal `ai-train=no` (contentsignals.org).

Matching looks up the path's beginnings in a table by length, so a file with 20,000 rules costs a
URL no more than one with 20, and wildcards are found by searching, never by backtracking.
"""

import codecs
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_LINE = 8 * 2083 - 1  # bytes; what follows on a line is not read
BLANK = b" \t\n\v\f\r"
NEWLINE = re.compile(rb"[\r\n]")
PRODUCT = re.compile(rb"[A-Za-z_-]*")
AGENT_KEYS = (b"user-agent", b"useragent", b"user agent")
ALLOW_KEYS = (b"allow",)
DISALLOW_KEYS = (b"disallow", b"dissallow", b"dissalow", b"disalow", b"diasllow", b"disallaw")
DELAY_KEYS = (b"crawl-delay", b"crawldelay", b"crawl delay")
SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")
REQUEST_RATE = re.compile(rb"(\d{1,9})\s*/\s*(\d{1,9})\s*([smh]?)")
UNIT = {b"": 1, b"s": 1, b"m": 60, b"h": 3600}
NO_TRAINING = re.compile(rb"(^|,)\s*ai-train\s*=\s*no\s*(,|$)")
ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
SIMPLE = re.compile(r"[^%*$\x80-\U0010ffff]*")
NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
UNDECODABLE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a robots.txt says to one agent; make it with `parse`."""

    allow: "_Patterns"
    disallow: "_Patterns"
    disallow_decoded: "_Patterns"  # the same as RFC 9309, 2.2.2 compares it
    crawl_delay: float | None = None  # seconds between requests
    no_training: bool = False  # Content-Signal: ai-train=no

    def may_fetch(self, url: str) -> bool:
        """Whether the agent may ask for an absolute URL, given as it is sent."""
        path = _path_of(url)
        decoded = _decoded_path(path)
        forbidden = self.disallow.longest(path)
        if decoded != path or self.disallow_decoded is not self.disallow:
            forbidden = max(forbidden, self.disallow_decoded.longest(decoded))
        return forbidden == 0 or forbidden <= self.allow.longest(path)


class _Patterns:
    """Path patterns by their text before the first `*`: (weight, what follows, whether it ends)."""

    def __init__(self, patterns: Iterable[tuple[str, int]]):
        self._plain: dict[str, int] = {}
        self._wild: dict[str, list[tuple[int, tuple[str, ...], bool]]] = {}
        for pattern, weight in dict.fromkeys(patterns):
            first, *others = pattern.removesuffix("$").split("*")
            if others or pattern.endswith("$"):
                entry = (weight, tuple(others), pattern.endswith("$"))
                self._wild.setdefault(first, []).append(entry)
            else:
                self._plain[first] = max(weight, self._plain.get(first, 0))
        for entries in self._wild.values():
            entries.sort(key=lambda entry: -entry[0])
        self._lengths = sorted({len(first) for first in (*self._plain, *self._wild)})

    def longest(self, path: str) -> int:
        """The weight of the heaviest pattern that matches, 0 where none does."""
        best = 0
        for length in self._lengths:
            if length > len(path):
                break
            first = path[:length]
            best = max(best, self._plain.get(first, 0))
            for weight, others, ends in self._wild.get(first, ()):
                if weight <= best:
                    break
                if _goes_on(path, length, others, ends):
                    best = weight
        return best


def _goes_on(path: str, position: int, others: tuple[str, ...], ends: bool) -> bool:
    """Whether the rest of a path holds these texts in order, the last one at its end if asked."""
    if not others:
        return position == len(path)
    for text in others[:-1] if ends else others:
        position = path.find(text, position)
        if position < 0:
            return False
        position += len(text)
    return not ends or (path.endswith(others[-1]) and len(path) - len(others[-1]) >= position)


def read_text(body: bytes) -> str:
    """The text of a robots.txt, bytes that are not UTF-8 percent-encoded (so they still match)."""
    for mark, coding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if body.startswith(mark):
            return body[2:].decode(coding, errors="replace")
    # A byte order mark goes, also one that was damaged on the way.
    body = re.sub(rb"^\xef(\xbb\xbf?)?", b"", body)
    text = body.decode("utf-8", errors="surrogateescape").replace("\0", "\n#")
    return UNDECODABLE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


@functools.lru_cache(maxsize=1024)
def parse(text: str, token: str) -> Rules:
    """Read the rules that hold for the agent named `token` (lower case, without version)."""
    agent = token.encode()
    # [0] of each pair is of the groups of all agents, [1] of our own.
    rules: tuple[list[tuple[bool, str]], ...] = ([], [])
    delays: tuple[list[float], ...] = ([], [])
    signals: tuple[list[bool], ...] = ([], [])
    in_all = in_ours = ruled = ever_ours = False
    for raw in NEWLINE.split(text.removeprefix("\ufeff").encode("utf-8", "replace")):
        key, value = _key_and_value(raw)
        if not key:
            continue
        if key.startswith(AGENT_KEYS):
            if ruled:
                in_all = in_ours = ruled = False
            name = PRODUCT.match(value)
            if value[:1] == b"*" and value[1:2] in (b"", *(bytes((c,)) for c in BLANK)):
                in_all = True
            elif name and name[0].lower() == agent:
                in_ours = ever_ours = True
        elif in_all or in_ours:
            if key.startswith((*ALLOW_KEYS, *DISALLOW_KEYS)):
                ruled = True
                rules[in_ours].append((key.startswith(ALLOW_KEYS), _escaped(value)))
            elif key.startswith(DELAY_KEYS) and (match := SECONDS.match(value)):
                delays[in_ours].append(float(match[0]))
            elif key == b"request-rate" and (match := REQUEST_RATE.match(value.lower())):
                delays[in_ours].append(int(match[2]) * UNIT[match[3]] / max(1, int(match[1])))
            elif key == b"content-signal":
                signals[in_ours].append(bool(NO_TRAINING.search(value.lower())))
    disallow = [(value, len(value)) for allows, value in rules[ever_ours] if not allows and value]
    decoded = [(_decoded_pattern(value), weight) for value, weight in disallow]
    allow = [value for allows, value in rules[ever_ours] if allows and value]
    # `Allow: /x/index.html` also allows `/x/`.
    allow += [
        value[: slash + 1] + "$"
        for value in allow
        if (slash := value.rfind("/")) >= 0 and value.startswith("/index.htm", slash)
    ]
    patterns = _Patterns(disallow)
    return Rules(
        allow=_Patterns((value, len(value)) for value in allow),
        disallow=patterns,
        disallow_decoded=patterns if decoded == disallow else _Patterns(decoded),
        crawl_delay=max(delays[ever_ours], default=None),
        no_training=any(signals[ever_ours]),
    )


def speaks(text: str) -> bool:
    """Whether there is a User-agent or Sitemap line; a web page in place of the file has none."""
    lines = NEWLINE.split(text.encode("utf-8", "replace"))
    return any(_key_and_value(line)[0].startswith((*AGENT_KEYS, b"sitemap")) for line in lines)


def matches(pattern: str, url: str) -> bool:
    """Whether a path pattern with `*` and `$` matches a URL, escapes decoded on both sides."""
    return bool(_Patterns([(_decoded_pattern(pattern), 1)]).longest(_decoded_path(_path_of(url))))


def _key_and_value(line: bytes) -> tuple[bytes, bytes]:
    """Key (lower case) and value of a line, both empty where it has none."""
    line = line[:MAX_LINE].partition(b"#")[0].strip(BLANK)
    key, colon, value = line.partition(b":")
    if not colon:
        words = re.split(rb"[ \t]+", line)  # the colon may be forgotten between just two words
        key, value = words if len(words) == 2 else (b"", b"")
    return key.strip(BLANK).lower(), value.strip(BLANK)


def _escaped(value: bytes) -> str:
    """A pattern with bytes above ASCII percent-encoded and escapes in upper case."""
    text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in value)
    return ESCAPED.sub(lambda match: match[0].upper(), text)


def _decoded(text: str) -> str:
    """RFC 9309, 2.2.2: what need not be percent-encoded is not, what must be is."""

    def decode(match: re.Match[str]) -> str:
        character = chr(int(match[0][1:], 16))
        return character if character in UNRESERVED else match[0].upper()

    def encode(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))

    return ESCAPED.sub(decode, NOT_ASCII.sub(encode, text))


def _decoded_path(path: str) -> str:
    if SIMPLE.fullmatch(path):
        return path
    return _decoded(path.replace("*", "%2A").replace("$", "%24"))


def _decoded_pattern(pattern: str) -> str:
    ends = pattern.endswith("$")
    return _decoded(pattern.removesuffix("$").replace("$", "%24")) + "$" * ends


def _path_of(url: str) -> str:
    """Path and query of a URL, from the first slash after its authority."""
    rest = url.partition("#")[0].partition("://")[2]
    match = re.search(r"[/?;]", rest)
    path = rest[match.start() :] if match else "/"
    return path if path.startswith("/") else "/" + path
