"""Pictures on their way to the decoder processes and back."""

import asyncio
import io
import os
import random
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipeline.fetch.decoder import slot_bytes
from pipeline.fetch.images import decode_resize
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.pool import DecoderPool, _shared_file
from wit.errors import UserError

MEGABYTE = 1_000_000
shared_in_memory = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file is shared")


def policy(**changes) -> FetchPolicy:
    settings = {"max_bytes": 4 * MEGABYTE, "decode_workers": 2, **changes}
    return FetchPolicy("TestBot/1.0 (+https://example.org/bot)", **settings)


def picture(shade: int, size: int) -> bytes:
    """A JPEG of one shade, with bytes after its end that make the file as large as asked."""
    data = io.BytesIO()
    Image.new("L", (300, 200), shade).save(data, "JPEG")
    return data.getvalue().ljust(size, b"\0")


def decode_all(pictures: list[bytes], settings: FetchPolicy):
    async def run():
        pool = DecoderPool(settings)
        pool.start()
        try:
            return await asyncio.gather(*map(pool.decode, pictures))
        finally:
            await pool.close()

    return asyncio.run(run())


def test_pictures_of_all_sizes_come_back_as_what_they_are():
    chance = random.Random(0)
    sizes = [1000, 3 * MEGABYTE, 5000, 4 * MEGABYTE, 1, 200_000] * 8
    pictures = [picture(chance.randrange(256), size) for size in sizes]
    results = decode_all(pictures, policy())
    for data, result in zip(pictures, results, strict=True):
        assert result == decode_resize(data, policy())


def test_a_picture_that_has_no_room_is_named():
    small = policy(max_bytes=10_000, decode_workers=1)
    results = decode_all([picture(9, 10_000), picture(9, 10_001), picture(9, 3000)], small)
    assert [result.outcome for result in results] == ["success", "too_many_bytes", "success"]


@pytest.mark.parametrize("agent", ["hasty", "patient"])
def test_decoders_that_answer_nonsense_end_the_run_and_are_not_started_for_ever(agent, monkeypatch):
    monkeypatch.setattr("pipeline.fetch.pool.DECODER", "tests.babbling_decoder")

    async def run():
        pool = DecoderPool(replace(policy(), user_agent=f"{agent}/1.0 (+https://example.org)"))
        pool.start()
        try:
            async with asyncio.timeout(20):
                asked = [pool.decode(picture(shade, 1000)) for shade in range(8)]
                first = await asyncio.gather(*asked, return_exceptions=True)
                return first, await asyncio.gather(pool.decode(b""), return_exceptions=True)
        finally:
            await pool.close()

    first, (after,) = asyncio.run(run())
    errors = [result for result in first if isinstance(result, UserError)]
    assert "3 picture decoders in a row answer nonsense" in str(errors[0])
    assert {r.outcome for r in first if r not in errors} <= {"decoder_crashed"}
    assert len(errors) >= 6
    assert str(after) == str(errors[0])
    assert len(set(map(id, [*errors, after]))) == len(errors) + 1


@shared_in_memory
def test_the_memory_of_large_pictures_is_given_back():
    async def run():
        pool = DecoderPool(policy(decode_workers=1))
        pool.start()
        held = []
        for size in (4 * MEGABYTE, 4 * MEGABYTE, 1000):
            await pool.decode(picture(7, size))
            held.append(held_of_decoders())
        await pool.close()
        return held

    assert max(asyncio.run(run())) < 2 * MEGABYTE


def held_of_decoders() -> int:
    """Bytes of the memory shared with the decoder that are in use."""
    maps = Path("/proc/self/smaps").read_text()
    (kilobytes,) = re.findall(r"/memfd:pictures.*?^Pss: +(\d+) kB", maps, re.DOTALL | re.MULTILINE)
    return int(kilobytes) * 1024


@shared_in_memory
def test_a_decoder_cannot_shorten_the_memory_it_shares():
    with _shared_file(slot_bytes(1000)) as file, pytest.raises(PermissionError):
        os.ftruncate(file, 0)
