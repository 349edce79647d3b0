"""The perceptual hash: what imagehash says, the same whatever was done to a picture's bytes."""

import io
import itertools
import tarfile
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipeline.fetch import phash
from pipeline.fetch.images import decode_resize
from tests.pipeline.pictures import KEEP, photo, policy, stored

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "pipeline/demo/data/clothing_cc0_300.tar"
MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")


def hash_of(data: bytes, **changes) -> int:
    decoded = decode_resize(data, policy(**changes))
    assert decoded.outcome == "success", decoded.message
    return decoded.phash


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def by_imagehash(picture: Image.Image) -> int:
    return int(str(imagehash.phash(picture)), 16)


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """100 photographs of clothes, each the only thing before a plain ground: like one another."""
    with tarfile.open(PHOTOGRAPHS) as archive:
        members = [member for member in archive if member.name.endswith(".jpg")][::3]
        return [archive.extractfile(member).read() for member in members]


# --- as imagehash -----------------------------------------------------------------------------


def test_of_32x32_pixels_every_bit_is_imagehashs(photographs):
    for data in photographs:
        small = Image.open(io.BytesIO(data)).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        assert f"{phash.of_grey(np.asarray(small)):016x}" == str(imagehash.phash(small))


def test_of_whole_photographs_at_most_4_bits_differ_from_imagehashs(photographs):
    apart = [
        distance(hash_of(data), by_imagehash(Image.open(io.BytesIO(data)))) for data in photographs
    ]
    assert max(apart) <= 4
    assert np.mean(apart) < 1


