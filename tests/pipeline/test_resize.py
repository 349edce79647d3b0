"""Pictures made smaller by area, and JPEGs by libjpeg-turbo: what Pillow and arithmetic say."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.fetch import images, jpeg
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.resize import crop, pad, shrink

POLICY = FetchPolicy("TestBot/1.0 (+https://example.org/bot)")


def parts(inside: int, outside: int, part: int, full: int) -> np.ndarray:
    """outside x inside: how much of each output pixel an input pixel fills."""
    edges = np.arange(outside + 1) * full / outside
    low, high = np.arange(inside) * part, np.arange(1, inside + 1) * part
    shared = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.clip(shared, 0, None) * outside / full


@settings(max_examples=60)
@given(st.data())
def test_each_pixel_is_the_mean_of_the_area_it_covers(data):
    part = data.draw(st.sampled_from([1, 1, 2, 4, 8]))
    full_height, full_width = data.draw(st.integers(part, 90)), data.draw(st.integers(part, 90))
    height, width = -(-full_height // part), -(-full_width // part)
    size = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    channels = data.draw(st.sampled_from([(), (3,), (4,)]))
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pixels = chance.integers(0, 256, (height, width, *channels), np.uint8)
    rows = parts(height, size[1], part, full_height)
    columns = parts(width, size[0], part, full_width)
    mean = np.einsum("yh,hw...,xw->yx...", rows, pixels.astype(float), columns)
    small = shrink(pixels, size, (full_width, full_height), part)
    assert small.shape == (size[1], size[0], *channels)
    assert np.abs(small - mean).max() < 0.51


def test_a_size_that_is_not_smaller_or_not_the_pictures_is_a_mistake():
    pixels = np.zeros((40, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="30x40 pixels are not 31x40 at 1/1"):
        shrink(pixels, (10, 10), (31, 40))
    with pytest.raises(ValueError, match="30x40 pixels do not get smaller to 31x10"):
        shrink(pixels, (31, 10), (30, 40))


def test_padding_is_white_and_what_is_cropped_comes_from_the_middle():
    grey = np.full((3, 8), 90, np.uint8)
    assert pad(grey, 8).tolist() == [[255] * 8] * 2 + [[90] * 8] * 3 + [[255] * 8] * 3
    assert crop(np.arange(7)[None].repeat(2, 0), 2).tolist() == [[2, 3], [2, 3]]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_turbo_and_pillow_see_the_same_picture(clothes, mode, options, monkeypatch):
    for picture in clothes:
        data = saved(picture.convert(mode), quality=90, **options)
        seen = images.decode_resize(data, POLICY)
        with monkeypatch.context() as without:
            without.setattr(jpeg, "decode", lambda *_: None)
            by_pillow = images.decode_resize(data, POLICY)
        # The same library decodes in both; the sampling may be smoothed otherwise.
        assert psnr(seen.image, by_pillow.image) > 45
        assert Image.open(io.BytesIO(seen.image)).mode == mode


def test_decoding_at_a_part_of_the_size_keeps_the_picture_in_its_place(clothes, monkeypatch):
    for picture in clothes:
        for side in (1537, 1601, 1999):  # no multiples of 4: the last row and column are partial
            large = picture.resize((side, side * 3 // 4 + 1), Image.Resampling.LANCZOS)
            data = saved(large, quality=90)
            at_a_part = images.decode_resize(data, POLICY).image
            size = images.target_size(*large.size, POLICY)
            whole = shrink(np.asarray(Image.open(io.BytesIO(data))), size, large.size)
            assert psnr(at_a_part, saved(Image.fromarray(pad(whole, 256)), quality=95)) > 40
            with monkeypatch.context() as without:
                without.setattr(jpeg, "decode", lambda *_: None)
                by_pillow = images.decode_resize(data, POLICY).image
            assert psnr(at_a_part, by_pillow) > 50


def test_a_sampling_that_turbo_has_no_name_for_is_read_by_pillow():
    data = bytearray(saved(Image.new("RGB", (64, 48), (200, 30, 60)), subsampling=0))
    factors = data.index(b"\xff\xc0") + 11  # of the brightness, in the frame's header
    data[factors] = 0x14  # 4:4:1, a quarter of the colours' rows
    seen = images.decode_resize(bytes(data), POLICY)
    assert (seen.outcome, seen.original_width, seen.original_height) == ("success", 64, 48)


def test_the_same_bytes_every_time(clothes):
    data = saved(clothes[0], quality=90)
    assert len({images.decode_resize(data, POLICY).image for _ in range(5)}) == 1


def test_turbo_decodes_no_other_size_than_the_one_that_was_checked(monkeypatch):
    data = saved(Image.new("RGB", (64, 48)))
    assert jpeg.decode(data, (64, 48), "RGB", 1).shape == (48, 64, 3)
    with monkeypatch.context() as watched:
        watched.setattr("simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("was decoded"))
        assert jpeg.decode(data, (64, 49), "RGB", 1) is None
    assert jpeg.decode(data[:-20], (64, 48), "RGB", 1) is None
    assert jpeg.decode(b"\xff\xd8\xff", (64, 48), "RGB", 1) is None


def test_whether_there_is_a_picture_is_pillows_to_say(shared_data, monkeypatch):
    with tarfile.open(shared_data / "torture" / "images.tar.xz") as archive:
        files = [
            archive.extractfile(member).read()
            for member in archive
            if member.isfile() and member.size < 300_000 and "jp" in member.name.lower()
        ]
    found = [images.decode_resize(data, POLICY) for data in files]
    monkeypatch.setattr(jpeg, "decode", lambda *_: None)
    by_pillow = [images.decode_resize(data, POLICY) for data in files]
    names = ("outcome", "message", "width", "height", "original_width", "original_height", "exif")
    for one, other in zip(found, by_pillow, strict=True):
        assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
    assert {"success", "undecodable"} <= {result.outcome for result in found}


@pytest.fixture(scope="module")
def clothes(shared_data) -> list[Image.Image]:
    with tarfile.open(shared_data / "images" / "clothing_cc0_300.tar") as archive:
        members = [member for member in archive if member.name.endswith(".jpg")][:120:40]
        files = [io.BytesIO(archive.extractfile(member).read()) for member in members]
    return [Image.open(file).convert("RGB") for file in files]


def saved(picture: Image.Image, **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", **options)
    return data.getvalue()


def psnr(one: bytes, other: bytes) -> float:
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in (one, other))
    return 10 * np.log10(255**2 / max(1e-9, ((a - b) ** 2).mean()))
