// The group norm, forward and backward; behind `kernels.cu`, whose types and sums it takes.

// V numbers side by side, moved at once.
template <typename F, unsigned V>
struct alignas(V * sizeof(typename F::type)) Pack {
    typename F::type at[V];
    __device__ static const Pack &of(const typename F::type *x) {
        return *reinterpret_cast<const Pack *>(x);
    }
};

// A group of an image in a map [n, pixels, c], and a thread's part of it: neighbouring threads take
// neighbouring channels, V each.
template <unsigned V>
struct Group {
    // Of the image and group in the map, and of its a in [n, 2 c]; its b is c behind.
    size map, affine;
    unsigned pixels, c, channels;
    // Threads side by side, the thread's place among them; its first pixel, and pixels at a time.
    unsigned lanes, lane, first, step;

    __device__ Group(unsigned pixels, unsigned c, unsigned groups) : pixels(pixels), c(c) {
        channels = c / groups;
        affine = (size)(blockIdx.x / groups) * 2u * c + (size)(blockIdx.x % groups) * channels;
        map = (size)(blockIdx.x / groups) * pixels * c + (size)(blockIdx.x % groups) * channels;
        lanes = channels / V < blockDim.x ? channels / V : blockDim.x;
        step = blockDim.x / lanes;
        lane = threadIdx.x % lanes;
        first = threadIdx.x / lanes;
    }

    // Whether the thread has pixels of the channels from `channel` on.
    __device__ bool has(unsigned channel) const {
        return first < step && channel + lane * V < channels;
    }

    // Where the thread's channels of a pixel begin in the map.
    __device__ size at(unsigned channel, unsigned pixel) const {
        return map + (size)pixel * c + channel + lane * V;
    }

