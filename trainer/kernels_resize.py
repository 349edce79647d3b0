"""The compiled half of `trainer.decode`: a part of a picture brought to a square, by bicubic.

Pillow's filter (a = -0.5, widened where the picture gets smaller) in single precision without
rounding between the two passes; Pillow's own takes four to six times as long. Compiled through
`wit.kernels_loader`. Rows first: the weighted input rows of an output row are added up element by
element, which the compiler turns into vector instructions; then its columns, whose four lanes are
the three colours and a neighbour's first. Sums have a fixed order.
"""

from llvmlite import ir
from numba import float32, njit, types, uint8
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4  # input rows that are added up at once


@njit(inline="always")
def cubic(x):
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@njit(inline="always")
def fill(start, extent, limit, side, taps, bounds, weights):
    """For each of `side` output pixels the first input pixel and `taps` weights, 0 at the end.

    Output pixels share [start, start + extent) of `limit` input pixels.
    """
    scale = extent / side
    widened = max(scale, 1.0)
    for i in range(side):
        centre = start + (i + 0.5) * scale
        low = max(int(centre - 2.0 * widened + 0.5), 0)
        high = min(int(centre + 2.0 * widened + 0.5), limit)
        total = float32(0)
        for tap in range(taps):
            inside = tap < high - low
            weight = float32(cubic((low + tap - centre + 0.5) / widened)) if inside else float32(0)
            weights[taps * i + tap] = weight
            total += weight
        for tap in range(taps):
            weights[taps * i + tap] /= total
        bounds[i] = low


@njit(inline="always")
def as_byte(value):
    """The nearest whole number from 0 to 255."""
    return uint8(min(max(value + float32(0.5), float32(0)), float32(255)))


@intrinsic
def weigh(typing, weights, start, sums, at, taps, line, to):
    """line[to:to+4] = sum over the taps of weights[start + tap] * sums[at + 3 tap:][:4]."""

    def generate(context, builder, signature, arguments):
        weights, start, sums, at, taps, line, to = arguments
        lanes = ir.VectorType(ir.FloatType(), 4)
        none = ir.Constant(ir.VectorType(ir.IntType(32), 4), None)
        total = cgutils.alloca_once_value(builder, ir.Constant(lanes, None))
        with cgutils.for_range(builder, taps) as loop:
            weight = builder.load(builder.gep(weights, [builder.add(start, loop.index)]))
            one = builder.insert_element(ir.Constant(lanes, None), weight, ir.IntType(32)(0))
            all_four = builder.shuffle_vector(one, one, none)
            index = builder.add(at, builder.mul(loop.index, loop.index.type(3)))
            pointer = builder.bitcast(builder.gep(sums, [index]), lanes.as_pointer())
            value = builder.fmul(all_four, builder.load(pointer, align=4))
            builder.store(builder.fadd(builder.load(total), value), total)
        pointer = builder.bitcast(builder.gep(line, [to]), lanes.as_pointer())
        builder.store(builder.load(total), pointer, align=4)
        return context.get_dummy_value()

    return types.void(weights, start, sums, at, taps, line, to), generate


@njit
def resize(
    source, height, width, box, side, taps_y, taps_x,
    rows, weights_y, columns, weights_x, sums, line, target,
):  # fmt: skip
    """Writes the square of `side` pixels that the box of a picture becomes to `target`.

    source: height x width x 3. box: left, top, width, height in pixels of the source, float64,
    within it. taps: at least 2 + 4 max(1, extent / side) each; taps_y a multiple of ROWS. Room
    needed: rows and columns side, weights side times taps, sums 3 width + 3 taps_x + 1.
    """
    fill(box[1], box[3], height, side, taps_y, rows, weights_y)
    fill(box[0], box[2], width, side, taps_x, columns, weights_x)
    first = columns[0]
    last = min(columns[side - 1] + taps_x, width)
    offset, count = 3 * first, 3 * (last - first)
    for i in range(count, 3 * (columns[side - 1] + taps_x - first) + 1):
        sums[i] = float32(0)

    to = 0
    for y in range(side):
        for tap in range(0, taps_y, ROWS):
            at = taps_y * y + tap
            w0, w1, w2, w3 = weights_y[at], weights_y[at + 1], weights_y[at + 2], weights_y[at + 3]
            if tap > 0 and w0 == 0 and w1 == 0 and w2 == 0 and w3 == 0:
                break
            row = rows[y] + tap  # rows that are not there have weights of 0
            s0 = 3 * width * min(row, height - 1) + offset
            s1 = 3 * width * min(row + 1, height - 1) + offset
            s2 = 3 * width * min(row + 2, height - 1) + offset
            s3 = 3 * width * min(row + 3, height - 1) + offset
            if tap == 0:
                for i in range(count):
                    sums[i] = (w0 * float32(source[s0 + i]) + w1 * float32(source[s1 + i])) + (
                        w2 * float32(source[s2 + i]) + w3 * float32(source[s3 + i])
                    )
            else:
                for i in range(count):
                    sums[i] += (w0 * float32(source[s0 + i]) + w1 * float32(source[s1 + i])) + (
                        w2 * float32(source[s2 + i]) + w3 * float32(source[s3 + i])
                    )
        for x in range(side):
            weigh(weights_x, taps_x * x, sums, 3 * (columns[x] - first), taps_x, line, 3 * x)
        for i in range(3 * side):
            target[to + i] = as_byte(line[i])
        to += 3 * side
    return 0


_bytes, _floats, _int = types.CPointer(types.uint8), types.CPointer(types.float32), types.int64
_ints, _doubles = types.CPointer(types.int64), types.CPointer(types.float64)
KERNELS = {
    "resize": (
        resize,
        _int(
            _bytes, _int, _int, _doubles, _int, _int, _int,
            _ints, _floats, _ints, _floats, _floats, _floats, _bytes,
        ),
    ),
}  # fmt: skip
