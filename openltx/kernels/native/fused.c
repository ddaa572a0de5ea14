/* Row-wise parts of the transformer block in one pass over memory each, forward and backward.
 *
 *     norm_modulate    y = x / rms(x) * (1 + scale) + shift         before self-attention and feed-forward
 *     norm_rotate      y = rotate(x / rms(x) * weight, angle)       q and k
 *     gated_add        y = h + gate * x                             back into the residual stream
 *
 * A row is a token of d channels. scale, shift and gate are rows of a float32 table; `rows` names the table row of each
 * token, or is NULL if each table row serves `per_row` tokens in turn. All tokens of a sample must use that sample's own
 * rows: the backward passes give each sample to one thread, which adds into its rows without locks.
 *
 * `kind` says the element types: 0 all float32, 1 all bfloat16, 2 float32 in and bfloat16 out (autocast).
 */
#include <math.h>
#include <stdlib.h>

#include "numbers.h"

#define DISPATCH(kind, CALL)                          \
    switch (kind) {                                   \
    case 0: { CALL(FLOAT32, FLOAT32); break; }        \
    case 1: { CALL(BFLOAT16, BFLOAT16); break; }      \
    default: { CALL(FLOAT32, BFLOAT16); break; }      \
    }

INLINE long table_row(const int64_t *rows, long r, long per_row) { return rows ? (long)rows[r] : r / per_row; }

INLINE float inverse_rms(const void *x, long d, float eps, const int type)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < d; i++) {
        const float v = load(x, i, type);
        sum += v * v;
    }
    return 1.0f / sqrtf(sum / d + eps);
}

/* ---- norm_modulate ---- */

