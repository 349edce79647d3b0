"""Pictures in: sizes, what is refused, which formats are read, and strangers' bytes."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.fetch import resize
from pipeline.fetch.formats import sniff
from pipeline.fetch.images import check_codecs, decode_resize, target_size
from pipeline.fetch.policy import FetchPolicy
from tests.pipeline.pictures import KEEP, difference, photo, policy, reopened, stored
from wit.errors import UserError
from wit.outcomes import OUTCOMES


@pytest.fixture(autouse=True)
def _no_limit_of_pillows_own(monkeypatch):
    """The decoder process switches this limit off: the policy has its own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


# --- sizes: (width, height, mode) -> width, height as img2dataset 1.47 with albumentations 1.4 ----

SIZES = [
    (470, 400, "border", 256, 218),
    (470, 400, "keep_ratio", 301, 256),
    (500, 333, "keep_ratio_largest", 256, 170),
    (333, 500, "keep_ratio", 256, 384),
    (640, 480, "keep_ratio", 341, 256),
    (1600, 1004, "keep_ratio", 408, 256),
    (1600, 1004, "border", 256, 161),
    (256, 255, "keep_ratio", 257, 256),
    (100, 80, "keep_ratio_largest", 256, 205),
    (100, 80, "center_crop", 320, 256),
    (512, 3, "keep_ratio", 43691, 256),
    (512, 3, "border", 256, 2),
    (3, 1000, "keep_ratio_largest", 1, 256),
    (1000, 1, "border", 256, 1),
    (1000, 999, "keep_ratio", 256, 256),
]


@pytest.mark.parametrize(("width", "height", "mode", "new_width", "new_height"), SIZES)
def test_sizes_are_img2datasets(width, height, mode, new_width, new_height):
    assert target_size(width, height, policy(resize_mode=mode)) == (new_width, new_height)


def test_nothing_is_resized_without_need():
    assert target_size(256, 256, policy()) is None
    assert target_size(256, 200, policy(resize_mode="keep_ratio_largest")) is None
    assert target_size(256, 200, policy()) == (256, 200)  # it is padded
    assert target_size(200, 100, policy(resize_only_if_bigger=True)) is None
    assert target_size(5000, 4000, policy(**KEEP)) is None


@pytest.mark.parametrize(
    ("size", "top", "bottom"), [((470, 400), 19, 19), ((500, 333), 43, 43), ((301, 300), 0, 1)]
)
def test_padding_is_white_with_the_odd_row_below(size, top, bottom):
    grey = stored(Image.new("RGB", size, (90, 90, 90)), "PNG")
    padded = reopened(decode_resize(grey, policy(encode_format="png", encode_quality=1)))
    assert padded.size == (256, 256)
    column = [padded.getpixel((128, y))[0] for y in range(256)]
    assert column == [255] * top + [90] * (256 - top - bottom) + [255] * bottom


def test_a_crop_is_taken_from_the_middle():
    wide = Image.new("RGB", (400, 200), (255, 0, 0))
    wide.paste((0, 0, 255), (100, 0, 300, 200))
    options = {"resize_mode": "center_crop", "encode_format": "png", "encode_quality": 1}
    cropped = reopened(decode_resize(stored(wide, "PNG"), policy(image_size=200, **options)))
    assert cropped.size == (200, 200)
    assert cropped.getcolors() == [(200 * 200, (0, 0, 255))]