@given(st.data())
def test_each_bit_says_whether_a_frequency_is_above_the_median(data):
    rows, columns = data.draw(st.sampled_from([(32, 32), (1, 32), (32, 1), (4, 4)]))
    seed, top = data.draw(st.integers(0, 2**32)), data.draw(st.sampled_from([2, 17, 256]))
    block = np.random.default_rng(seed).integers(0, top, (rows, columns), np.uint8)
    grey = np.kron(block, np.ones((32 // rows, 32 // columns), np.uint8))
    at = np.pi * (2 * np.arange(32) + 1) / 64
    cosines = np.cos(np.arange(8)[:, None] * at)
    frequencies = (cosines @ grey @ cosines.T).ravel()
    above = frequencies - np.median(frequencies)
    bits = np.array([int(bit) for bit in f"{phash.of_grey(grey):064b}"])
    sure = np.abs(above) > 0.01  # of up to 260,000: nearer, the cosines' last digits decide
    assert (bits == (above > 0))[sure].all()


def test_a_tie_is_a_tie_on_every_machine():
    for shade in (0, 1, 127, 255):
        flat = np.full((32, 32), shade, np.uint8)
        assert phash.of_grey(flat) == (1 << 63 if shade else 0)
    mirrored = np.random.default_rng(3).integers(0, 256, (32, 16), np.uint8)
    mirrored = np.hstack([mirrored, mirrored[:, ::-1]])
    bits = np.array([int(bit) for bit in f"{phash.of_grey(mirrored):064b}"]).reshape(8, 8)
    assert len(set(bits[:, 1::2].ravel())) == 1  # frequencies that a mirrored picture has none of


def test_the_cosines_do_not_hang_on_the_last_digit_of_a_machines_own():
    at = np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64
    exact = np.cos(at) * phash.ONE
    assert np.abs(exact - phash.COSINES).max() < 0.499
    assert np.array_equal(phash.COSINES[1::2], -phash.COSINES[1::2, ::-1])
    assert np.array_equal(phash.COSINES[::2], phash.COSINES[::2, ::-1])


def test_hashes_that_imagehash_gave_stay():
    rows, columns = np.mgrid[:32, :32]
    assert f"{phash.of_grey((rows * 7 + columns**2) % 256):016x}" == "81063c217ef55776"
    assert f"{phash.of_grey((rows * columns) % 251):016x}" == "813f78636c4952d5"


# --- a hash of the whole upright picture ------------------------------------------------------


@pytest.mark.parametrize("side", [64, 256, 512])
def test_it_hangs_neither_on_padding_nor_cropping_nor_size(photographs, side):
    apart = []
    for data in photographs[::4]:
        whole = hash_of(data, **KEEP)
        apart += [distance(whole, hash_of(data, resize_mode=m, image_size=side)) for m in MODES[1:]]
    assert max(apart) <= 4
    assert np.mean(apart) < 0.6


def test_a_wide_picture_is_hashed_whole():
    wide = np.asarray(photo(600, 200)).copy()
    wide[60:140, 20:90] = 255  # outside the square in the middle
    data = stored(Image.fromarray(wide), "PNG")
    assert distance(hash_of(stored(photo(600, 200), "PNG")), hash_of(data)) > 4
    hashes = [hash_of(data, resize_mode=mode) for mode in MODES]
    assert max(distance(hashes[0], other) for other in hashes) <= 2


def test_it_is_of_the_picture_turned_upright(photographs):
    turns = {1: 0, 3: 180, 6: 90, 8: 270}
    for data in photographs[::20]:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        for orientation, degrees in turns.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            turned = picture.rotate(degrees, expand=True)
            saved = stored(turned, quality=95, exif=exif.tobytes())
            assert distance(hash_of(saved), hash_of(data)) <= 2


def test_bytes_that_are_kept_have_the_hash_of_bytes_that_are_not():
    data = stored(photo(256, 256), quality=95)
    assert (
        hash_of(data) == hash_of(data, skip_reencode=False) == hash_of(data, encode_format="webp")
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (20, 900), (31, 33), (200, 1)])
def test_pictures_that_are_smaller_than_its_32_pixels_have_one(size):
    for mode in MODES:
        assert 0 <= hash_of(stored(photo(*size), "PNG"), resize_mode=mode) < 1 << 64


def test_only_a_stored_picture_has_one():
    wide = stored(Image.new("L", (17_000, 1)), "PNG")
    refused = decode_resize(wide, policy(encode_format="webp", **KEEP))
    assert (refused.outcome, refused.phash, refused.animated) == ("encode_failed", None, False)
    cut = decode_resize(stored(photo())[:-900], policy())
    assert (cut.outcome, cut.phash, cut.animated) == ("undecodable", None, None)


# --- near and far -----------------------------------------------------------------------------

EDITS = {  # what is done to a picture -> most bits, mean bits
    "half its size, quality 30": (lambda p: (p.reduce(2), {"quality": 30}), 4, 1),
    "quality 10": (lambda p: (p, {"quality": 10}), 10, 2),
    "no colour": (lambda p: (p.convert("L"), {}), 4, 0.5),
    "blurred": (lambda p: (p.filter(ImageFilter.GaussianBlur(2)), {}), 4, 0.6),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_is_saved_anew_is_near(photographs, edit):
    change, most, mean = EDITS[edit]
    apart = []
    for data in photographs:
        changed, options = change(Image.open(io.BytesIO(data)).convert("RGB"))
        apart.append(distance(hash_of(data), hash_of(stored(changed, **options))))
    assert max(apart) <= most
    assert np.mean(apart) <= mean


def test_different_photographs_are_far_apart_although_they_are_alike(photographs):
    hashes = [hash_of(data) for data in photographs]
    apart = [distance(one, other) for one, other in itertools.combinations(hashes, 2)]
    assert min(apart) >= 8
    assert np.mean(np.array(apart) <= 12) < 0.001
    assert 30 < np.mean(apart) < 33


@pytest.fixture(scope="module")
def near_duplicates(shared_data) -> dict[str, bytes]:
    """The pictures that PDQ, imagededup and perception are tested with, by their paths."""
    with tarfile.open(shared_data / "images" / "near_duplicates.tar.gz") as archive:
        return {
            member.name.removeprefix("./"): archive.extractfile(member).read()
            for member in archive
            if member.isfile() and member.name.endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
        }


@pytest.mark.parametrize(
    ("original", "others", "most"),
    [
        ("pdq/bridge-mods/aaa-orig.jpg", "pdq/bridge-mods/", 4),
        ("pdq/bridge-mods/aaa-orig.jpg", "pdq/misc-images/modes/", 0),
        ("imagededup/base_images/ukbench00120.jpg", "imagededup/mixed_images/ukbench00120_res", 0),
        ("imagededup/base_images/ukbench00120.jpg", "imagededup/ukbench00120_gray", 0),
        ("imagededup/base_images/ukbench09380.jpg", "imagededup/formats_images/ukbench09380", 0),
    ],
)
def test_others_near_duplicates_are_near(near_duplicates, original, others, most):
    whole = hash_of(near_duplicates[original])
    found = {name: hash_of(data) for name, data in near_duplicates.items() if others in name}
    assert found
    assert {name: distance(whole, other) for name, other in found.items()} == {
        name: pytest.approx(0, abs=most) for name in found
    }


def test_others_different_pictures_are_far_apart(near_duplicates):
    folders = ("labelme-subset/", "imagededup/base_images/", "perception/testing/images/")
    hashes = [hash_of(data) for name, data in near_duplicates.items() if any_in(folders, name)]
    hashes.append(hash_of(near_duplicates["pdq/bridge-mods/aaa-orig.jpg"]))
    assert len(hashes) > 25
    assert min(distance(a, b) for a, b in itertools.combinations(hashes, 2)) >= 18


def any_in(parts: tuple[str, ...], name: str) -> bool:
    return any(part in name for part in parts)
