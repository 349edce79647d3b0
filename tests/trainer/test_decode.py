"""Pictures: crops that depend on a key alone, open_clip's pixels, reasons for what is broken."""

import io
import itertools
import struct
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from trainer import decode
from trainer.decode import centre_crop, random_crop
from trainer.loader import Batch
from trainer.order import key_of, mix
from trainer.reader import Sample

keys = st.integers(0, 2**64 - 1)
sizes = st.integers(1, 700)


def stored(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that is nowhere like itself: smooth enough for a JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    return Image.fromarray(small.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def levels(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far two pictures are from each other, in grey levels."""
    return np.abs(one.astype(int) - other)


@pytest.fixture(scope="module")
def photographs(shared_data) -> dict[str, bytes]:
    """Real pictures as stored: JPEGs of 300 to 1,600 pixels, and PNGs and JPEGs of every mode."""
    alike = ("bridge-mods", "dih")  # one photograph many times
    with tarfile.open(shared_data / "images/near_duplicates.tar.gz") as archive:
        found = {
            member.name: archive.extractfile(member).read()
            for member in archive
            if Path(member.name).suffix in (".jpg", ".png")
            and Path(member.name).parent.name not in alike
        }
    with tarfile.open(shared_data / "images/clothing_cc0_300.tar") as archive:
        for member in archive.getmembers()[:40]:
            if member.name.endswith(".jpg"):
                found[member.name] = archive.extractfile(member).read()
    return found


# --- evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [224, 97])
def test_a_picture_for_evaluation_has_the_bytes_of_open_clip(photographs, side):
    reason = "no open_clip here: pip install open-clip-torch==3.3.0"
    transform = pytest.importorskip("open_clip.transform", reason=reason)
    steps = transform.image_transform(side, is_train=False).transforms[:-2]
    modes = set()
    for name, data in photographs.items():
        try:
            picture = Image.open(io.BytesIO(data))
            picture.load()
        except OSError:
            assert isinstance(centre_crop(data, side), str), name
            continue
        modes.add(picture.mode)
        theirs = picture.convert("RGB")  # as open_clip reads its shards and folders
        for step in steps:
            theirs = step(theirs)
        np.testing.assert_array_equal(centre_crop(data, side), np.asarray(theirs), err_msg=name)
    assert modes >= {"RGB", "L", "P", "LA", "RGBA", "CMYK"}


@pytest.mark.parametrize("size", [(31, 224), (224, 31), (1, 3), (224, 224), (225, 224), (640, 479)])
def test_sizes_are_rounded_as_open_clip_rounds_them(size):
    reason = "no open_clip here: pip install open-clip-torch==3.3.0"
    transform = pytest.importorskip("open_clip.transform", reason=reason)
    theirs = picture = noise(*size)
    for step in transform.image_transform(224, is_train=False).transforms[:-2]:
        theirs = step(theirs)
    np.testing.assert_array_equal(centre_crop(stored(picture), 224), np.asarray(theirs))


def test_a_picture_of_one_row_is_not_blown_up_to_gigabytes():
    data = stored(Image.new("RGB", (20_000, 1)))
    assert "too many pixels" in centre_crop(data, 224)
    assert random_crop(data, 224, 1).shape == (224, 224, 3)


def some_keys(count: int) -> list[int]:
    return mix(np.arange(count, dtype=np.uint64)).tolist()


# --- where the crop lies ----------------------------------------------------------------------


some_places = st.one_of(
    st.just(decode.square_box),
    st.floats(0.01, 1).map(lambda least_area: decode.placing("resized", least_area)),
)


@given(sizes, sizes, st.integers(1, 400), keys, some_places)
def test_a_crop_lies_within_the_picture(width, height, side, key, place):
    left, top, box_width, box_height = place(width, height, side=side, key=key)
    assert 0 <= left < left + box_width <= width + 1e-9
    assert 0 <= top < top + box_height <= height + 1e-9


def test_a_square_may_lie_at_every_pixel_of_the_resized_picture_equally_often():
    side, count = 64, 6_000  # 80 x 64 once resized: 17 places
    boxes = [decode.square_box(400, 320, side, key) for key in some_keys(count)]
    assert {box[1:] for box in boxes} == {(0, 320, 320)}
    places, often = np.unique([box[0] / 5 for box in boxes], return_counts=True)
    assert places.tolist() == list(range(17))
    expected = count / 17
    assert ((often - expected) ** 2 / expected).sum() < 46  # chi-square, 16 degrees: p < 1e-4


@pytest.mark.parametrize("size", [(600, 500), (300, 400), (100, 10), (10, 100)])
@pytest.mark.parametrize("least_area", [0.9, 0.4])
def test_a_resized_crop_is_spread_as_torchvision_spreads_it(size, least_area):
    torch = pytest.importorskip("torch", reason="no torch here")
    reason = "no torchvision here: it belongs to open-clip-torch"
    transforms = pytest.importorskip("torchvision.transforms", reason=reason)
    place = decode.placing("resized", least_area)
    ours = np.array([place(*size, 224, key) for key in some_keys(3000)])
    picture = Image.new("L", size)
    torch.manual_seed(0)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(picture, (least_area, 1.0), (3 / 4, 4 / 3))
            for _ in range(3000)
        ]
    )[:, [1, 0, 3, 2]]  # they give top, left, height, width
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4
    shapes = [box[:, 2] / box[:, 3] for box in (ours, theirs)]
    assert stats.ks_2samp(*shapes).pvalue > 1e-4


def test_a_crop_is_a_function_of_its_key_on_every_thread_and_in_every_order():
    pictures = [stored(noise(90 + i, 120, i), "JPEG") for i in range(12)]
    keys = [key_of(3, 2, position) for position in range(12)]
    images = np.array([random_crop(pictures[i], 32, keys[i]) for i in range(12)])
    order = [7, 3, 11, 0, 5, 1, 2, 10, 9, 8, 6, 4]
    with ThreadPoolExecutor(4) as pool:
        others = np.array(list(pool.map(lambda i: random_crop(pictures[i], 32, keys[i]), order)))
    np.testing.assert_array_equal(others, images[order])
    others = np.array([random_crop(pictures[i], 32, key_of(3, 3, i)) for i in range(12)])
    assert (others != images).any(axis=(1, 2, 3)).sum() >= 9  # another epoch, other crops


# --- pixels for training ----------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 128), keys)
def test_a_square_is_what_pillow_makes_by_resizing_and_then_cropping(width, height, side, key):
    picture = noise(width, height)
    short, long = sorted(picture.size)
    resized = int(side * long / short)
    if resized * side > 10**6:
        return
    box = decode.square_box(width, height, side, key)
    start = round(max(box[:2]) * resized / long)
    wide = width > height
    theirs = picture.resize((resized, side) if wide else (side, resized), Image.Resampling.BICUBIC)
    corner = (start, 0) if wide else (0, start)
    theirs = theirs.crop((*corner, corner[0] + side, corner[1] + side))
    apart = levels(random_crop(stored(picture), side, key), np.asarray(theirs))
    assert apart.max() <= 8  # Pillow rounds, and cuts at 0 and 255, between its two passes
    assert apart.mean() < 1 or side < 16  # the mean of a few pixels is one rounding


@given(sizes, sizes, st.integers(1, 300), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_part_of_any_picture_is_resized_as_pillow_does_it(width, height, side, random):
    picture = noise(width, height)
    left, top = random.uniform(0, width * 0.9), random.uniform(0, height * 0.9)
    box = (
        left,
        top,
        random.uniform(0.1, 1) * (width - left),
        random.uniform(0.1, 1) * (height - top),
    )
    corners = (left, top, left + box[2], top + box[3])
    theirs = picture.resize((side, side), Image.Resampling.BICUBIC, corners)
    apart = levels(decode.resize(np.asarray(picture), box, side), np.asarray(theirs))
    assert apart.max() <= 8
    assert apart.mean() < 1 or side < 16  # the mean of a few pixels is one rounding


def test_a_picture_of_the_size_wanted_is_not_changed():
    picture = noise(64, 64)
    np.testing.assert_array_equal(random_crop(stored(picture), 64, 1), np.asarray(picture))


@pytest.mark.parametrize("part", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_at_a_part_of_its_size_that_is_large_enough(part):
    width, height = 64 * part + 37, 64 * part + 5
    data = stored(noise(width, height), "JPEG", quality=95)
    pixels, box = decode.jpeg_part(data, 64, lambda w, h: (30.0, 2.0, 64.0 * part, 64.0 * part))
    assert pixels.shape == (-(-height // part), -(-width // part), 3)
    assert box == (30 / part, 2 / part, 64, 64)
    pixels, _ = decode.jpeg_part(data, 65, lambda w, h: (30.0, 2.0, 64.0 * part, 64.0 * part))
    assert pixels.shape[0] > 64 or part == 1


def test_a_photograph_decoded_at_a_part_is_as_near_to_the_bicubic_as_bilinear_is(photographs):
    count = 0
    for name, data in photographs.items():
        if "corrupt" in name or Image.open(io.BytesIO(data)).mode != "RGB":
            continue
        picture = Image.open(io.BytesIO(data))
        side = 224 if min(picture.size) < 1000 else 448
        if picture.format != "JPEG" or min(picture.size) < 2 * side:
            continue
        box = decode.square_box(*picture.size, side, 9)
        corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
        bicubic, bilinear = (
            np.asarray(picture.resize((side, side), kernel, corners)).astype(float)
            for kernel in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
        )
        ours = ((random_crop(data, side, 9) - bicubic) ** 2).mean()
        assert ours < 4 * ((bilinear - bicubic) ** 2).mean(), name
        count += 1
    assert count > 15


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(
            ("1", "PNG"),
            ("L", "PNG"),
            ("LA", "PNG"),
            ("P", "PNG"),
            ("RGBA", "PNG"),
            ("I;16", "PNG"),
        ),
        *(("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGBA", "WEBP")),
    ],
)
def test_every_mode_gets_the_colours_of_pillow(mode, kind):
    picture = noise(48, 48)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize((48, 48)))
    data = stored(picture, kind)
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(centre_crop(data, 48), theirs)
    assert levels(random_crop(data, 48, 0), theirs).max() <= 1


def test_exif_orientation_is_left_alone_as_open_clip_does():
    picture = noise(40, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    for function in (lambda data: random_crop(data, 40, 0), lambda data: centre_crop(data, 40)):
        turned = function(stored(picture, "JPEG", exif=exif))
        np.testing.assert_array_equal(turned, function(stored(picture, "JPEG")))


# --- what is broken ---------------------------------------------------------------------------


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that announces a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 100) + b"IDAT" + b"x" * 100


def broken() -> dict[str, tuple[bytes, str]]:
    """Pictures that cannot be used, and a word of the reason."""
    jpeg = stored(noise(300, 200), "JPEG")
    larger = jpeg.replace(struct.pack(">HH", 200, 300), struct.pack(">HH", 60_000, 60_000), 1)
    return {
        "empty": (b"", "no JPEG, PNG or WebP"),
        "a page": (b"<html>not found</html>", "no JPEG, PNG or WebP"),
        "a GIF": (stored(noise(8, 8), "GIF"), "no JPEG, PNG or WebP"),
        "a cut JPEG": (jpeg[: len(jpeg) // 2], "truncated"),
        "a cut PNG": (stored(noise(64, 64))[:500], "undecodable"),
        "a cut WebP": (stored(noise(64, 64), "WEBP")[:100], ""),
        "a PNG of 70 million pixels": (png_of(10_000, 7_000), "too many pixels"),
        "a PNG of 4e18 pixels": (png_of(2**31 - 1, 2**31 - 1), "too many pixels"),
        "a JPEG of 3.6e9 pixels": (larger, "too many pixels"),
    }


@pytest.mark.parametrize("name", broken())
def test_a_broken_picture_has_a_reason(name):
    data, word = broken()[name]
    for result in (random_crop(data, 32, 0), centre_crop(data, 32)):
        assert isinstance(result, str)
        assert result
        assert word in result


@pytest.mark.parametrize("crop", ["square", "centre"])
def test_a_broken_picture_keeps_its_row_as_zeros(crop):
    batches = pytest.importorskip("trainer.batches", reason="the trainer's install has torch")
    good = stored(noise(50, 40), "JPEG")
    make = batches.decoder(5, 32, crop)
    pictures = [good, good[:200], good]
    values = [make(2, i, Sample(data, ["a"], str(i))) for i, data in enumerate(pictures)]
    part = batches.assemble(Batch(2, 0, np.arange(3), values), 5, 32)
    assert part.fine.tolist() == [True, False, True]
    assert len(part.faults) == 1
    assert part.faults[0].startswith("sample 1: ")
    assert not part.images[1].any()
    last = centre_crop(good, 32) if crop == "centre" else random_crop(good, 32, key_of(5, 2, 2))
    np.testing.assert_array_equal(part.images[2], last)


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 100),
)
def test_no_bytes_raise_anything(kind, changes, cut):
    data = bytearray(stored(noise(40, 30), kind))
    for at, value in changes:
        data[at % len(data)] = value
    data = bytes(data[: len(data) - cut])
    for result in (random_crop(data, 16, 5), centre_crop(data, 16)):
        assert isinstance(result, str) or result.shape == (16, 16, 3)


@pytest.mark.parametrize("factors", list(itertools.product(range(5), range(5))))
def test_a_jpeg_of_any_sampling_factors_is_a_picture_or_has_a_reason(factors):
    data = bytearray(stored(noise(40, 30), "JPEG"))
    frame = data.index(b"\xff\xc0")  # then length, precision, height, width, components, id
    data[frame + 11] = factors[0] << 4 | factors[1]
    for result in (random_crop(bytes(data), 16, 5), centre_crop(bytes(data), 16)):
        assert isinstance(result, str) or result.shape == (16, 16, 3)


def test_no_file_of_the_torture_collection_raises_anything(shared_data):
    seen = {str: 0, np.ndarray: 0}
    with tarfile.open(shared_data / "torture/images.tar.xz") as archive:
        for member in archive:
            name = member.name.split("/")
            if not member.isfile() or name[1] not in ("image-png_pngsuite", "exif-orientation"):
                continue
            data = archive.extractfile(member).read()
            result = random_crop(data, 32, 1)
            assert isinstance(result, type(centre_crop(data, 32))), member.name
            seen[type(result)] += 1
    assert seen[np.ndarray] > 150
    assert seen[str] > 10


def test_a_box_or_an_array_that_does_not_fit_is_refused_before_the_kernel_runs():
    pixels = np.zeros((20, 30, 3), np.uint8)
    for box in [(0, 0, 31, 20), (-1, 0, 5, 5), (0, 16, 5, 5), (0, 0, 0, 5), (np.nan, 0, 5, 5)]:
        with pytest.raises(ValueError, match="is not in a picture"):
            decode.resize(pixels, box, 8)
    with pytest.raises(ValueError, match="is no room"):
        decode.resize(pixels, (0, 0, 20, 20), 8, np.zeros((8, 8), np.uint8))
