"""The decoder process with pictures that break it: stands in for a hole in a native library."""

import os
import signal
import sys
import time

from pipeline.fetch import decoder, images

decode = images.decode_resize


def break_down(data, policy):
    if data.endswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.endswith(b"hang"):
        time.sleep(60)
    if data.endswith(b"exit"):
        os._exit(3)
    if data.endswith(b"hungry"):
        try:
            bytearray(4_000_000_000)
        except MemoryError:
            return images.Decoded("decoder_out_of_memory")
    return decode(data, policy)


if __name__ == "__main__":
    images.decode_resize = break_down
    decoder.main(int(sys.argv[1]), int(sys.argv[2]))
