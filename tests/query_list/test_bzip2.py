"""Any split of a bzip2 file gives its blocks, each once; what is cut or damaged is never silent."""

import bz2
import contextlib
import io
import itertools
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_list import bzip2
from tests.query_list.real import DUMP, place
from wit import storage
from wit.errors import UserError

BLOCK_1 = 99_981  # bytes of a block at level 1, where nothing repeats
# bzip2 writes down which bytes a block has, a bit each. These bits are the magic numbers.
LIKE_A_BLOCK = b"BCGIOQSTWZ]^acfgiklo"
LIKE_AN_END = b"CEFGIJKNQUWZ[\\achk"


def text(seed: int, size: int, alphabet: bytes = bytes(range(32, 127))) -> bytes:
    """Bytes without a run, so that bzip2's blocks are full where they should be."""
    runs = itertools.groupby(random.Random(seed).choices(alphabet, k=2 * size))
    return bytes(itertools.islice((byte for byte, _ in runs), size))


def joined(data: bytes, cuts: list[int]) -> bytes:
    """What the splits between these cuts give, one behind the other."""
    bounds = [0, *sorted(cuts), len(data)]
    return b"".join(
        chunk for start, end in itertools.pairwise(bounds) for chunk in own(data, start, end)
    )


def own(data: bytes, start: int, end: int):
    for chunk, beyond in bzip2.chunks(io.BytesIO(data), "wiki.bz2", start, end):
        if beyond:
            return
        yield chunk


PLAIN = text(1, 3 * BLOCK_1 + 10)
SINGLE = bz2.compress(PLAIN, 1)
MULTI = b"".join(bz2.compress(PLAIN[i : i + 70_000], 1) for i in range(0, len(PLAIN), 70_000))
# The second block holds what looks like a block's begin, the third like a stream's end.
PLANTED = text(2, BLOCK_1) + text(3, BLOCK_1, LIKE_A_BLOCK) + text(4, BLOCK_1, LIKE_AN_END)
FALSE = bz2.compress(PLANTED + b" end", 1)


@settings(max_examples=25)
@given(st.data())
def test_any_cuts_give_the_same_bytes_of_one_stream_and_of_many(data):
    packed = data.draw(st.sampled_from([SINGLE, MULTI]))
    assert joined(packed, data.draw(st.lists(st.integers(0, len(packed)), max_size=4))) == PLAIN


