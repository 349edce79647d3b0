"""Pictures out: upright, in sRGB, without metadata; the original bytes where nothing changes."""

import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from pipeline.fetch.formats import strip
from pipeline.fetch.images import decode_resize
from tests.pipeline.pictures import KEEP, difference, photo, policy, reopened, stored

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
