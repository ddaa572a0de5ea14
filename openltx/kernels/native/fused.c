/* Row-wise parts of the transformer block in one pass over memory each, forward and backward.
 *
 *     norm_modulate    y = x / rms(x) * (1 + scale) + shift         before self-attention and feed-forward
 *     norm_rotate      y = rotate(x / rms(x) * weight, angle)       q and k
 *     gated_add        y = h + gate * x                             back into the residual stream
 *     gelu             y = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the tanh form
 *
 * A row is a token of d channels. scale, shift and gate are rows of a float32 table; `rows` names the table row of each
 * token, or is NULL if each table row serves `per_row` tokens in turn. All tokens of a sample must use that sample's own
 * rows: the backward passes give each sample to one thread, which adds into its rows without locks.
 *
 * `kind` says the element types: 0 all float32, 1 all bfloat16, 2 float32 in and bfloat16 out (autocast).
 */
#pragma GCC optimize("finite-math-only") /* for sigmoid_row */
#include <math.h>

#include "numbers.h"

#define DISPATCH(kind, CALL)                          \
    switch (kind) {                                   \
    case 0: { CALL(FLOAT32, FLOAT32); break; }        \
    case 1: { CALL(BFLOAT16, BFLOAT16); break; }      \
    default: { CALL(FLOAT32, BFLOAT16); break; }      \
    }

INLINE long table_row(const int64_t *rows, long r, long per_row) { return rows ? (long)rows[r] : r / per_row; }

INLINE float inverse_rms(const float *x, long d, float eps)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < d; i++) sum += x[i] * x[i];
    return 1.0f / sqrtf(sum / d + eps);
}

/* ---- norm_modulate ---- */

INLINE void norm_modulate(const void *x, const float *scale, const float *shift, const int64_t *rows, void *y, long n,
                          long d, long stride, long per_row, float eps, const int in, const int out)
{
#pragma omp parallel for schedule(static) if (n * d > 16384)
    for (long r = 0; r < n; r++) {
        const long row = table_row(rows, r, per_row) * stride;
        const float *a = scale + row, *b = shift + row;
        float v[d];
        load_row(v, at(x, r * d, in), d, in);
        const float inv = inverse_rms(v, d, eps);
#pragma omp simd
        for (long i = 0; i < d; i++) v[i] = v[i] * inv * (1 + a[i]) + b[i];
        store_row(at_mutable(y, r * d, out), v, d, out);
    }
}

