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

// Most threads of a block that adds up.
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

// y = x + b, b repeated; x, y: [n], b: [c].
template <typename F>
__device__ static void add_bias(typename F::type *y, const typename F::type *x,
                                const typename F::type *b, unsigned n, unsigned c) {
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        y[i] = F::store(F::load(x[i]) + F::load(b[i % c]));
    }
}

// Each row of x through the softmax, or the gradient of that: y = exp(x - max) / sum, or
// dx = y (gy - sum gy y).
//
// All: [rows, len]; a block for each row.
template <typename F>
__device__ static void softmax(typename F::type *y, const typename F::type *x, unsigned len) {
    __shared__ float values[THREADS];
    x += (size)blockIdx.x * len;
    y += (size)blockIdx.x * len;
    float most = __int_as_float(0xff800000), sum = 0.0f;
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) {
        most = fmaxf(most, F::load(x[i]));
    }
    values[threadIdx.x] = most;
    __syncthreads();
    for (unsigned i = 0u; i < blockDim.x; i++) {
        most = fmaxf(most, values[i]);
    }
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) {
        sum += expf(F::load(x[i]) - most);
    }
    const float scale = 1.0f / sum_of_block(sum);
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) {
        y[i] = F::store(expf(F::load(x[i]) - most) * scale);
    }
}
template <typename F>
__device__ static void softmax_gradient(typename F::type *dx, const typename F::type *y,
                                        const typename F::type *gy, unsigned len) {
    const size row = (size)blockIdx.x * len;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) {
        sum += F::load(y[row + i]) * F::load(gy[row + i]);
    }
    sum = sum_of_block(sum);
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) {
        dx[row + i] = F::store(F::load(y[row + i]) * (F::load(gy[row + i]) - sum));
    }
}

#define ROWS(NAME, F)                                                                              \
    extern "C" __global__ void add_bias_##NAME(F::type *y, const F::type *x, const F::type *b,     \
                                               unsigned n, unsigned c) {                               \
        add_bias<F>(y, x, b, n, c);                                                                \
    }                                                                                              \
    extern "C" __global__ void softmax_##NAME(F::type *y, const F::type *x, unsigned len) {        \
        softmax<F>(y, x, len);                                                                     \
    }                                                                                              \
    extern "C" __global__ void softmax_gradient_##NAME(F::type *dx, const F::type *y,              \
                                                       const F::type *gy, unsigned len) {          \
        softmax_gradient<F>(dx, y, gy, len);                                                       \
    }
ROWS(f32, F32)
ROWS(f16, F16)
ROWS(bf16, BF16)

// The four words of a block of quant_core::noise's generator: Philox4x32 with ten rounds.
__device__ static void philox(unsigned words[4], unsigned key_low, unsigned key_high) {
    for (unsigned round = 0u; round < 10u; round++) {
        const unsigned a = words[0], c = words[2];
        words[0] = __umulhi(c, 0xcd9e8d57u) ^ words[1] ^ key_low;
        words[2] = __umulhi(a, 0xd2511f53u) ^ words[3] ^ key_high;
        words[1] = c * 0xcd9e8d57u;
        words[3] = a * 0xd2511f53u;
        key_low += 0x9e3779b9u;
        key_high += 0xbb67ae85u;
    }
}

// y = x scale where the uniform number of the element is at least p, 0 elsewhere.
//
// x, y: [images, len]; element i of image k is element i of the stream's index base | first + k step.
// `blocks` blocks of threads for each image; a thread takes the four elements of a block of words.
template <typename F>
__device__ static void dropout(typename F::type *y, const typename F::type *x, unsigned len,
                               unsigned blocks, unsigned key_low, unsigned key_high,
                               unsigned domain, size base, size first, size step, float p,
                               float scale) {
    const unsigned image = blockIdx.x / blocks;
    const unsigned four = blockIdx.x % blocks * blockDim.x + threadIdx.x;
    const size index = base | (first + image * step);
    unsigned words[4] = {four, domain, (unsigned)index, (unsigned)(index >> 32)};
    philox(words, key_low, key_high);
    for (unsigned i = 0u; i < 4u; i++) {
        const unsigned element = four * 4u + i;
        if (element < len) {
            const size at = (size)image * len + element;
            const float uniform = (float)(words[i] >> 8) * 0x1p-24f;
            y[at] = F::store(uniform >= p ? F::load(x[at]) * scale : 0.0f);
        }
    }
}

#define DROPOUT(NAME, F)                                                                           \
    extern "C" __global__ void NAME(F::type *y, const F::type *x, unsigned len, unsigned blocks,   \
                                    unsigned key_low, unsigned key_high, unsigned domain,          \
                                    size base, size first, size step, float p, float scale) {      \
        dropout<F>(y, x, len, blocks, key_low, key_high, domain, base, first, step, p, scale);     \
    }
DROPOUT(dropout_f32, F32)
DROPOUT(dropout_f16, F16)
DROPOUT(dropout_bf16, BF16)

// One update of AdamW, then of the average where there is one (`train/optimizer.rs` has the formulas).
//
// All: [n].
extern "C" __global__ void adamw(float *w, const float *g, float *m, float *s, float *average,
                                 unsigned n, float decay, float beta1, float beta2, float rate,
                                 float bias_correction, float eps, float ema_rate) {
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const float mean = beta1 * m[i] + (1.0f - beta1) * g[i];
        const float square = beta2 * s[i] + (1.0f - beta2) * g[i] * g[i];
        const float value = w[i] * decay - rate * mean / (sqrtf(square) * bias_correction + eps);
        m[i] = mean;
        s[i] = square;
        w[i] = value;
        if (average) {
            average[i] -= ema_rate * (average[i] - value);
        }
    }
}

// average <- average - rate (average - w); all: [n].
extern "C" __global__ void ema_update(float *average, const float *w, unsigned n, float rate) {
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        average[i] -= rate * (average[i] - w[i]);
    }
}

// sums[block] = the sum of squares of the elements that the block's threads take; x: [n].
extern "C" __global__ void squares(float *sums, const float *x, unsigned n) {
    const unsigned step = gridDim.x * blockDim.x;
    float sum = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        sum += x[i] * x[i];
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0u) {
        sums[blockIdx.x] = sum;
    }
}
