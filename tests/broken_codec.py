"""The decoder process with a codec that fails on WebP, though its own tests passed at the start."""

import sys

from pipeline.fetch import decoder, images

decode = images.decode_resize


def fail(data: bytes, policy):
    """Decode what is no WebP."""
    if data[8:12] == b"WEBP":
        return images.Decoded("undecodable", "OSError: cannot decode")
    return decode(data, policy)


if __name__ == "__main__":
    images.decode_resize = fail
    decoder.main(int(sys.argv[1]), int(sys.argv[2]))