void openltx_norm_modulate(const void *x, const float *scale, const float *shift, const int64_t *rows, void *y, long n,
                           long d, long stride, long per_row, float eps, int kind)
{
#define CALL(IN, OUT) norm_modulate(x, scale, shift, rows, y, n, d, stride, per_row, eps, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* dscale and dshift are tables of their own, dense (rows x d), zero on entry. */
INLINE void norm_modulate_back(const void *dy, const void *x, const float *scale, const int64_t *rows, void *dx,
                               float *dscale, float *dshift, long samples, long n, long d, long stride, long per_row,
                               float eps, const int in, const int out)
{
#pragma omp parallel for schedule(static)
    for (long s = 0; s < samples; s++)
        for (long r = s * n; r < (s + 1) * n; r++) {
            const long row = table_row(rows, r, per_row);
            const float *a = scale + row * stride;
            float *da = dscale + row * d, *db = dshift + row * d, dot = 0, unit[d], g[d];
            load_row(unit, at(x, r * d, in), d, in);
            load_row(g, at(dy, r * d, out), d, out);
            const float inv = inverse_rms(unit, d, eps);
#pragma omp simd reduction(+ : dot)
            for (long i = 0; i < d; i++) {
                unit[i] *= inv;
                da[i] += g[i] * unit[i];
                db[i] += g[i];
                g[i] *= 1 + a[i];
                dot += g[i] * unit[i];
            }
            dot /= d;
#pragma omp simd
            for (long i = 0; i < d; i++) g[i] = inv * (g[i] - unit[i] * dot);
            store_row(at_mutable(dx, r * d, in), g, d, in);
        }
}

void openltx_norm_modulate_back(const void *dy, const void *x, const float *scale, const int64_t *rows, void *dx,
                                float *dscale, float *dshift, long samples, long n, long d, long stride, long per_row,
                                float eps, int kind)
{
#define CALL(IN, OUT) \
    norm_modulate_back(dy, x, scale, rows, dx, dscale, dshift, samples, n, d, stride, per_row, eps, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* ---- norm_rotate: angle holds cos and sin of each pair of channels, side by side, for `angles` rows ---- */

typedef float Lanes __attribute__((vector_size(64), aligned(4)));
typedef int32_t LaneIndex __attribute__((vector_size(64)));

/* Each pair (a, b) of v as a + i b times (or, inverse, divided by) cos + i sin of `turn`; n is even */
INLINE void rotate(float *v, const float *turn, long n, const int inverse)
{
    const LaneIndex cosine = {0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14}, sine = cosine + 1;
    const LaneIndex other = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
    const Lanes sign = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
    long i = 0;
    for (; i + 16 <= n; i += 16) {
        const Lanes x = *(const Lanes *)(v + i), angle = *(const Lanes *)(turn + i);
        const Lanes s = __builtin_shuffle(angle, sine) * (inverse ? -sign : sign);
        *(Lanes *)(v + i) = x * __builtin_shuffle(angle, cosine) + __builtin_shuffle(x, other) * s;
    }
    for (; i < n; i += 2) {
        const float a = v[i], b = v[i + 1], s = inverse ? -turn[i + 1] : turn[i + 1];
        v[i] = a * turn[i] - b * s;
        v[i + 1] = b * turn[i] + a * s;
    }
}

INLINE void norm_rotate(const void *x, const float *weight, const float *angle, void *y, long n, long d, long angles,
                        float eps, const int in, const int out)
{
#pragma omp parallel for schedule(static) if (n * d > 16384)
    for (long r = 0; r < n; r++) {
        float v[d];
        load_row(v, at(x, r * d, in), d, in);
        const float inv = inverse_rms(v, d, eps);
#pragma omp simd
        for (long i = 0; i < d; i++) v[i] *= inv * weight[i];
        if (angle) rotate(v, angle + r % angles * d, d, 0);
        store_row(at_mutable(y, r * d, out), v, d, out);
    }
}

void openltx_norm_rotate(const void *x, const float *weight, const float *angle, void *y, long n, long d, long angles,
                         float eps, int kind)
{
#define CALL(IN, OUT) norm_rotate(x, weight, angle, y, n, d, angles, eps, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* dweight is (parts x d), zero on entry; the caller sums it. */
INLINE void norm_rotate_back(const void *dy, const void *x, const float *weight, const float *angle, void *dx,
                             float *dweight, long parts, long n, long d, long angles, float eps, const int in,
                             const int out)
{
#pragma omp parallel for schedule(static)
    for (long part = 0; part < parts; part++)
        for (long r = n * part / parts; r < n * (part + 1) / parts; r++) {
            float *dw = dweight + part * d, dot = 0, unit[d], g[d];
            load_row(unit, at(x, r * d, in), d, in);
            load_row(g, at(dy, r * d, out), d, out);
            if (angle) rotate(g, angle + r % angles * d, d, 1);
            const float inv = inverse_rms(unit, d, eps);
#pragma omp simd reduction(+ : dot)
            for (long i = 0; i < d; i++) {
                unit[i] *= inv;
                dw[i] += g[i] * unit[i];
                g[i] *= weight[i];
                dot += g[i] * unit[i];
            }
            dot /= d;
#pragma omp simd
            for (long i = 0; i < d; i++) g[i] = inv * (g[i] - unit[i] * dot);
            store_row(at_mutable(dx, r * d, in), g, d, in);
        }
}

void openltx_norm_rotate_back(const void *dy, const void *x, const float *weight, const float *angle, void *dx,
                              float *dweight, long parts, long n, long d, long angles, float eps, int kind)
{
#define CALL(IN, OUT) norm_rotate_back(dy, x, weight, angle, dx, dweight, parts, n, d, angles, eps, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* ---- gated_add: here `in` is the residual stream's type, `out` the branch's ---- */

INLINE void gated_add(const void *h, const void *x, const float *gate, const int64_t *rows, void *y, long n, long d,
                      long stride, long per_row, const int in, const int out)
{
#pragma omp parallel for schedule(static) if (n * d > 16384)
    for (long r = 0; r < n; r++) {
        const float *g = gate + table_row(rows, r, per_row) * stride;
        float stream[d], branch[d];
        load_row(stream, at(h, r * d, in), d, in);
        load_row(branch, at(x, r * d, out), d, out);
#pragma omp simd
        for (long i = 0; i < d; i++) stream[i] += g[i] * branch[i];
        store_row(at_mutable(y, r * d, in), stream, d, in);
    }
}

void openltx_gated_add(const void *h, const void *x, const float *gate, const int64_t *rows, void *y, long n, long d,
                       long stride, long per_row, int kind)
{
#define CALL(IN, OUT) gated_add(h, x, gate, rows, y, n, d, stride, per_row, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* The gradient of h is dy itself. dgate is dense (rows x d), zero on entry. */
INLINE void gated_add_back(const void *dy, const void *x, const float *gate, const int64_t *rows, void *dx, float *dgate,
                           long samples, long n, long d, long stride, long per_row, const int in, const int out)
{
#pragma omp parallel for schedule(static)
    for (long s = 0; s < samples; s++)
        for (long r = s * n; r < (s + 1) * n; r++) {
            const long row = table_row(rows, r, per_row);
            const float *gate_row = gate + row * stride;
            float *dg = dgate + row * d, g[d], branch[d];
            load_row(g, at(dy, r * d, in), d, in);
            load_row(branch, at(x, r * d, out), d, out);
#pragma omp simd
            for (long i = 0; i < d; i++) {
                dg[i] += g[i] * branch[i];
                g[i] *= gate_row[i];
            }
            store_row(at_mutable(dx, r * d, out), g, d, out);
        }
}

void openltx_gated_add_back(const void *dy, const void *x, const float *gate, const int64_t *rows, void *dx, float *dgate,
                            long samples, long n, long d, long stride, long per_row, int kind)
{
#define CALL(IN, OUT) gated_add_back(dy, x, gate, rows, dx, dgate, samples, n, d, stride, per_row, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* ---- gelu, over n elements in all; dy and dx NULL: forward ---- */

enum { GELU_BLOCK = 1024 };

INLINE void gelu(const void *dy, const void *x, void *to, long n, const int type)
{
    const float root = 1.5957691216f; /* 2 sqrt(2 / pi) */
#pragma omp parallel for schedule(static)
    for (long start = 0; start < n; start += GELU_BLOCK) {
        const long count = n - start < GELU_BLOCK ? n - start : GELU_BLOCK;
        float v[GELU_BLOCK], u[GELU_BLOCK], gate[GELU_BLOCK];
        load_row(v, at(x, start, type), count, type);
#pragma omp simd
        for (long i = 0; i < count; i++) u[i] = root * v[i] * (1 + 0.044715f * v[i] * v[i]);
        sigmoid_row(u, gate, count);
        if (!dy) {
#pragma omp simd
            for (long i = 0; i < count; i++) v[i] *= gate[i];
        } else {
            load_row(u, at(dy, start, type), count, type);
#pragma omp simd
            for (long i = 0; i < count; i++) {
                const float slope = root * (1 + 3 * 0.044715f * v[i] * v[i]);
                v[i] = u[i] * gate[i] * (1 + v[i] * slope * (1 - gate[i]));
            }
        }
        store_row(at_mutable(to, start, type), v, count, type);
    }
}

/* y from x, or with dy the gradient of x */
void openltx_gelu(const void *dy, const void *x, void *to, long n, int type)
{
    if (type == FLOAT32) gelu(dy, x, to, n, FLOAT32);
    else gelu(dy, x, to, n, BFLOAT16);
}