INLINE void norm_modulate(const void *x, const float *scale, const float *shift, const int64_t *rows, void *y, long n,
                          long d, long stride, long per_row, float eps, const int in, const int out)
{
#pragma omp parallel for schedule(static) if (n * d > 16384)
    for (long r = 0; r < n; r++) {
        const long row = table_row(rows, r, per_row) * stride;
        const void *xr = at(x, r * d, in);
        void *yr = at_mutable(y, r * d, out);
        const float *a = scale + row, *b = shift + row, inv = inverse_rms(xr, d, eps, in);
#pragma omp simd
        for (long i = 0; i < d; i++) store(yr, i, load(xr, i, in) * inv * (1 + a[i]) + b[i], out);
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
            const void *xr = at(x, r * d, in), *gr = at(dy, r * d, out);
            void *dxr = at_mutable(dx, r * d, in);
            const float *a = scale + row * stride, inv = inverse_rms(xr, d, eps, in);
            float *da = dscale + row * d, *db = dshift + row * d, dot = 0;
#pragma omp simd reduction(+ : dot)
            for (long i = 0; i < d; i++) {
                const float unit = load(xr, i, in) * inv, g = load(gr, i, out);
                da[i] += g * unit;
                db[i] += g;
                dot += g * (1 + a[i]) * unit;
            }
            dot /= d;
#pragma omp simd
            for (long i = 0; i < d; i++) {
                const float unit = load(xr, i, in) * inv, g = load(gr, i, out) * (1 + a[i]);
                store(dxr, i, inv * (g - unit * dot), in);
            }
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

INLINE void norm_rotate(const void *x, const float *weight, const float *angle, void *y, long n, long d, long angles,
                        float eps, const int in, const int out)
{
#pragma omp parallel for schedule(static) if (n * d > 16384)
    for (long r = 0; r < n; r++) {
        const void *xr = at(x, r * d, in);
        void *yr = at_mutable(y, r * d, out);
        const float inv = inverse_rms(xr, d, eps, in), *turn = angle ? angle + (r % angles) * d : 0;
        if (!turn) {
#pragma omp simd
            for (long i = 0; i < d; i++) store(yr, i, load(xr, i, in) * inv * weight[i], out);
            continue;
        }
#pragma omp simd
        for (long i = 0; i < d; i += 2) {
            const float a = load(xr, i, in) * inv * weight[i], b = load(xr, i + 1, in) * inv * weight[i + 1];
            store(yr, i, a * turn[i] - b * turn[i + 1], out);
            store(yr, i + 1, a * turn[i + 1] + b * turn[i], out);
        }
    }
}

void openltx_norm_rotate(const void *x, const float *weight, const float *angle, void *y, long n, long d, long angles,
                         float eps, int kind)
{
#define CALL(IN, OUT) norm_rotate(x, weight, angle, y, n, d, angles, eps, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* dweight is (threads x d), zero on entry; the caller sums it. `turned` is scratch of (threads x d). */
INLINE void norm_rotate_back(const void *dy, const void *x, const float *weight, const float *angle, void *dx,
                             float *dweight, float *turned, long threads, long n, long d, long angles, float eps,
                             const int in, const int out)
{
#pragma omp parallel for schedule(static)
    for (long part = 0; part < threads; part++)
        for (long r = n * part / threads; r < n * (part + 1) / threads; r++) {
            const void *xr = at(x, r * d, in), *gr = at(dy, r * d, out);
            void *dxr = at_mutable(dx, r * d, in);
            const float inv = inverse_rms(xr, d, eps, in), *turn = angle ? angle + (r % angles) * d : 0;
            float *dw = dweight + part * d, *g = turned + part * d, dot = 0;
            if (turn) { /* the rotation's inverse */
#pragma omp simd
                for (long i = 0; i < d; i += 2) {
                    const float a = load(gr, i, out), b = load(gr, i + 1, out);
                    g[i] = a * turn[i] + b * turn[i + 1];
                    g[i + 1] = b * turn[i] - a * turn[i + 1];
                }
            } else {
#pragma omp simd
                for (long i = 0; i < d; i++) g[i] = load(gr, i, out);
            }
#pragma omp simd reduction(+ : dot)
            for (long i = 0; i < d; i++) {
                const float unit = load(xr, i, in) * inv;
                dw[i] += g[i] * unit;
                dot += g[i] * weight[i] * unit;
            }
            dot /= d;
#pragma omp simd
            for (long i = 0; i < d; i++)
                store(dxr, i, inv * (g[i] * weight[i] - load(xr, i, in) * inv * dot), in);
        }
}

void openltx_norm_rotate_back(const void *dy, const void *x, const float *weight, const float *angle, void *dx,
                              float *dweight, float *turned, long threads, long n, long d, long angles, float eps, int kind)
{
#define CALL(IN, OUT) norm_rotate_back(dy, x, weight, angle, dx, dweight, turned, threads, n, d, angles, eps, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}

/* ---- gated_add: here `in` is the residual stream's type, `out` the branch's ---- */

INLINE void gated_add(const void *h, const void *x, const float *gate, const int64_t *rows, void *y, long n, long d,
                      long stride, long per_row, const int in, const int out)
{
#pragma omp parallel for schedule(static) if (n * d > 16384)
    for (long r = 0; r < n; r++) {
        const void *hr = at(h, r * d, in), *xr = at(x, r * d, out);
        void *yr = at_mutable(y, r * d, in);
        const float *g = gate + table_row(rows, r, per_row) * stride;
#pragma omp simd
        for (long i = 0; i < d; i++) store(yr, i, load(hr, i, in) + g[i] * load(xr, i, out), in);
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
            const void *gr = at(dy, r * d, in), *xr = at(x, r * d, out);
            void *dxr = at_mutable(dx, r * d, out);
            const float *g = gate + row * stride;
            float *dg = dgate + row * d;
#pragma omp simd
            for (long i = 0; i < d; i++) {
                const float v = load(gr, i, in);
                dg[i] += v * load(xr, i, out);
                store(dxr, i, v * g[i], out);
            }
        }
}

void openltx_gated_add_back(const void *dy, const void *x, const float *gate, const int64_t *rows, void *dx, float *dgate,
                            long samples, long n, long d, long stride, long per_row, int kind)
{
#define CALL(IN, OUT) gated_add_back(dy, x, gate, rows, dx, dgate, samples, n, d, stride, per_row, IN, OUT)
    DISPATCH(kind, CALL)
#undef CALL
}
