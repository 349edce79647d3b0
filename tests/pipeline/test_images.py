"""Pictures in, pictures out: sizes, colours, orientation, what is kept, what is refused."""

import io
import json
import tarfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageStat, PngImagePlugin, TiffImagePlugin

from pipeline.fetch.formats import sniff, strip
from pipeline.fetch.images import check_codecs, decode_resize, target_size
from pipeline.fetch.policy import FetchPolicy
from wit.errors import UserError
from wit.outcomes import OUTCOMES

AGENT = "TestBot/1.0 (+https://example.org/bot)"
KEEP = {"resize_mode": "no"}


@pytest.fixture(autouse=True)
def _no_limit_of_pillows_own(monkeypatch):
    """The decoder process switches this limit off: the policy has its own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


def policy(**changes) -> FetchPolicy:
    return FetchPolicy(AGENT, **changes)


def photo(width: int = 320, height: int = 240, mode: str = "RGB") -> Image.Image:
    """A picture whose corners differ: black, and ever brighter clockwise."""
    ramp = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", [ramp, ramp.rotate(180), ramp.rotate(90).resize(ramp.size)]).convert(
        mode
    )


def stored(picture: Image.Image, kind: str = "JPEG", **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def reopened(decoded) -> Image.Image:
    assert decoded.outcome == "success", decoded.message
    picture = Image.open(io.BytesIO(decoded.image))
    picture.load()
    return picture


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


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


# --- orientation, colours ---------------------------------------------------------------------


def test_every_exif_orientation_gives_the_upright_picture(shared_data):
    upright = {}
    seen = 0
    with tarfile.open(shared_data / "torture" / "images.tar.xz") as archive:
        for member in archive:
            if "exif-orientation/" not in member.name or not member.name.endswith(".jpg"):
                continue
            decoded = decode_resize(archive.extractfile(member).read(), policy())
            shape = member.name.rpartition("/")[2].partition("_")[0]
            landscape = decoded.original_width > decoded.original_height
            assert landscape == (shape == "Landscape")
            picture = reopened(decoded)
            assert not picture.getexif()
            assert difference(upright.setdefault(shape, picture), picture) < 8
            seen += 1
    assert seen == 18


def test_transparency_is_matted_on_white():
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    clear.paste((0, 0, 0, 128), (32, 0, 64, 64))
    palette = clear.convert("P")
    palette.info["transparency"] = 0
    for data in (stored(clear, "PNG"), stored(clear, "WEBP", lossless=True)):
        decoded = decode_resize(data, policy(encode_format="png", encode_quality=1, **KEEP))
        picture = reopened(decoded)
        assert picture.mode == "RGB"
        assert (picture.getpixel((5, 5)), picture.getpixel((60, 60))) == (
            (255, 255, 255),
            (127, 127, 127),
        )


def test_16_bit_keeps_the_upper_byte():
    levels = Image.new("I;16", (2, 1))
    levels.putpixel((0, 0), 256 * 200 + 77)
    levels.putpixel((1, 0), 255)
    options = policy(encode_format="png", encode_quality=1, **KEEP)
    for kind in ("PNG", "TIFF"):
        picture = reopened(decode_resize(stored(levels, kind), options))
        assert (picture.mode, list(picture.get_flattened_data())) == ("L", [200, 0])


def test_other_modes_become_rgb_or_grey():
    for mode, kind, expected in (
        ("L", "JPEG", "L"),
        ("CMYK", "JPEG", "RGB"),
        ("P", "PNG", "RGB"),
        ("1", "PNG", "L"),
        ("LA", "PNG", "RGB"),
        ("F", "TIFF", "L"),
        ("LAB", "TIFF", "RGB"),
    ):
        assert reopened(decode_resize(stored(photo(mode=mode), kind), policy())).mode == expected


def test_an_icc_profile_is_applied_and_gone():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    plain = decode_resize(stored(photo(), quality=95), policy(**KEEP))
    tagged = decode_resize(stored(photo(), quality=95, icc_profile=srgb.tobytes()), policy(**KEEP))
    assert tagged.image == plain.image  # sRGB changes nothing

    red = Image.new("RGB", (64, 64), (255, 0, 0))
    for mode, data in (
        ("jpg", stored(red, quality=95, icc_profile=with_red_and_blue_exchanged(srgb.tobytes()))),
        ("png", stored(red, "PNG", icc_profile=with_red_and_blue_exchanged(srgb.tobytes()))),
    ):
        settings = policy(encode_format=mode, encode_quality=9, **KEEP)
        seen = reopened(decode_resize(data, settings))
        assert "icc_profile" not in seen.info
        assert seen.getpixel((9, 9))[0] < 20
        assert seen.getpixel((9, 9))[2] > 235


def with_red_and_blue_exchanged(srgb: bytes) -> bytes:
    """A valid profile of a strange screen, under a name that does not say sRGB."""
    exchanged = srgb.replace(b"rXYZ", b"none").replace(b"bXYZ", b"rXYZ").replace(b"none", b"bXYZ")
    return exchanged.replace("sRGB".encode("utf-16-be"), "Odd!".encode("utf-16-be"))


def test_a_broken_icc_profile_is_no_reason_to_lose_a_picture():
    decoded = decode_resize(stored(photo(), icc_profile=b"junk" * 50), policy())
    assert decoded.outcome == "success"


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        moving = stored(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        red, green, _ = reopened(decode_resize(moving, policy(**KEEP))).getpixel((5, 5))
        assert red > 240
        assert green < 20


# --- what is kept -----------------------------------------------------------------------------


def with_metadata(kind: str) -> bytes:
    picture = photo(256, 256)
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.6)}
    options = {"exif": exif.tobytes(), "xmp": b"<x:xmpmeta>secret place</x:xmpmeta>"}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "secret place")
        options = {"exif": exif.tobytes(), "pnginfo": text, "compress_level": 1}
    if kind == "JPEG":
        options["comment"] = b"secret place"
        return stored(picture, kind, **options) + b"secret place"
    return stored(picture, kind, lossless=True, **options)


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_original_bytes_are_kept_without_metadata_where_nothing_changes(kind, extension):
    data = with_metadata(kind)
    quality = {"png": 6}.get(extension, 95)
    keep = policy(encode_format=extension, encode_quality=quality)
    decoded = decode_resize(data, keep)
    picture = reopened(decoded)
    original = Image.open(io.BytesIO(data))
    assert list(picture.get_flattened_data()) == list(original.get_flattened_data())
    assert len(decoded.image) < len(data)
    for secret in (b"secret", b"Canon", b"Exif", b"EXIF", b"eXIf", b"xmp"):
        assert secret not in decoded.image
    assert json.loads(decoded.exif)["Image Make"] == "Canon"
    assert "GPS" not in decoded.exif
    # A second time there is nothing left to remove.
    assert decode_resize(decoded.image, keep).image == decoded.image
    again = policy(encode_format=extension, encode_quality=quality, skip_reencode=False)
    assert decode_resize(data, again).image != decoded.image


def test_bytes_are_not_kept_where_something_must_change():
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (
        stored(photo(256, 256), exif=exif.tobytes()),
        stored(photo(256, 256, "CMYK")),
        stored(photo(256, 256), "PNG"),
        stored(photo(256, 255)),
    ):
        decoded = decode_resize(data, policy())
        assert decoded.image not in data
        assert reopened(decoded).size == (256, 256)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_stripping_never_crashes_and_never_adds(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))
    whole = bytearray(with_metadata(kind))
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    kept = strip(whole, kind.lower())
    assert kept is None or len(kept) <= len(whole) + 1


def test_the_same_bytes_give_the_same_bytes():
    data = stored(photo(1000, 700))
    first, second = (decode_resize(data, policy()) for _ in range(2))
    assert (first.image, first.sha256) == (second.image, second.sha256)


def test_exif_is_bounded_and_says_how_not_who_or_where():
    exif = Image.Exif()
    exif.update({0x010F: "Canon", 0x013B: "Jane Doe", 0x0131: "x" * 5000})
    exif.get_ifd(0x8769).update(
        {
            0x829D: TiffImagePlugin.IFDRational(14, 5),
            0xA431: "serial 123",
            0x9003: "2020:01:01 00:00:00",
        }
    )
    found = json.loads(decode_resize(stored(photo(), exif=exif.tobytes()), policy()).exif)
    assert found["EXIF FNumber"] == "14/5"
    assert found["EXIF DateTimeOriginal"] == "2020:01:01 00:00:00"
    assert len(found["Image Software"]) == 200
    assert "Jane" not in str(found)
    assert "serial" not in str(found)
    assert decode_resize(stored(photo()), policy()).exif is None


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
