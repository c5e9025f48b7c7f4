// Pre-processing's arithmetic, one output pixel at a time: a frame, wherever its planes lie, becomes one row of a
// model's input tensor. NVRTC compiles these lines for GPUs and the host's compiler for the test that holds them
// to the definition, which is the head of src/infer/preprocess/mod.rs: the same names, the same bits.
//
// Nothing here may be contracted (NVRTC: --fmad=false, GCC and Clang: -ffp-contract=off): the one fused operation is
// written out.
#pragma once

#if defined(__CUDACC__)
#define OCELLI_INLINE __device__ __forceinline__
#else
#include <cmath>
#include <cstring>
#define OCELLI_INLINE inline
#endif

namespace ocelli {

// NVRTC has no <cstdint>.
using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using u64 = unsigned long long;
static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(i32) == 4 && sizeof(u64) == 8, "sizes of the ABI");

// An IEEE half, by its bits.
struct f16 {
    u16 bits;
};

// Largest edge of a frame and of a tensor in pixels: all positions fit 32 bits then.
constexpr u32 MAX_FRAME_EDGE = 65535;
constexpr u32 MAX_TENSOR_EDGE = 8192;

// Frame::format. The mosaics come last: by the column of red, then its row, then the bits.
enum Format : u32 { NV12, I420, YUY2, UYVY, RGB, BGR, GRAY8, RGGB8, GRBG8, GBRG8, BGGR8, RGGB10, GRBG10, GBRG10, BGGR10 };

// Bits of Frame::color.
constexpr u32 BT709 = 1;
constexpr u32 FULL_RANGE = 2;

// Tensor::channels.
enum Channels : u32 { CHANNELS_RGB, CHANNELS_BGR, CHANNELS_GRAY };

// One frame of a batch, as its reader sees it.
struct Frame {
    u64 plane[3];  // address of each plane's first byte
    u32 stride[3]; // bytes from one row of a plane to the next
    u32 width;     // pixels
    u32 height;
    u32 format;
    u32 color;
    // Where the frame's picture lies in the tensor, in pixels; the rest is the border.
    u32 left;
    u32 top;
    u32 across;
    u32 down;
    u32 reserved;
};
static_assert(sizeof(Frame) == 72, "the host fills this in");

// The input tensor of one model: its shape for one frame, and how its elements are made.
struct Tensor {
    u32 width;
    u32 height;
    u32 channels;
    u32 packed; // 1: the channels of a pixel lie beside each other (NHWC); 0: plane after plane (NCHW)
    u32 fill;   // pixel value of the border
    float scale[3];
    float offset[3];
};
static_assert(sizeof(Tensor) == 44, "the host fills this in");

constexpr i32 VALUE_BITS = 6;   // fraction bits of a value
constexpr i32 WEIGHT_BITS = 15; // fraction bits of a weight
constexpr i32 WHITE = 255 << VALUE_BITS;
constexpr i32 NEUTRAL = 128 << VALUE_BITS;

// --- Positions.

// One output pixel on one axis: between sample `index` and the next, `weight` / 2^15 of the way. A weight of zero
// means that the next sample is not needed and may not exist.
struct Tap {
    u32 index;
    i32 weight;
};

// Output pixel `x` of `output` over an axis of `pixels` that is sampled at every 2^shift-th, first `site` half
// pixels from the first pixel's centre.
OCELLI_INLINE Tap tap(u32 pixels, u32 shift, u32 site, u32 output, u32 x) {
    const u32 last = ((pixels + (1u << shift) - 1) >> shift) - 1;
    const u32 denominator = output << (shift + 1);
    const i32 numerator = static_cast<i32>((2 * x + 1) * pixels) - static_cast<i32>(output * (1 + site));
    if (numerator <= 0) {
        return {0, 0};
    }
    const u32 index = static_cast<u32>(numerator) / denominator;
    const u32 rest = static_cast<u32>(numerator) - index * denominator;
    if (index >= last) {
        return {last, 0};
    }
    const u32 weight = ((rest << WEIGHT_BITS) + denominator / 2) / denominator;
    return {index, static_cast<i32>(weight < 32767 ? weight : 32767)};
}

