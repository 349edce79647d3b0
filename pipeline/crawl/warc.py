"""WARC 1.1 records (ISO 28500:2017) as gzip members, and the files that they are appended to.

Ids are made of what a record holds, not of chance; dates are those of the clock. Digests are SHA-1
in base 32, as other crawlers write them. The file that is being written has a hidden name; it gets
its own when it is full or the crawl stops.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import deflate

from wit import __version__, storage
from wit.errors import StorageError
from wit.web.recording import Recording

LEVEL = 6  # of gzip


def digest(data: bytes) -> str:
    """The SHA-1 of some bytes, as `sha1:BASE32`."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def record_id(*parts: str) -> str:
    """The id of a record that holds this."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(parts))}>"


def pack(kind: str, moment: float, block: bytes, fields: dict[str, str | None]) -> bytes:
    """One record as a gzip member; fields that are None are left out. `moment` is Unix time."""
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    fields = {"WARC-Type": kind, "WARC-Date": date, **fields}
    lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    lines.append(f"Content-Length: {len(block)}")
    head = "\r\n".join([*lines, "", ""]).encode()
    return bytes(deflate.gzip_compress(head + block + b"\r\n\r\n", LEVEL))


def pack_exchange(url: str, recording: Recording) -> tuple[bytes, bytes]:
    """The request record and the response record of an exchange, packed."""
    block = recording.head + recording.body
    payload = digest(bytes(recording.body))
    about = {"WARC-Target-URI": url, "WARC-IP-Address": recording.address}
    response_id = record_id("response", url, digest(block))
    request = pack(
        "request",
        recording.moment,
        recording.asked,
        {
            "WARC-Record-ID": record_id("request", url, response_id),
            **about,
            "WARC-Concurrent-To": response_id,
            "WARC-Block-Digest": digest(recording.asked),
            "WARC-Payload-Digest": digest(b""),
            "Content-Type": "application/http; msgtype=request",
        },
    )
    response = pack(
        "response",
        recording.moment,
        block,
        {
            "WARC-Record-ID": response_id,
            **about,
            "WARC-Truncated": recording.truncated,
            "WARC-Block-Digest": digest(block),
            "WARC-Payload-Digest": payload,
            "Content-Type": "application/http; msgtype=response",
        },
    )
    return request, response


def file_name(number: int) -> str:
    """The name of a crawl's WARC file: 00000.warc.gz, 00001.warc.gz, ..."""
    return f"{number:05d}.warc.gz"


@dataclass(frozen=True)
class Place:
    """How far a crawl's WARC files are written.

    Attributes:
        number: of the file that is being written.
        length: its bytes.
        content: bytes of its records' blocks before packing, which decide when it is full: unlike
            the packed ones they do not change with the date.
    """

    number: int = 0
    length: int = 0
    content: int = 0


class WarcFiles:
    """The WARC files of a crawl, appended to from `place` on: what lies beyond it is removed."""

    def __init__(self, folder: str, place: Place, user_agent: str, most: int) -> None:
        self.folder, self.user_agent, self.most = folder, user_agent, most
        self.place = place
        storage.make_folder(folder)
        with storage.explained(folder):
            self._go_back()
            self._file = self._open(place.number)

    def _hidden(self, number: int) -> str:
        return storage.join(self.folder, f".{file_name(number)}.open")

    def _open(self, number: int) -> BinaryIO:
        return open(self._hidden(number), "ab")

    def _go_back(self) -> None:
        """Makes the folder what it was when `place` was reached."""
        number, hidden = self.place.number, self._hidden(self.place.number)
        kept = {file_name(n) for n in range(number)} | {file_name(number)}
        for name in os.listdir(self.folder):
            ours = name.endswith((".warc.gz", ".warc.gz.open"))
            if ours and name not in kept and name != os.path.basename(hidden):
                os.unlink(os.path.join(self.folder, name))
        with contextlib.suppress(FileNotFoundError):
            os.replace(storage.join(self.folder, file_name(number)), hidden)
        with open(hidden, "ab") as file:
            if file.tell() < self.place.length:
                raise StorageError(
                    f"{storage.join(self.folder, file_name(number))}: shorter than when the crawl "
                    "stopped; put it back, or start again with another --out"
                )
            file.truncate(self.place.length)

    def append(self, records: Sequence[bytes], content: int) -> list[int]:
        """Appends packed records that belong together; the offset of each.

        `content` is the bytes of their blocks. A file that is full is finished first.
        """
        if self.place.content and self.place.content + content > self.most:
            self.finish()
            self.place = Place(self.place.number + 1)
            self._file = self._open(self.place.number)
        length, offsets = self.place.length, []
        with storage.explained(self.folder):
            if not length:
                length += self._file.write(self._info())
            for record in records:
                offsets.append(length)
                length += self._file.write(record)
        self.place = Place(self.place.number, length, self.place.content + content)
        return offsets

    def flush(self) -> None:
        """Makes sure that what was appended is on the disk."""
        with storage.explained(self.folder):
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Closes the file and gives it its name; an empty one is removed."""
        if self._file.closed:
            return
        self.flush()
        self._file.close()
        hidden = self._hidden(self.place.number)
        if self.place.length:
            os.replace(hidden, storage.join(self.folder, file_name(self.place.number)))
        else:
            os.unlink(hidden)

    def close(self) -> None:
        """Closes the file without flushing: what was not committed is cut off on resume."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _info(self) -> bytes:
        name = file_name(self.place.number)
        lines = [
            f"software: WebImageText/{__version__}",
            "format: WARC File Format 1.1",
            "conformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/"
            "warc-1.1/",
            "robots: obey",
            f"http-header-user-agent: {self.user_agent}",
        ]
        block = "\r\n".join([*lines, ""]).encode()
        fields = {
            "WARC-Record-ID": record_id("warcinfo", name, digest(block)),
            "WARC-Filename": name,
            "WARC-Block-Digest": digest(block),
            "Content-Type": "application/warc-fields",
        }
        return pack("warcinfo", time.time(), block, fields)
