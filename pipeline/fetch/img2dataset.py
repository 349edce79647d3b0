"""Pictures for a list of URLs, fetched by img2dataset: a selectable engine beside `Fetcher`.

img2dataset runs as a process of its own, from an environment of its own, over one shard's URLs at
a time. Which of them it may ask is decided here beforehand, by the robots table and the guard; how
it asks is its own way (see `pipeline.engine.NOT_KEPT`). What it writes is read back row by row,
matched by an index that travels with each URL. A URL about which it says nothing ends as
`engine_lost`, with the reason.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine import SCRATCH
from pipeline.fetch import exif, leash
from pipeline.fetch.fetched import Fetched
from pipeline.fetch.img2dataset_words import outcome_of
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.slowest import SlowHost
from wit import storage
from wit.errors import UserError
from wit.outcomes import SUCCESS
from wit.web.guard import Guard, Refused, parse_url
from wit.web.robots import HostRules, product_token

PIECE = 10_000  # URLs of one of its shards: all of ours
QUIET_SECONDS = 120.0  # without a byte written, beside what its timeouts explain
LOOK_SECONDS = 0.5
READ_ROWS = 1_000
# What a trimmed environment keeps: how programs, libraries and certificates are found.
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")
SET = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "no_proxy": "*"}


class Img2dataset:
    """Has img2dataset fetch, decode and resize pictures under as much of a policy as it knows.

    `policy.img2dataset` is its executable; it works in hidden folders in `folder` (if that is
    remote, in the system's temporary one) that go with it. One process runs at a time: lanes that
    share an engine take turns.
    """

    def __init__(self, policy: FetchPolicy, folder: str):
        self.policy = policy
        self._folder = folder
        self._guard = Guard(policy.allow_addresses)
        self._token = product_token(policy.user_agent)
        self._turn = threading.Lock()

    def run(
        self, urls: Sequence[str], hosts: HostRules, look: Callable[[], None] = lambda: None
    ) -> Iterator[Fetched]:
        """Yield what became of each URL, each index exactly once.

        Closing the iterator early ends img2dataset, and so does an exception of `look`, which is
        called again and again while it works. Raises UserError where it ends by itself
        without having done its work: what it says is in the message.
        """
        asked: dict[int, str] = {}
        for index, url in enumerate(urls):
            try:
                asked[index] = self._admitted(url, hosts)
            except Refused as refused:
                yield Fetched(index, refused.outcome, refused.message)
        if asked:
            with self._turn:
                yield from self._fetch(asked, look)

    def slowest(self, hosts: HostRules) -> list[SlowHost]:
        """[]: it does not say which hosts it waits for."""
        return []

    def _admitted(self, url: str, hosts: HostRules) -> str:
        """The URL as it may be asked; else Refused."""
        target = parse_url(url)
        self._guard.admit(target)
        rule = hosts.get(target.origin)
        if rule is None:
            raise Refused("robots_unreachable", "robots.txt: not asked for")
        if verdict := rule.verdict(target.url, self._token):
            raise Refused(*verdict)
        return target.url

    def _fetch(self, asked: dict[int, str], look: Callable[[], None]) -> Iterator[Fetched]:
        scratch = _make_scratch(self._folder)
        process = None
        try:
            pq.write_table(
                pa.table({"url": list(asked.values()), "index": list(asked)}),
                scratch / "urls.parquet",
            )
            process = self._start(scratch)
            lost = self._wait(process, scratch, len(asked), look)
            left = set(asked)
            for fetched in _read_back(scratch, self.policy.encode_format):
                if fetched.index in left:
                    left.remove(fetched.index)
                    yield fetched
            for index in sorted(left):
                yield Fetched(index, *lost)
        finally:
            if process is not None:
                _end(process)
            shutil.rmtree(scratch, ignore_errors=True)

    def _start(self, scratch: Path) -> "subprocess.Popen[bytes]":
        program = [self.policy.img2dataset, *arguments(self.policy)]
        with open(scratch / "log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-I", leash.__file__, str(scratch), *program],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=scratch,
                env=environment(str(scratch)),
                start_new_session=True,  # Ctrl-C is for the parent, which ends this
            )

    def _wait(
        self,
        process: "subprocess.Popen[bytes]",
        scratch: Path,
        count: int,
        look: Callable[[], None],
    ) -> tuple[str, str]:
        """Wait for its end; outcome and message of the URLs about which it says nothing."""
        policy = self.policy
        quiet = QUIET_SECONDS + 4 * policy.read_seconds * (policy.retries + 1)
        now = time.monotonic()
        deadline, written, moved = now + policy.shard_seconds, -1, now
        while True:
            try:
                code = process.wait(LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                look()
                now = time.monotonic()
            size = sum(path.stat().st_size for path in _outputs(scratch, "[0-9]*"))
            if size != written:
                written, moved = size, now
            if now >= deadline:
                _end(process)
                return "deadline_exceeded", "img2dataset was ended with the shard's time"
            if now - moved >= quiet:
                _end(process)
                return "engine_lost", f"img2dataset wrote nothing for {quiet:.0f} seconds"
        if code < 0:
            return "engine_lost", f"img2dataset was killed by signal {-code}"
        if len(_outputs(scratch, "*_stats.json")) < -(-count // PIECE):
            raise UserError(
                f"{policy.img2dataset}: ended (exit code {code}) without having done its work: "
                f"{_last_words(scratch / 'log')}; see to that, then run the same command again"
            )
        return "engine_lost", "img2dataset left this URL out"


def arguments(policy: FetchPolicy) -> list[str]:
    """Returns img2dataset's command line for `urls.parquet` in its working folder."""
    settings: dict[str, Any] = {
        "url_list": "urls.parquet",
        "input_format": "parquet",
        "url_col": "url",
        "save_additional_columns": ["index"],
        "output_folder": "out",
        "output_format": "webdataset",
        "number_sample_per_shard": PIECE,
        "processes_count": 1,
        "thread_count": policy.concurrency,
        "image_size": policy.image_size,
        "resize_mode": policy.resize_mode,
        "resize_only_if_bigger": policy.resize_only_if_bigger,
        "encode_quality": policy.encode_quality,
        "encode_format": policy.encode_format,
        "skip_reencode": policy.skip_reencode,
        "min_image_size": policy.min_image_size,
        "max_image_area": policy.max_pixels,
        "timeout": policy.read_seconds,
        "retries": policy.retries,
        "user_agent_token": product_token(policy.user_agent),
        "disallowed_header_directives": [d for d in policy.opt_outs if d.startswith("no")],
        "compute_hash": None,
        "enable_wandb": False,
    }
    if policy.max_aspect_ratio:
        settings["max_aspect_ratio"] = policy.max_aspect_ratio
    # It reads its options as Python literals.
    return [f"--{name}={value!r}" for name, value in settings.items()]


def environment(home: str) -> dict[str, str]:
    """Returns the trimmed environment for img2dataset: no proxies, no settings of ours."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, **SET, "HOME": home, "TMPDIR": home}


def _make_scratch(parent: str) -> Path:
    folder = None
    if storage.is_local(parent):
        folder = os.path.abspath(storage.local_path(parent))
        storage.make_folder(folder)
    with storage.explained(folder or tempfile.gettempdir()):
        return Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Have the leash end img2dataset, if it has not ended; what it wrote stays."""
    assert process.stdin is not None
    if process.stdin.closed:
        return
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(b".")
    process.wait()


def _outputs(scratch: Path, pattern: str) -> list[Path]:
    return sorted((scratch / "out").glob(pattern))


def _last_words(log: Path) -> str:
    """The line of its output that says why it failed."""
    lines = log.read_bytes()[-8192:].decode("utf-8", "replace").split("\n")
    lines = [" ".join(filter(str.isprintable, line.split())) for line in lines if line.strip()]
    told = [line for line in lines if " failed with error " in line]
    return (told or lines or ["it says nothing"])[-1][:300]


# --- what it wrote ----------------------------------------------------------------------------


def _read_back(scratch: Path, extension: str) -> Iterator[Fetched]:
    """The pictures of its tars, then the failures of its Parquet files; as far as they go."""
    for path in _outputs(scratch, "*.tar"):
        yield from _pictures(path, extension)
    for path in _outputs(scratch, "*.parquet"):
        yield from _failures(path)


def _pictures(path: Path, extension: str) -> Iterator[Fetched]:
    key, parts = None, dict[str, bytes]()
    try:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                name, _, kind = member.name.partition(".")
                file = tar.extractfile(member)
                if file is None:
                    continue
                if name != key:
                    key, parts = name, {}
                parts[kind] = file.read()
                if extension in parts and "json" in parts:
                    yield _picture(parts[extension], json.loads(parts.pop("json")), extension)
    except tarfile.TarError:  # cut short: it was ended while it wrote
        return


def _picture(image: bytes, meta: dict[str, Any], extension: str) -> Fetched:
    return Fetched(
        meta["index"],
        SUCCESS,
        image=image,
        extension=extension,
        width=meta["width"],
        height=meta["height"],
        original_width=meta["original_width"],
        original_height=meta["original_height"],
        exif=exif.of_exifread(meta["exif"]),
        sha256=hashlib.sha256(image).hexdigest(),
    )


def _failures(path: Path) -> Iterator[Fetched]:
    columns = ["index", "status", "error_message"]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(READ_ROWS, columns=columns):
                for row in batch.to_pylist():
                    if row["status"] != SUCCESS:
                        outcome, message = outcome_of(row["status"], row["error_message"])
                        yield Fetched(row["index"], outcome, message)
    except (pa.ArrowException, OSError):  # without its end: it was ended while it wrote
        return
