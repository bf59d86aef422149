// Our kernels, compiled on the user's machine by NVRTC: plain CUDA C without a header.
//
// A block of threads serves one row, or one group of an image; the sizes are what the host asserts
// before the launch (`launch.rs`).

typedef unsigned long long size;

// How numbers lie in memory: computed with in f32, stored as the nearest, ties to even.
struct F32 {
    typedef float type;
    __device__ static float load(float x) { return x; }
    __device__ static float store(float x) { return x; }
};
struct F16 {
    typedef unsigned short type;
    __device__ static float load(unsigned short half) {
        float x;
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
        return x;
    }
    __device__ static unsigned short store(float x) {
        unsigned short half;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
        return half;
    }
};
struct BF16 {
    typedef unsigned short type;
    __device__ static float load(unsigned short half) {
        return __uint_as_float((unsigned)half << 16);
    }
    __device__ static unsigned short store(float x) {
        const unsigned bits = __float_as_uint(x);
        // Rounding up may not turn a NaN into a number.
        return x != x ? 0x7fffu : (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
};

// out[row, i] = levels[row / rows_per_codebook, code i of the row] * scales[row]
//
// out: [rows, row_len]; codes: rows of row_bytes bytes, code i at the bits i * bits.. of its row,
// the least significant first; levels: [codebooks, 2^bits]; scales: [rows].
template <typename F>
__device__ static void decode(typename F::type *out, const unsigned char *codes,
                              const float *levels, const float *scales, unsigned bits,
                              unsigned rows_per_codebook, unsigned row_bytes,
                              unsigned row_len) {
    __shared__ typename F::type table[256];
    const unsigned row = blockIdx.x, mask = (1u << bits) - 1u;
    levels += (size)(row / rows_per_codebook) << bits;
    for (unsigned code = threadIdx.x; code <= mask; code += blockDim.x) {
        table[code] = F::store(levels[code] * scales[row]);
    }
    __syncthreads();
    codes += (size)row * row_bytes;
    out += (size)row * row_len;
    for (unsigned i = threadIdx.x; i < row_len; i += blockDim.x) {
        // Eight codes take `bits` whole bytes.
        const unsigned bit = i % 8u * bits, at = i / 8u * bits + bit / 8u, shift = bit % 8u;
        unsigned code = codes[at];
        if (shift + bits > 8u) {
            code |= (unsigned)codes[at + 1u] << 8;
        }
        out[i] = table[code >> shift & mask];
    }
}

#define DECODE(NAME, F)                                                                            \
    extern "C" __global__ void NAME(F::type *out, const unsigned char *codes, const float *levels, \
                                    const float *scales, unsigned bits,                            \
                                    unsigned rows_per_codebook, unsigned row_bytes,                \
                                    unsigned row_len) {                                            \
        decode<F>(out, codes, levels, scales, bits, rows_per_codebook, row_bytes, row_len);        \
    }
DECODE(decode_f32, F32)
DECODE(decode_f16, F16)
DECODE(decode_bf16, BF16)

// out[(image, line, column), (ky, kx, channel)] = the input under a pixel of a convolution's
// result, 0 outside of the image.
//
// x: [n, h, w, c]; out: [n * oh * ow, kh * kw * c].
template <typename T>
__device__ static void columns(T *out, const T *x, unsigned h, unsigned w, unsigned c, unsigned kh,
                               unsigned kw, unsigned oh, unsigned ow, unsigned stride,
                               unsigned pad_y, unsigned pad_x) {
    const unsigned pixel = blockIdx.x, depth = kh * kw * c;
    const unsigned line = pixel / ow % oh, column = pixel % ow;
    x += (size)(pixel / ow / oh) * h * w * c;
    out += (size)pixel * depth;
    for (unsigned i = threadIdx.x; i < depth; i += blockDim.x) {
        const unsigned tap = i / c;
        // What lies above or to the left wraps around to far below or to the right.
        const unsigned at_y = line * stride + tap / kw - pad_y;
        const unsigned at_x = column * stride + tap % kw - pad_x;
        const bool inside = at_y < h && at_x < w;
        out[i] = inside ? x[((size)at_y * w + at_x) * c + i % c] : (T)0;
    }
}

#define COLUMNS(NAME, T)                                                                           \
    extern "C" __global__ void NAME(T *out, const T *x, unsigned h, unsigned w, unsigned c,        \
                                    unsigned kh, unsigned kw, unsigned oh, unsigned ow,            \
                                    unsigned stride, unsigned pad_y, unsigned pad_x) {             \
        columns<T>(out, x, h, w, c, kh, kw, oh, ow, stride, pad_y, pad_x);                         \
    }
// By the bytes of an element, which is only moved.
COLUMNS(columns_2, unsigned short)
COLUMNS(columns_4, unsigned)
COLUMNS(columns_8, size)

// Most threads of a block of the norm.
#define THREADS 256u

// The sum of a value over the block's threads, in a fixed order.
__device__ static float sum_of_block(float value) {
    __shared__ float values[THREADS];
    const unsigned thread = threadIdx.x;
    __syncthreads();
    values[thread] = value;
    for (unsigned left = blockDim.x; left > 1u;) {
        const unsigned half = (left + 1u) / 2u;
        __syncthreads();
        if (thread < left - half) {
            values[thread] += values[thread + half];
        }
        left = half;
    }
    __syncthreads();
    return values[0];
}

// A group of an image in a map [n, pixels, c], and a thread's part of it: neighbouring threads take
// neighbouring channels.
struct Group {
    // Of the image and group in the map, and in [n, c].
    size map, affine;
    unsigned pixels, c, channels;
    // Channels at a time; the thread's first channel and pixel; pixels at a time.
    unsigned lanes, lane, first, step;

    __device__ Group(unsigned pixels, unsigned c, unsigned groups) : pixels(pixels), c(c) {
        channels = c / groups;
        affine = (size)(blockIdx.x / groups) * c + (size)(blockIdx.x % groups) * channels;
        map = (size)(blockIdx.x / groups) * pixels * c + (size)(blockIdx.x % groups) * channels;
        lanes = channels < blockDim.x ? channels : blockDim.x;
        step = blockDim.x / lanes;
        lane = threadIdx.x % lanes;
        first = threadIdx.x / lanes;
    }

    // Whether the thread has pixels of the channels from `channel` on.
    __device__ bool has(unsigned channel) const {
        return first < step && channel + lane < channels;
    }

    // Mean and 1 / sqrt(variance + eps) of the group.
    template <typename F>
    __device__ void moments(const typename F::type *x, float eps, float &mean, float &rstd) const {
        const float count = (float)pixels * (float)channels;
        mean = 0.0f;
        for (unsigned squares = 0u; squares < 2u; squares++) {
            float sum = 0.0f;
            for (unsigned channel = 0u; channel < channels; channel += lanes) {
                for (unsigned p = has(channel) ? first : pixels; p < pixels; p += step) {
                    const float d = F::load(x[map + (size)p * c + channel + lane]) - mean;
                    sum += squares ? d * d : d;
                }
            }
            sum = sum_of_block(sum) / count;
            if (squares) {
                rstd = 1.0f / sqrtf(sum + eps);
            } else {
                mean = sum;
            }
        }
    }
};

// y = act(a x^ + b), x^ = (x - mean) rstd over each group of channels of each image; act is z, or
// z sigmoid(z) if silu.
//
// x, y: [n, pixels, c]; a, b: [n, c]. A block for each image and group.
template <typename F>
__device__ static void norm(typename F::type *y, const typename F::type *x,
                            const typename F::type *a, const typename F::type *b, unsigned pixels,
                            unsigned c, unsigned groups, float eps, unsigned silu) {
    const Group g(pixels, c, groups);
    float mean, rstd;
    g.moments<F>(x, eps, mean, rstd);
    for (unsigned channel = 0u; channel < g.channels; channel += g.lanes) {
        if (!g.has(channel)) {
            continue;
        }
        const unsigned k = channel + g.lane;
        const float scale = F::load(a[g.affine + k]) * rstd, shift = F::load(b[g.affine + k]);
        for (unsigned p = g.first; p < pixels; p += g.step) {
            const size at = g.map + (size)p * c + k;
            const float z = (F::load(x[at]) - mean) * scale + shift;
            y[at] = F::store(silu ? z / (1.0f + expf(-z)) : z);
        }
    }
}

// dz = gy act'(z); da = sum dz x^, db = sum dz over the pixels;
// dx = rstd (a dz - mean(a dz) - x^ mean(a dz x^)), means over the group.
//
// gy, dx: as x; da, db: as a.
template <typename F>
__device__ static void norm_gradient(typename F::type *dx, typename F::type *da,
                                     typename F::type *db, const typename F::type *x,
                                     const typename F::type *a, const typename F::type *b,
                                     const typename F::type *gy, unsigned pixels, unsigned c,
                                     unsigned groups, float eps, unsigned silu) {
    __shared__ float of_dz[THREADS], of_products[THREADS];
    const Group g(pixels, c, groups);
    float mean, rstd, sum = 0.0f, sum_x = 0.0f;
    g.moments<F>(x, eps, mean, rstd);
    const float count = (float)pixels * (float)g.channels;
    // First the sums, then what needs them.
    for (unsigned pass = 0u; pass < 2u; pass++) {
        for (unsigned channel = 0u; channel < g.channels; channel += g.lanes) {
            const unsigned k = channel + g.lane;
            float dz_sum = 0.0f, product_sum = 0.0f;
            if (g.has(channel)) {
                const float gain = F::load(a[g.affine + k]), shift = F::load(b[g.affine + k]);
                for (unsigned p = g.first; p < pixels; p += g.step) {
                    const size at = g.map + (size)p * c + k;
                    const float unit = (F::load(x[at]) - mean) * rstd, z = unit * gain + shift;
                    const float s = 1.0f / (1.0f + expf(-z));
                    const float dz = F::load(gy[at]) * (silu ? s * (1.0f + z * (1.0f - s)) : 1.0f);
                    if (pass) {
                        dx[at] = F::store(rstd * (gain * dz - sum - unit * sum_x));
                    } else {
                        dz_sum += dz;
                        product_sum += dz * unit;
                    }
                }
            }
            if (pass) {
                continue;
            }
            __syncthreads();
            of_dz[threadIdx.x] = dz_sum;
            of_products[threadIdx.x] = product_sum;
            __syncthreads();
            if (g.first == 0u && k < g.channels) {
                for (unsigned i = 1u; i < g.step; i++) {
                    dz_sum += of_dz[i * g.lanes + g.lane];
                    product_sum += of_products[i * g.lanes + g.lane];
                }
                const float gain = F::load(a[g.affine + k]);
                da[g.affine + k] = F::store(product_sum);
                db[g.affine + k] = F::store(dz_sum);
                sum += gain * dz_sum;
                sum_x += gain * product_sum;
            }
        }
        if (!pass) {
            sum = sum_of_block(sum) / count;
            sum_x = sum_of_block(sum_x) / count;
        }
    }
}

#define NORM(NAME, F)                                                                              \
    extern "C" __global__ void norm_##NAME(F::type *y, const F::type *x, const F::type *a,         \
                                           const F::type *b, unsigned pixels, unsigned c,          \
                                           unsigned groups, float eps, unsigned silu) {            \
        norm<F>(y, x, a, b, pixels, c, groups, eps, silu);                                         \
    }                                                                                              \
    extern "C" __global__ void norm_gradient_##NAME(                                               \
        F::type *dx, F::type *da, F::type *db, const F::type *x, const F::type *a,                 \
        const F::type *b, const F::type *gy, unsigned pixels, unsigned c, unsigned groups,         \
        float eps, unsigned silu) {                                                                \
        norm_gradient<F>(dx, da, db, x, a, b, gy, pixels, c, groups, eps, silu);                   \
    }
NORM(f32, F32)
NORM(f16, F16)
NORM(bf16, BF16)
