"""All settings of the fetcher: how the web is asked (`WebPolicy`) and what is made of a picture."""

from dataclasses import dataclass

from wit.errors import UserError
from wit.web.policy import WebPolicy

RESIZE_MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")
ENGINES = ("wit", "img2dataset")
ENCODE_FORMATS = {"jpg": (1, 100), "webp": (1, 100), "png": (0, 9)}  # the range of the quality


@dataclass(frozen=True)
class FetchPolicy(WebPolicy):
    """How pictures are fetched, decoded, resized and stored; names and meanings as img2dataset's.

    `concurrency` is pictures in flight, from the request until the caller has taken the result,
    over all shards that a Fetcher runs at the same time.
    `shard_seconds` bounds one `Fetcher.run`, beyond what its slowest host takes at the rate
    allowed. `resize_mode`: `border` fits the longer side to `image_size` and pads to a square in
    white, `keep_ratio_largest` fits the longer side, `keep_ratio` the shorter, `center_crop` crops
    that to a square, `no` changes no size;
    `resize_only_if_bigger` leaves smaller pictures as they are. With `skip_reencode` the original
    bytes (without metadata) are kept where nothing needs changing: format, size, orientation,
    colours. `encode_quality` of png is the compression, 0 to 9. `max_aspect_ratio` 0 is no limit.
    Decoding runs in `decode_workers` processes, each limited in seconds and bytes of memory.
    `engine` is who does all this: `wit`, or `img2dataset` by the executable of that name.
    """

    concurrency: int = 128
    shard_seconds: float = 3600.0
    max_pixels: int = 64_000_000
    image_size: int = 256
    resize_mode: str = "border"
    resize_only_if_bigger: bool = False
    encode_quality: int = 95
    encode_format: str = "jpg"
    skip_reencode: bool = True
    min_image_size: int = 0
    max_aspect_ratio: float = 0.0
    decode_workers: int = 2
    decode_seconds: float = 30.0
    decode_memory: int = 1_500_000_000
    engine: str = "wit"
    img2dataset: str = "img2dataset"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize_mode not in RESIZE_MODES:
            raise UserError(f"resize mode {self.resize_mode!r}: choose one of {RESIZE_MODES}")
        if self.engine not in ENGINES:
            raise UserError(f"engine {self.engine!r}: choose one of {ENGINES}")
        if self.encode_format not in ENCODE_FORMATS:
            known = tuple(ENCODE_FORMATS)
            raise UserError(f"encode format {self.encode_format!r}: choose one of {known}")
        low, high = ENCODE_FORMATS[self.encode_format]
        if not low <= self.encode_quality <= high:
            raise UserError(
                f"encode quality {self.encode_quality}: {self.encode_format} takes {low} to {high}"
            )
        for name in ("concurrency", "max_pixels", "image_size", "decode_workers", "decode_memory"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')}: {getattr(self, name)} is below 1")
        if not (self.max_aspect_ratio == 0 or self.max_aspect_ratio >= 1):
            raise UserError(f"max aspect ratio {self.max_aspect_ratio}: 0, or 1 and more")
        for name in ("shard_seconds", "decode_seconds"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', ' ')}: {getattr(self, name)} is not above 0")