@pytest.mark.parametrize("size", [(5, 160), (1, 900), (400, 10), (2, 64), (500, 7)])
@pytest.mark.parametrize("kind", ["L", "RGB", "turned"])
def test_of_a_thin_picture_only_the_crop_is_enlarged(monkeypatch, size, kind):
    enlarge, sizes = Image.Image.resize, []

    def watched(picture, size, *options):
        sizes.append(size[0] * size[1])
        return enlarge(picture, size, *options)

    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(noise if kind != "L" else noise[:, :, 0])
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    options = policy(resize_mode="center_crop", encode_format="png", encode_quality=1)
    monkeypatch.setattr(Image.Image, "resize", watched)
    decoded = decode_resize(stored(picture, "PNG", exif=exif), options)
    assert max(sizes) <= 256 * 256 + 32 * 32
    upright = picture.transpose(Image.Transpose.ROTATE_270) if kind == "turned" else picture
    grown = target_size(*upright.size, options)
    whole = np.asarray(enlarge(upright, grown, Image.Resampling.LANCZOS))
    expected = resize.crop(whole, 256).astype(int)
    assert np.abs(expected - np.asarray(reopened(decoded))).max() <= 2
    assert (decoded.width, decoded.height) == (256, 256)
    assert (decoded.original_width, decoded.original_height) == upright.size