@pytest.mark.parametrize("packed", [SINGLE, MULTI])
def test_a_magic_number_that_windows_cut_apart_is_found_once(packed, monkeypatch):
    marks = [bit for bit, _ in bzip2.find_magics(packed)]
    for bit in [*marks[-3:], *[bit for bit in marks if bit % 8 == 0][1:3]]:
        for inside in range(9):
            monkeypatch.setattr(bzip2, "WINDOW", bit // 8 + inside)
            assert joined(packed, []) == PLAIN


def test_a_block_belongs_to_the_split_in_which_its_magic_begins():
    bits = [bit for bit, begins in bzip2.find_magics(SINGLE) if begins]
    assert len(bits) == 4
    assert bits[0] == 32
    for bit in bits[1:]:
        at = bit // 8
        first = list(own(SINGLE, 0, at))
        assert b"".join(first) == PLAIN[: BLOCK_1 * len(first)]
        assert b"".join(own(SINGLE, 0, at + 1)) == PLAIN[: BLOCK_1 * (len(first) + 1)]
        assert next(own(SINGLE, at, at + 1)) == PLAIN[BLOCK_1 * len(first) :][:BLOCK_1]


def test_a_block_that_holds_magic_numbers_is_read_whole():
    marks = bzip2.find_magics(FALSE)
    begins = [begins for _, begins in marks]
    assert begins == [True, True, True, True, False, True, False], "the false ones are not there"
    assert joined(FALSE, []) == PLANTED + b" end"
    edges = {bit // 8 + step for bit, _ in marks for step in (0, 1)}
    for cut in edges:
        assert joined(FALSE, [cut]) == PLANTED + b" end", cut
    assert joined(FALSE, sorted(edges)) == PLANTED + b" end"


@settings(max_examples=15)
@given(st.data())
def test_magic_numbers_by_accident_change_nothing(data):
    places = data.draw(st.lists(st.integers(60, 8 * len(SINGLE) - 160), max_size=6, unique=True))
    kinds = {bit: data.draw(st.booleans()) for bit in places}
    cuts = data.draw(st.lists(st.integers(0, len(SINGLE)), max_size=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bzip2, "find_magics", lambda part: planted(part, kinds))
        assert joined(SINGLE, cuts) == PLAIN


def planted(part: bytes, kinds: dict[int, bool], find=bzip2.find_magics):
    """The magic numbers of a part of SINGLE, and those that are only said to be there."""
    start = 8 * SINGLE.index(part)
    here = {bit - start: kind for bit, kind in kinds.items() if 0 <= bit - start < 8 * len(part)}
    return sorted({**here, **dict(find(part))}.items())


def test_magic_numbers_are_found_at_every_bit_and_none_but_those():
    rng = random.Random(5)
    for shift in range(8):
        for magic, begins in ((bzip2.BLOCK, True), (bzip2.END, False)):
            for before in (0, 1, 2, 7):
                bits = 8 * before + shift
                value = (rng.getrandbits(bits) << 48 | magic) << 9 | rng.getrandbits(9)
                size = -(-(bits + 57) // 8)
                part = (value << (8 * size - bits - 57)).to_bytes(size, "big")
                assert bzip2.find_magics(part) == [(bits, begins)]
                assert bzip2.find_magics(part[: (bits + 47) // 8]) == []
    assert bzip2.find_magics(rng.randbytes(100_000)) == []


@settings(max_examples=60)
@given(st.data())
def test_a_bit_that_flipped_is_an_error_or_changes_nothing(data):
    packed = data.draw(st.sampled_from([MULTI, FALSE]))
    heads = [8 * at + i for at, _ in streams(packed) for i in range(-90, 130)]
    bit = data.draw(st.sampled_from(heads) | st.integers(0, 8 * len(packed) - 1))
    bit %= 8 * len(packed)
    cuts = data.draw(st.lists(st.integers(0, len(packed)), max_size=2))
    broken = bytearray(packed)
    broken[bit // 8] ^= 0x80 >> bit % 8
    with contextlib.suppress(UserError):
        assert joined(bytes(broken), cuts) == bz2.decompress(packed)


def streams(packed: bytes) -> list[tuple[int, int]]:
    """(first byte, end) of each stream."""
    found, at = [], 0
    while at < len(packed):
        stream = bz2.BZ2Decompressor()
        stream.decompress(packed[at:])
        end = len(packed) - len(stream.unused_data)
        found.append((at, end))
        at = end
    return found


@settings(max_examples=40)
@given(st.data())
def test_a_file_that_is_cut_is_an_error_that_names_the_byte(data):
    packed = data.draw(st.sampled_from([SINGLE, MULTI, FALSE]))
    ends = [end for _, end in streams(packed)]
    near = st.sampled_from(ends).flatmap(lambda end: st.integers(end - 20, end + 20))
    size = data.draw((near | st.integers(1, len(packed) - 1)).filter(lambda n: 0 < n < len(packed)))
    cut = packed[:size]
    if size in ends:  # a whole file of fewer streams
        assert joined(cut, []) == bz2.decompress(cut)
        return
    with pytest.raises(UserError, match=r"^wiki.bz2: (byte [\d,]+|does not begin)"):
        joined(cut, [])
    with pytest.raises(UserError, match=f"byte {size:,}.*cut"):
        bzip2.check_whole(io.BytesIO(cut), "wiki.bz2", size)
    bzip2.check_whole(io.BytesIO(packed), "wiki.bz2", len(packed))


def test_a_damaged_block_is_named_by_its_byte():
    bit = bzip2.find_magics(SINGLE)[2][0]
    broken = bytearray(SINGLE)
    broken[bit // 8 + 5000] ^= 1
    with pytest.raises(UserError, match=rf"^wiki.bz2: byte {bit // 8:,}: .*damaged"):
        joined(bytes(broken), [])
    for other in (0, 1):  # the splits without it do not mind
        start = bzip2.find_magics(SINGLE)[other][0] // 8
        assert next(own(bytes(broken), start, start + 1))


def test_the_real_dump_comes_out_as_the_bz2_module_unpacks_it(shared_data):
    packed = storage.read_bytes(place(shared_data, DUMP))
    assert joined(packed, [len(packed) // 3, len(packed) // 2]) == bz2.decompress(packed)


def test_blocks_of_equal_bytes_come_whole_though_they_are_fifty_times_as_large():
    zeros = bytes(100_000_000)
    chunks = list(own(bz2.compress(zeros), 0, 10**6))
    assert [len(chunk) for chunk in chunks] == [45_899_235, 45_899_235, 8_201_530]


def test_some_megabytes_are_held_whatever_the_size_of_the_file():
    packed = bz2.compress(random.Random(6).randbytes(900_000))
    tracemalloc.start()
    try:
        assert sum(map(len, own(packed * 9, 0, len(packed) * 9))) == 9 * 900_000
        peak = tracemalloc.get_traced_memory()[1] - 9 * len(packed)
    finally:
        tracemalloc.stop()
    assert peak < 9_000_000


@pytest.mark.parametrize("filling", [bytes(8), bzip2.BLOCK.to_bytes(6, "big")])
def test_a_hostile_file_is_refused_after_little_work(filling):
    head = b"BZh9" + bzip2.BLOCK.to_bytes(6, "big")
    file = io.BytesIO(head + filling * (10_000_000 // len(filling)))
    with pytest.raises(UserError, match=r"byte 4: .*damaged"):
        next(bzip2.chunks(file, "wiki.bz2", 0, 10**9))
    assert file.tell() <= bzip2.LONGEST + 3 * bzip2.WINDOW


def test_what_is_not_bzip2_or_has_no_block_is_said():
    for data in (b"<mediawiki>", b"BZh0" + SINGLE[4:], b"BZh9" + bytes(99), b"BZh"):
        with pytest.raises(UserError, match="does not begin as a bzip2 file does"):
            joined(data, [])
    second = streams(MULTI)[1][0]
    for data in (MULTI + b"more", MULTI[:second] + b"b" + MULTI[second + 1 :]):
        with pytest.raises(UserError, match="neither does the file nor does another stream follow"):
            joined(data, [])
    assert joined(bz2.compress(b""), []) == b""
    assert joined(bz2.compress(b"") + SINGLE, [7]) == PLAIN