    // Mean and 1 / sqrt(variance + eps) of the group.
    template <typename F>
    __device__ void moments(const typename F::type *x, float eps, float &mean, float &rstd) const {
        const float count = (float)pixels * (float)channels;
        mean = 0.0f;
        for (unsigned squares = 0u; squares < 2u; squares++) {
            float sum = 0.0f;
            for (unsigned channel = 0u; channel < channels; channel += lanes * V) {
                for (unsigned p = has(channel) ? first : pixels; p < pixels; p += step) {
                    const Pack<F, V> pack = Pack<F, V>::of(x + at(channel, p));
                    for (unsigned v = 0u; v < V; v++) {
                        const float d = F::load(pack.at[v]) - mean;
                        sum += squares ? d * d : d;
                    }
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

    // The sum of a value over the threads of the same lane, in a fixed order, for the first of them.
    __device__ float sum_of_lane(float value, float *values) const {
        __syncthreads();
        values[threadIdx.x] = value;
        for (unsigned left = step; left > 1u;) {
            const unsigned half = (left + 1u) / 2u;
            __syncthreads();
            if (first < left - half) {
                values[threadIdx.x] += values[threadIdx.x + half * lanes];
            }
            left = half;
        }
        __syncthreads();
        return values[lane];
    }
};

// y = act(a x^ + b), x^ = (x - mean) rstd over each group of channels of each image; act is z, or
// z sigmoid(z) if silu.
//
// x, y: [n, pixels, c]; ab: [n, 2 c], a row of a, then of b. A block for each image and group, whose
// channels V divides.
template <typename F, unsigned V>
__device__ static void norm(typename F::type *y, const typename F::type *x,
                            const typename F::type *ab, unsigned pixels, unsigned c,
                            unsigned groups, float eps, unsigned silu) {
    const Group<V> g(pixels, c, groups);
    float mean, rstd;
    g.template moments<F>(x, eps, mean, rstd);
    for (unsigned channel = 0u; channel < g.channels; channel += g.lanes * V) {
        if (!g.has(channel)) {
            continue;
        }
        const size k = g.affine + channel + g.lane * V;
        float scale[V], shift[V];
        for (unsigned v = 0u; v < V; v++) {
            scale[v] = F::load(ab[k + v]) * rstd;
            shift[v] = F::load(ab[k + c + v]);
        }
        for (unsigned p = g.first; p < pixels; p += g.step) {
            const size at = g.at(channel, p);
            Pack<F, V> pack = Pack<F, V>::of(x + at);
            for (unsigned v = 0u; v < V; v++) {
                const float z = (F::load(pack.at[v]) - mean) * scale[v] + shift[v];
                pack.at[v] = F::store(silu ? z / (1.0f + expf(-z)) : z);
            }
            *reinterpret_cast<Pack<F, V> *>(y + at) = pack;
        }
    }
}

// dz = gy act'(z); da = sum dz x^, db = sum dz over the pixels;
// dx = rstd (a dz - mean(a dz) - x^ mean(a dz x^)), means over the group.
//
// gy, dx: as x; dab, a row of da, then of db: as ab.
template <typename F, unsigned V>
__device__ static void norm_gradient(typename F::type *dx, typename F::type *dab,
                                     const typename F::type *x, const typename F::type *ab,
                                     const typename F::type *gy, unsigned pixels, unsigned c,
                                     unsigned groups, float eps, unsigned silu) {
    __shared__ float values[THREADS];
    const Group<V> g(pixels, c, groups);
    float mean, rstd, sum = 0.0f, sum_x = 0.0f;
    g.template moments<F>(x, eps, mean, rstd);
    const float count = (float)pixels * (float)g.channels;
    // First the sums, then what needs them.
    for (unsigned pass = 0u; pass < 2u; pass++) {
        for (unsigned channel = 0u; channel < g.channels; channel += g.lanes * V) {
            const size k = g.affine + channel + g.lane * V;
            const bool has = g.has(channel);
            float gain[V], shift[V], of_dz[V], of_products[V];
            for (unsigned v = 0u; v < V; v++) {
                gain[v] = has ? F::load(ab[k + v]) : 0.0f;
                shift[v] = has ? F::load(ab[k + c + v]) : 0.0f;
                of_dz[v] = of_products[v] = 0.0f;
            }
            for (unsigned p = has ? g.first : pixels; p < pixels; p += g.step) {
                const size at = g.at(channel, p);
                Pack<F, V> pack = Pack<F, V>::of(x + at);
                const Pack<F, V> gradient = Pack<F, V>::of(gy + at);
                for (unsigned v = 0u; v < V; v++) {
                    const float unit = (F::load(pack.at[v]) - mean) * rstd;
                    float dz = F::load(gradient.at[v]);
                    if (silu) {
                        const float z = unit * gain[v] + shift[v], s = 1.0f / (1.0f + expf(-z));
                        dz *= s * (1.0f + z * (1.0f - s));
                    }
                    if (pass) {
                        pack.at[v] = F::store(rstd * (gain[v] * dz - sum - unit * sum_x));
                    } else {
                        of_dz[v] += dz;
                        of_products[v] += dz * unit;
                    }
                }
                if (pass) {
                    *reinterpret_cast<Pack<F, V> *>(dx + at) = pack;
                }
            }
            for (unsigned v = 0u; !pass && v < V; v++) {
                const float dz = g.sum_of_lane(of_dz[v], values);
                const float product = g.sum_of_lane(of_products[v], values);
                if (has && g.first == 0u) {
                    dab[k + v] = F::store(product);
                    dab[k + c + v] = F::store(dz);
                    sum += gain[v] * dz;
                    sum_x += gain[v] * product;
                }
            }
        }
        if (!pass) {
            sum = sum_of_block(sum) / count;
            sum_x = sum_of_block(sum_x) / count;
        }
    }
}

#define NORM(NAME, F, V)                                                                           \
    extern "C" __global__ void norm_##NAME(F::type *y, const F::type *x, const F::type *ab,        \
                                           unsigned pixels, unsigned c, unsigned groups,           \
                                           float eps, unsigned silu) {                             \
        norm<F, V>(y, x, ab, pixels, c, groups, eps, silu);                                        \
    }                                                                                              \
    extern "C" __global__ void norm_gradient_##NAME(                                               \
        F::type *dx, F::type *dab, const F::type *x, const F::type *ab, const F::type *gy,         \
        unsigned pixels, unsigned c, unsigned groups, float eps, unsigned silu) {                  \
        norm_gradient<F, V>(dx, dab, x, ab, gy, pixels, c, groups, eps, silu);                     \
    }
NORM(f32, F32, 1)
NORM(f16, F16, 1)
NORM(bf16, BF16, 1)
NORM(f32_by_4, F32, 4)
NORM(f16_by_4, F16, 4)
NORM(bf16_by_4, BF16, 4)

// The norm's factors and summands of each image: a = (1 + s) w, b = (1 + s) beta + t.
//
// ab, st: [n, 2 c], a row of a, then of b, and of s, then of t; w, beta: [c].
template <typename F>
__device__ static void modulate(typename F::type *ab, const typename F::type *st,
                                const typename F::type *w, const typename F::type *beta,
                                unsigned n, unsigned c) {
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n * c; i += step) {
        const unsigned channel = i % c, at = i / c * 2u * c + channel;
        const float gain = 1.0f + F::load(st[at]);
        ab[at] = F::store(gain * F::load(w[channel]));
        ab[at + c] = F::store(gain * F::load(beta[channel]) + F::load(st[at + c]));
    }
}

// Its gradients: ds = da w + db beta, dt = db; dw = sum da (1 + s), dbeta = sum db (1 + s) over images.
//
// A block of THREADS threads for 32 channels: neighbours take channels, eight rows of them images.
template <typename F>
__device__ static void modulate_gradient(typename F::type *dst, typename F::type *dw,
                                         typename F::type *dbeta, const typename F::type *st,
                                         const typename F::type *w, const typename F::type *beta,
                                         const typename F::type *dab, unsigned n, unsigned c) {
    __shared__ float of_w[THREADS], of_beta[THREADS];
    const unsigned channel = blockIdx.x * 32u + threadIdx.x % 32u, first = threadIdx.x / 32u;
    float sum_w = 0.0f, sum_beta = 0.0f;
    if (channel < c) {
        const float scale = F::load(w[channel]), shift = F::load(beta[channel]);
        for (unsigned image = first; image < n; image += THREADS / 32u) {
            const unsigned at = image * 2u * c + channel;
            const float gain = 1.0f + F::load(st[at]);
            const float da = F::load(dab[at]), db = F::load(dab[at + c]);
            dst[at] = F::store(da * scale + db * shift);
            dst[at + c] = F::store(db);
            sum_w += da * gain;
            sum_beta += db * gain;
        }
    }
    of_w[threadIdx.x] = sum_w;
    of_beta[threadIdx.x] = sum_beta;
    __syncthreads();
    if (first == 0u && channel < c) {
        for (unsigned i = threadIdx.x + 32u; i < THREADS; i += 32u) {
            sum_w += of_w[i];
            sum_beta += of_beta[i];
        }
        dw[channel] = F::store(sum_w);
        dbeta[channel] = F::store(sum_beta);
    }
}

#define MODULATE(NAME, F)                                                                          \
    extern "C" __global__ void modulate_##NAME(F::type *ab, const F::type *st, const F::type *w,   \
                                               const F::type *beta, unsigned n, unsigned c) {      \
        modulate<F>(ab, st, w, beta, n, c);                                                        \
    }                                                                                              \
    extern "C" __global__ void modulate_gradient_##NAME(                                           \
        F::type *dst, F::type *dw, F::type *dbeta, const F::type *st, const F::type *w,            \
        const F::type *beta, const F::type *dab, unsigned n, unsigned c) {                         \
        modulate_gradient<F>(dst, dw, dbeta, st, w, beta, dab, n, c);                              \
    }
MODULATE(f32, F32)
MODULATE(f16, F16)
MODULATE(bf16, BF16)
