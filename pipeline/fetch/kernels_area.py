"""The compiled half of `pipeline.fetch.resize`: every output pixel the mean of the area it covers.

Compiled through `wit.kernels_loader`. Rows first: the weighted input rows of an output row are
added up element by element, which the compiler turns into vector instructions; then its columns.
Sums are single precision in a fixed order, so the result does not depend on the machine.
"""

from numba import float32, int32, njit, types


@njit(inline="always")
def span(index, extent, part):
    """The input pixels that output pixel `index` covers, from and to, and the outer two's weights.

    In whole numbers: an output pixel is `extent` long and an input pixel `part`.
    """
    start, end = index * extent, (index + 1) * extent
    low, high = start // part, (end - 1) // part
    first = float32(min((low + 1) * part, end) - start) / float32(extent)
    last = float32(end - high * part) / float32(extent)
    return low, high, first, last


@njit(inline="always")
def as_byte(value):
    """The nearest whole number."""
    return int32(min(value + float32(0.5), float32(255)))


@njit
def shrink(
    source, width, channels, full_height, full_width, part, taps,
    bounds, weights, sums, across, target, new_height, new_width,
):  # fmt: skip
    """Writes the smaller picture to `target`.

    source: rows of `width` pixels that show full_height x full_width at 1/part of that size; the
    last row and column may stand for less than a whole one. taps: the most input pixels that an
    output pixel covers in a row; those that cover fewer have weights of 0, which change no sum.
    Room needed: bounds new_width, weights taps new_width, sums a row of the source and then
    taps pixels, all 0, across a row of the target and one more.
    """
    row = width * channels
    part_y, part_x = part * new_height, part * new_width
    whole_y = float32(part_y) / float32(full_height)
    whole_x = float32(part_x) / float32(full_width)
    for x in range(new_width):
        low, high, first, last = span(x, full_width, part_x)
        bounds[x] = channels * low
        for tap in range(taps):
            weight = whole_x if tap < high - low else float32(0)
            weights[taps * x + tap] = last if tap == high - low else weight
        weights[taps * x] = first

    to = 0
    for y in range(new_height):
        low, high, first, last = span(y, full_height, part_y)
        at = low * row
        if high == low + 1:  # the most frequent numbers of rows are written out
            for i in range(row):
                sums[i] = first * float32(source[at + i]) + last * float32(source[at + row + i])
        elif high == low + 2:
            for i in range(row):
                value = first * float32(source[at + i]) + whole_y * float32(source[at + row + i])
                sums[i] = value + last * float32(source[at + 2 * row + i])
        else:
            for i in range(row):
                sums[i] = first * float32(source[at + i])
            for line in range(low + 1, high + 1):
                at = line * row
                weight = last if line == high else whole_y
                for i in range(row):
                    sums[i] += weight * float32(source[at + i])

        # Of RGB the next pixel's red is added up, too, and written over: four sums side by side are
        # one instruction. Three taps are written out: loops over so little take twice as long.
        if channels == 3 and taps == 3:
            for x in range(new_width):
                at, put = bounds[x], 3 * x
                one, two, three = weights[3 * x], weights[3 * x + 1], weights[3 * x + 2]
                red = one * sums[at] + two * sums[at + 3] + three * sums[at + 6]
                green = one * sums[at + 1] + two * sums[at + 4] + three * sums[at + 7]
                blue = one * sums[at + 2] + two * sums[at + 5] + three * sums[at + 8]
                more = one * sums[at + 3] + two * sums[at + 6] + three * sums[at + 9]
                across[put], across[put + 1], across[put + 2] = red, green, blue
                across[put + 3] = more
        elif channels == 3:
            for x in range(new_width):
                at, put, weight = bounds[x], 3 * x, weights[taps * x]
                red, green, blue = weight * sums[at], weight * sums[at + 1], weight * sums[at + 2]
                more = weight * sums[at + 3]
                for tap in range(1, taps):
                    at += 3
                    weight = weights[taps * x + tap]
                    red += weight * sums[at]
                    green += weight * sums[at + 1]
                    blue += weight * sums[at + 2]
                    more += weight * sums[at + 3]
                across[put], across[put + 1], across[put + 2] = red, green, blue
                across[put + 3] = more
        else:
            for channel in range(channels):
                for x in range(new_width):
                    at = bounds[x] + channel
                    value = weights[taps * x] * sums[at]
                    for tap in range(1, taps):
                        value += weights[taps * x + tap] * sums[at + channels * tap]
                    across[channels * x + channel] = value
        for i in range(channels * new_width):
            target[to + i] = as_byte(across[i])
        to += channels * new_width
    return 0


_bytes, _floats = types.CPointer(types.uint8), types.CPointer(types.float32)
_int, _int32s = types.int64, types.CPointer(types.int32)
KERNELS = {
    "shrink": (
        shrink,
        _int(
            _bytes, _int, _int, _int, _int, _int, _int,
            _int32s, _floats, _floats, _floats, _bytes, _int, _int,
        ),
    ),
}  # fmt: skip
