"""What fuzz runs have found, each as the smallest input that shows it."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.fetch.images import decode_resize
from pipeline.fetch.policy import FetchPolicy
from pipeline.sources.source import Source
from pipeline.sources.tables import check_table
from tests.fuzz.mutate import mend_png
from tests.fuzz.targets import Pool
from wit.errors import UserError

POLICY = FetchPolicy("TestBot/1.0 (+https://example.org/bot)")


def _stored(image: Image.Image, kind: str, **options) -> bytearray:
    stored = io.BytesIO()
    image.save(stored, kind, **options)
    return bytearray(stored.getvalue())


def test_a_png_with_a_damaged_stream_is_undecodable_and_not_half_black():
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    png = _stored(Image.fromarray(noise), "PNG")
    png[4000:4040] = bytes(40)
    mend_png(png)
    assert decode_resize(bytes(png), POLICY).outcome == "undecodable"


def test_a_gif_that_announces_a_huge_first_frame_is_refused_before_memory_is_reserved():
    screen = b"GIF89a\n\0\n\0\xf0\0\0" + bytes(6)
    disposed = b"!\xf9\4\x09d\0\0\0"
    frame = b"," + bytes(4) + b"\xff\xff\xff\xff\0"
    pool = Pool()
    try:
        outcome, _ = pool(screen + disposed + frame + b"\2\2\x44\1\0;")
    finally:
        pool.close()
    assert outcome == "too_many_pixels"


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_a_fax_is_refused_for_a_damaged_one_shows_what_lay_in_memory(compression):
    fax = _stored(Image.new("1", (300, 200), 1), "TIFF", compression=compression)
    decoded = decode_resize(bytes(fax), POLICY)
    assert (decoded.outcome, decoded.message) == ("unsupported_format", "tiff (fax)")


def test_column_names_of_a_stranger_stay_on_the_line_of_the_error(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b'"a\nb\x1b[2J",c\n"1","2"\n')
    with pytest.raises(UserError, match=r"no column of .*it has a\ufffdb\ufffd\[2J, c") as error:
        check_table(Source(str(table), "table", format="csv"))
    assert str(error.value).isprintable()