// The two grids that a frame's samples lie on along one axis: of every pixel and of the pairs (luma, chroma), or of
// the pairs' first and second pixels (a mosaic).
struct Axis {
    Tap grid[2];
};

OCELLI_INLINE Axis axis(u32 format, u32 pixels, u32 output, u32 x) {
    if (format >= RGGB8) {
        return {{tap(pixels, 1, 0, output, x), tap(pixels, 1, 2, output, x)}};
    }
    return {{tap(pixels, 0, 0, output, x), tap(pixels, 1, 1, output, x)}};
}

// --- Interpolation.

OCELLI_INLINE i32 scaled(i32 a, i32 weight) { return (a * weight + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS; }

OCELLI_INLINE i32 between(i32 a, i32 b, i32 weight) { return a + scaled(b - a, weight); }

OCELLI_INLINE i32 clamped(i32 value, i32 most) { return value < 0 ? 0 : value > most ? most : value; }

// The value of a sample of 8 bits, or of 10 in 16, little-endian, read as a signed number.
template <bool WIDE> OCELLI_INLINE i32 value(const u8 *sample) {
    if (!WIDE) {
        return sample[0] << VALUE_BITS;
    }
    const i32 bits = sample[0] | sample[1] << 8;
    return clamped(bits < 32768 ? bits : bits - 65536, 255 << 2) << (VALUE_BITS - 2);
}

// A component's value between four samples, which are `step` bytes apart in rows `stride` bytes apart.
template <bool WIDE>
OCELLI_INLINE i32 bilinear(const u8 *first, u64 stride, u32 step, Tap across, Tap down) {
    const u8 *at = first + down.index * stride + static_cast<u64>(across.index) * step;
    i32 above = value<WIDE>(at);
    if (across.weight > 0) {
        above = between(above, value<WIDE>(at + step), across.weight);
    }
    if (down.weight == 0) {
        return above;
    }
    i32 below = value<WIDE>(at + stride);
    if (across.weight > 0) {
        below = between(below, value<WIDE>(at + stride + step), across.weight);
    }
    return between(above, below, down.weight);
}

// --- Components.

// What a pixel consists of: luma, Cb and Cr, or red, green and blue.
struct Values {
    i32 a, b, c;
};

OCELLI_INLINE const u8 *plane(const Frame &frame, u32 index) {
    return reinterpret_cast<const u8 *>(frame.plane[index]);
}

// A mosaic's red, green (the mean of both kinds) and blue, each interpolated on its own grid.
template <bool WIDE> OCELLI_INLINE Values photosites(const Frame &frame, const Axis &x, const Axis &y) {
    const u32 bytes = WIDE ? 2 : 1;
    const u32 column = (frame.format - RGGB8) & 1, row = (frame.format - RGGB8) >> 1 & 1;
    const u64 stride = frame.stride[0];
    const u8 *red_row = plane(frame, 0) + row * stride, *blue_row = plane(frame, 0) + (1 - row) * stride;
    const Tap in_red = column == 0 ? x.grid[0] : x.grid[1], in_blue = column == 0 ? x.grid[1] : x.grid[0];
    const Tap at_red = row == 0 ? y.grid[0] : y.grid[1], at_blue = row == 0 ? y.grid[1] : y.grid[0];
    const u32 red = column * bytes, blue = (1 - column) * bytes;
    const i32 beside_red = bilinear<WIDE>(red_row + blue, 2 * stride, 2 * bytes, in_blue, at_red);
    const i32 beside_blue = bilinear<WIDE>(blue_row + red, 2 * stride, 2 * bytes, in_red, at_blue);
    return {bilinear<WIDE>(red_row + red, 2 * stride, 2 * bytes, in_red, at_red),
            between(beside_red, beside_blue, 1 << (WEIGHT_BITS - 1)),
            bilinear<WIDE>(blue_row + blue, 2 * stride, 2 * bytes, in_blue, at_blue)};
}

// The components at one output pixel. Where only luma counts, chroma is not read.
OCELLI_INLINE Values components(const Frame &frame, const Axis &x, const Axis &y, bool luma_only) {
    const Tap full = x.grid[0], half = x.grid[1], row = y.grid[0], half_row = y.grid[1];
    const u8 *first = plane(frame, 0);
    const u64 stride = frame.stride[0];
    Values v = {0, NEUTRAL, NEUTRAL};
    switch (frame.format) {
    case NV12:
        v.a = bilinear<false>(first, stride, 1, full, row);
        if (!luma_only) {
            v.b = bilinear<false>(plane(frame, 1), frame.stride[1], 2, half, half_row);
            v.c = bilinear<false>(plane(frame, 1) + 1, frame.stride[1], 2, half, half_row);
        }
        break;
    case I420:
        v.a = bilinear<false>(first, stride, 1, full, row);
        if (!luma_only) {
            v.b = bilinear<false>(plane(frame, 1), frame.stride[1], 1, half, half_row);
            v.c = bilinear<false>(plane(frame, 2), frame.stride[2], 1, half, half_row);
        }
        break;
    case YUY2:
    case UYVY: {
        const u32 luma = frame.format == UYVY;
        v.a = bilinear<false>(first + luma, stride, 2, full, row);
        if (!luma_only) {
            v.b = bilinear<false>(first + (1 - luma), stride, 4, half, row);
            v.c = bilinear<false>(first + (3 - luma), stride, 4, half, row);
        }
        break;
    }
    case RGB:
    case BGR: {
        const u32 red = frame.format == RGB ? 0 : 2;
        v.a = bilinear<false>(first + red, stride, 3, full, row);
        v.b = bilinear<false>(first + 1, stride, 3, full, row);
        v.c = bilinear<false>(first + (2 - red), stride, 3, full, row);
        break;
    }
    case GRAY8:
        v.a = bilinear<false>(first, stride, 1, full, row);
        break;
    case RGGB8:
    case GRBG8:
    case GBRG8:
    case BGGR8:
        v = photosites<false>(frame, x, y);
        break;
    default:
        v = photosites<true>(frame, x, y);
    }
    return v;
}

// --- Colour.

// One conversion's constants: the table in the definition.
struct Coefficients {
    i32 black, luma, red_cr, blue_cb, green_cb, green_cr, kr, kb;
};

OCELLI_INLINE Coefficients coefficients(u32 color) {
    const bool bt709 = (color & BT709) != 0;
    if ((color & FULL_RANGE) != 0) {
        return bt709 ? Coefficients{0, 0, -6966, -2366, 3069, 7670, 6966, 2366}
                     : Coefficients{0, 0, -9798, -3736, 5638, 11700, 9798, 3736};
    }
    return bt709 ? Coefficients{16 << VALUE_BITS, 5387, -3396, 1842, 3494, 8731, 6966, 2366}
                 : Coefficients{16 << VALUE_BITS, 5387, -6619, 282, 6419, 13320, 9798, 3736};
}

OCELLI_INLINE i32 expanded(i32 y, const Coefficients &k) { return (y - k.black) + scaled(y - k.black, k.luma); }

// Red, green and blue, or luma in all three; clamped.
OCELLI_INLINE Values mixed(u32 format, const Values &v, const Coefficients &k, bool gray) {
    const bool rgb = format == RGB || format == BGR || format >= RGGB8;
    Values out = v;
    if (rgb && gray) {
        out.a = v.b + scaled(v.a - v.b, k.kr) + scaled(v.c - v.b, k.kb);
    } else if (!rgb) {
        const i32 y = expanded(v.a, k);
        out = {y, y, y};
        if (!gray && format != GRAY8) {
            const i32 cb = 2 * (v.b - NEUTRAL), cr = 2 * (v.c - NEUTRAL);
            out.a = y + cr + scaled(cr, k.red_cr);
            out.b = y - scaled(cb, k.green_cb) - scaled(cr, k.green_cr);
            out.c = y + cb + scaled(cb, k.blue_cb);
        }
    }
    return {clamped(out.a, WHITE), clamped(out.b, WHITE), clamped(out.c, WHITE)};
}

// --- Elements.

// value * scale / 64 + offset, rounded once; taking the fraction bits off the scale is exact.
OCELLI_INLINE float element(i32 value, float scale, float offset) {
    return fmaf(static_cast<float>(value), scale * (1.0f / (1 << VALUE_BITS)), offset);
}

// Rounded to the nearest whole number, ties to even, and clamped; the lowest for what is not a number.
OCELLI_INLINE float whole(float value, float low, float high) {
    const float nearest = rintf(value);
    return nearest >= high ? high : nearest > low ? nearest : low;
}

OCELLI_INLINE u32 bits_of(float value) {
#if defined(__CUDACC__)
    return __float_as_uint(value);
#else
    u32 bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

// Rounded to the nearest half, ties to even, in integers: without CUDA's headers, and the same on the host.
OCELLI_INLINE f16 nearest_half(float value) {
    const u32 sign = bits_of(value) >> 16 & 0x8000;
    const u32 bits = bits_of(value) & 0x7fffffff;
    if (bits >= 0x47800000) { // 65536 and more, or not a number
        return {static_cast<u16>(sign | (bits > 0x7f800000 ? 0x7e00 : 0x7c00))};
    }
    if (bits < 0x38800000) { // less than 2^-14: a whole number of 2^-24
        return {static_cast<u16>(sign | static_cast<u32>(rintf(fabsf(value) * 16777216.0f)))};
    }
    // The exponent's bias goes from 127 to 15; a carry out of the mantissa is the next exponent, or infinity.
    return {static_cast<u16>(sign | (bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13)};
}

OCELLI_INLINE void put(float *at, float element) { *at = element; }
OCELLI_INLINE void put(f16 *at, float element) { *at = nearest_half(element); }
OCELLI_INLINE void put(u8 *at, float element) { *at = static_cast<u8>(whole(element, 0.0f, 255.0f)); }
OCELLI_INLINE void put(i8 *at, float element) { *at = static_cast<i8>(whole(element, -128.0f, 127.0f)); }

// --- A pixel of the tensor.

// What does not change along a column of the tensor.
struct Column {
    u32 x;
    bool inside;
    Axis across;
    Coefficients color;
};

OCELLI_INLINE Column column(const Frame &frame, u32 x) {
    Column column = {x, x >= frame.left && x - frame.left < frame.across, {}, coefficients(frame.color)};
    if (column.inside) {
        column.across = axis(frame.format, frame.width, frame.across, x - frame.left);
    }
    return column;
}

// Writes all channels of pixel row `y` in this column; `row` is the frame's row of the tensor.
template <class Element>
OCELLI_INLINE void render(const Frame &frame, const Tensor &tensor, const Column &column, u32 y, Element *row) {
    const bool gray = tensor.channels == CHANNELS_GRAY;
    const i32 fill = static_cast<i32>(tensor.fill) << VALUE_BITS;
    Values v = {fill, fill, fill};
    if (column.inside && y >= frame.top && y - frame.top < frame.down) {
        const Axis down = axis(frame.format, frame.height, frame.down, y - frame.top);
        v = mixed(frame.format, components(frame, column.across, down, gray), column.color, gray);
    }
    const u64 pixel = static_cast<u64>(y) * tensor.width + column.x;
    if (gray) {
        put(row + pixel, element(v.a, tensor.scale[0], tensor.offset[0]));
        return;
    }
    if (tensor.channels == CHANNELS_BGR) {
        const i32 red = v.a;
        v.a = v.c;
        v.c = red;
    }
    Element *at = tensor.packed != 0 ? row + 3 * pixel : row + pixel;
    const u64 next = tensor.packed != 0 ? 1 : static_cast<u64>(tensor.width) * tensor.height;
    put(at, element(v.a, tensor.scale[0], tensor.offset[0]));
    put(at + next, element(v.b, tensor.scale[1], tensor.offset[1]));
    put(at + 2 * next, element(v.c, tensor.scale[2], tensor.offset[2]));
}

// Elements of one frame's row.
OCELLI_INLINE u64 row_length(const Tensor &tensor) {
    return static_cast<u64>(tensor.width) * tensor.height * (tensor.channels == CHANNELS_GRAY ? 1 : 3);
}

} // namespace ocelli