@pytest.mark.parametrize("size", [(320, 240), (500, 375), (1600, 1200), (2100, 1500)])
def test_a_jpeg_decoded_at_a_part_of_its_size_looks_like_the_whole(size):
    picture = photo(*size)
    data = stored(picture, quality=95)
    small = reopened(decode_resize(data, policy(resize_mode="keep_ratio_largest")))
    whole = Image.open(io.BytesIO(data)).resize(small.size, Image.Resampling.LANCZOS)
    assert difference(small, whole) < 1.5


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "outcome", "message"),
    [
        (b"", "unsupported_format", "empty"),
        (b" \n", "unsupported_format", "blank"),
        (b"<!DOCTYPE html><html></html>", "unsupported_format", "html"),
        (b"\n <HTML>\n<body>", "unsupported_format", "html"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', *("",) * 2),
        (b"<?xml version='1.0'?><rss/>", "unsupported_format", "xml"),
        (b'{"error": "not found"}', "unsupported_format", "json"),
        (b"not found", "unsupported_format", "text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format", "heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "unsupported_format", "heic"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "unsupported_format", "mp4"),
        (b"\0\0\1\0\1\0\x10\x10", "unsupported_format", "ico"),
        (b"\xff\x0a\x7f", "unsupported_format", "jxl"),
        (b"%PDF-1.7", "unsupported_format", "pdf"),
        (b"\x01\x02\x03\x04", "unsupported_format", "unknown"),
    ],
)
def test_what_is_no_picture_is_named(data, outcome, message):
    decoded = decode_resize(data, policy())
    assert (decoded.outcome, decoded.message) == (
        outcome or "unsupported_format",
        message or "svg",
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"])
def test_all_promised_formats_are_decoded_and_their_damage_is_noticed(kind):
    data = stored(photo(), kind)
    decoded = decode_resize(data, policy(resize_mode="no"))
    assert difference(reopened(decoded), photo()) < (25 if kind == "GIF" else 6)
    assert (decoded.width, decoded.height) == (320, 240)
    for cut in (len(data) // 3, len(data) - 20 if kind == "JPEG" else len(data) // 2):
        assert decode_resize(data[:cut], policy()).outcome == "undecodable"


def test_too_many_pixels_are_refused_by_the_header_alone():
    bomb = bytearray(stored(photo(), "PNG"))
    bomb[16:24] = (50_000).to_bytes(4) * 2
    crc = zlib.crc32(bomb[12:29])
    bomb[29:33] = crc.to_bytes(4)
    decoded = decode_resize(bytes(bomb), policy())
    assert (decoded.outcome, decoded.message) == ("too_many_pixels", "50000x50000")
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"):
        data = stored(photo(), kind)
        assert decode_resize(data, policy(max_pixels=320 * 240)).outcome == "success"
        assert decode_resize(data, policy(max_pixels=320 * 240 - 1)).outcome == "too_many_pixels"


def test_a_thin_picture_does_not_grow_without_bounds():
    thin = stored(Image.new("L", (1, 20_000)), "PNG")
    decoded = decode_resize(thin, policy(resize_mode="center_crop"))
    assert (decoded.outcome, decoded.message) == ("too_many_pixels", "256x5120000")


def test_small_and_elongated_pictures_are_refused_where_asked():
    data = stored(photo(300, 100))
    assert decode_resize(data, policy(min_image_size=100)).outcome == "success"
    assert decode_resize(data, policy(min_image_size=101)).outcome == "too_small"
    assert decode_resize(data, policy(max_aspect_ratio=3.0)).outcome == "success"
    assert decode_resize(data, policy(max_aspect_ratio=2.9)).outcome == "too_elongated"


def test_a_picture_that_its_output_format_cannot_hold():
    wide = stored(Image.new("L", (17_000, 1)), "PNG")
    decoded = decode_resize(wide, policy(encode_format="webp", **KEEP))
    assert decoded.outcome == "encode_failed"


# --- animations -------------------------------------------------------------------------------


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        moving = stored(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        red, green, _ = reopened(decode_resize(moving, policy(**KEEP))).getpixel((5, 5))
        assert red > 240
        assert green < 20


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_second_frame_makes_an_animation(kind):
    frames = {"save_all": True, "append_images": [photo().rotate(180)], "duration": 50}
    assert decode_resize(stored(photo(), kind, **frames), policy()).animated is True
    assert decode_resize(stored(photo(), kind), policy()).animated is False


def test_pages_and_views_are_no_animation():
    for kind in ("TIFF", "MPO"):
        several = stored(photo(), kind, save_all=True, append_images=[photo().rotate(180)])
        assert Image.open(io.BytesIO(several)).n_frames == 2
        assert decode_resize(several, policy()).animated is False


def test_an_animation_is_known_without_its_other_frames_and_not_of_what_shows_nothing():
    noise = Image.effect_noise((320, 240), 50)
    moving = stored(photo(), "GIF", save_all=True, append_images=[noise], duration=50)
    cut = decode_resize(moving[:-50_000], policy())  # within the second frame
    assert (cut.outcome, cut.animated) == ("success", True)
    assert decode_resize(moving[:5000], policy()).animated is None
    without_its_head = stored(photo(), "GIF")[:-1] + b",\0\0"
    ended = decode_resize(without_its_head, policy())
    assert (ended.outcome, ended.animated) == ("success", False)
    assert decode_resize(moving, policy(min_image_size=1000)).animated is None


def test_a_gif_with_a_hundred_frames_costs_as_much_as_one_with_two(monkeypatch):
    from PIL import GifImagePlugin

    loaded, load = [], GifImagePlugin.GifImageFile.load
    monkeypatch.setattr(
        GifImagePlugin.GifImageFile, "load", lambda self: loaded.append(self.tell()) or load(self)
    )
    frames = [photo(32, 24).rotate(3 * turn) for turn in range(1, 100)]
    moving = stored(photo(32, 24), "GIF", save_all=True, append_images=frames, duration=50)
    assert decode_resize(moving, policy()).animated is True
    assert set(loaded) == {0}


# --- strangers --------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_pictures_never_raise(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
    whole = bytearray(stored(photo(40, 30), kind))
    for _ in range(data.draw(st.integers(1, 12))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    decoded = decode_resize(bytes(whole), policy(max_pixels=1_000_000))
    assert decoded.outcome in OUTCOMES


@given(st.binary(max_size=64))
def test_any_bytes_have_a_name(data):
    assert sniff(data)


def test_the_installation_is_checked_before_the_first_picture(monkeypatch):
    check_codecs()
    monkeypatch.setattr("PIL.features.check", lambda name: name != "avif")
    with pytest.raises(UserError, match="without avif"):
        check_codecs()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resize_mode": "squash"}, "resize mode 'squash'"),
        ({"encode_format": "gif"}, "encode format 'gif'"),
        ({"encode_quality": 101}, "jpg takes 1 to 100"),
        ({"encode_format": "png"}, "png takes 0 to 9"),
        ({"image_size": 0}, "image size: 0 is below 1"),
        ({"decode_seconds": 0.0}, "decode seconds: 0.0 is not above 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        policy(**changes)
    assert FetchPolicy.from_json(policy().to_json()) == policy()
