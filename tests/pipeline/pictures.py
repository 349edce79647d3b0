"""Pictures for the tests of the decoder, made here, and what they look like when they come back."""

import io

from PIL import Image, ImageChops, ImageStat

from pipeline.fetch.policy import FetchPolicy

AGENT = "TestBot/1.0 (+https://example.org/bot)"
KEEP = {"resize_mode": "no"}


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
