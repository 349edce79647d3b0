"""Members of a tar, byte for byte as `tarfile` writes them (USTAR), in a twentieth of its time.

What does not change from member to member is taken from a header that `tarfile` made: a regular
file of nobody (owner, group and time 0, mode 0644), so equal members are equal bytes.
"""

import tarfile

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
MOST_NAME = 100  # bytes

# POSIX.1-1988 (ustar), offsets of the fields: name 0, mode 100, uid 108, gid 116, size 124,
# mtime 136, chksum 148, typeflag and all else 156.
_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_OWNER, _TIME, _REST = _HEADER[100:124], _HEADER[136:148], _HEADER[156:]
_SUM = sum(_OWNER) + sum(_TIME) + sum(_REST) + 8 * ord(" ")  # chksum counts as spaces


def member(name: str, data: bytes) -> bytes:
    """A file of this name (ASCII, at most 100 characters): header, data and padding."""
    named, size = name.encode("ascii"), b"%011o\0" % len(data)
    if len(named) > MOST_NAME:
        raise ValueError(f"{name}: more than {MOST_NAME} characters for a name in a tar")
    checksum = b"%06o\0 " % (_SUM + sum(named) + sum(size))
    named = named.ljust(MOST_NAME, b"\0")
    padding = bytes(-len(data) % BLOCK)
    return b"".join((named, _OWNER, size, _TIME, checksum, _REST, data, padding))


def end(size: int) -> bytes:
    """What ends a tar whose members are `size` bytes: two empty blocks, then up to a record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)
