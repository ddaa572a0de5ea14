/* Parts of the Video-VAE on volumes whose channels lie together: rows of c channels at (sample, frame, height, width).
 *
 *     norm_activate    SiLU(x / rms(x) * (1 + scale) + shift), with the edge frames repeated as the convolution needs them
 *     depth_to_space   the pixel shuffle behind an upsampling convolution, plus its repeated input
 */
#pragma GCC optimize("finite-math-only") /* for sigmoid_row */
#include <math.h>

#include "numbers.h"

INLINE float normalise_row(float *unit, long c)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < c; i++) sum += unit[i] * unit[i];
    const float inverse = 1.0f / sqrtf(sum / c + 1e-8f);
#pragma omp simd
    for (long i = 0; i < c; i++) unit[i] *= inverse;
    return inverse;
}

INLINE void modulate_row(const float *unit, const float *scale, const float *shift, float *v, long c)
{
#pragma omp simd
    for (long i = 0; i < c; i++) v[i] = unit[i] * (1 + scale[i]) + shift[i];
}

typedef struct {
    long batch, frames, place, c, before, after; /* place = h * w; the result has frames + before + after frames */
} Volume;

/* The rows of the result in which row r of the input stands: from `*first` on, `*count` of them, `place` apart */
INLINE void copies(const Volume s, long r, long *first, long *count)
{
    const long sample = r / (s.frames * s.place), frame = r / s.place % s.frames, longer = s.frames + s.before + s.after;
    const long from = frame == 0 ? 0 : frame + s.before, to = frame == s.frames - 1 ? longer - 1 : frame + s.before;
    *first = (sample * longer + from) * s.place + r % s.place;
    *count = to - from + 1;
}

INLINE void norm_activate(const void *x, const float *scale, const float *shift, void *y, const Volume s, const int type)
{
    const long c = s.c;
#pragma omp parallel for schedule(static)
    for (long r = 0; r < s.batch * s.frames * s.place; r++) {
        const long table = r / (s.frames * s.place) * c;
        float v[c], gate[c];
        load_row(v, at(x, r * c, type), c, type);
        normalise_row(v, c);
        if (scale) modulate_row(v, scale + table, shift + table, v, c);
        sigmoid_row(v, gate, c);
#pragma omp simd
        for (long i = 0; i < c; i++) v[i] *= gate[i];
        long first, count;
        copies(s, r, &first, &count);
        for (long k = 0; k < count; k++) store_row(at_mutable(y, (first + k * s.place) * c, type), v, c, type);
    }
}

void openltx_norm_activate(const void *x, const float *scale, const float *shift, void *y, long batch, long frames,
                           long place, long c, long before, long after, int type)
{
    const Volume s = {batch, frames, place, c, before, after};
    if (type == FLOAT32) norm_activate(x, scale, shift, y, s, FLOAT32);
    else norm_activate(x, scale, shift, y, s, BFLOAT16);
}

/* dtables is (parts, batch, 2, c), zero on entry: each part's share of dscale and dshift, which the caller sums */
INLINE void norm_activate_back(const void *dy, const void *x, const float *scale, const float *shift, void *dx,
                               float *dtables, const Volume s, long parts, const int type)
{
    const long c = s.c, rows = s.batch * s.frames * s.place;
#pragma omp parallel for schedule(static)
    for (long part = 0; part < parts; part++)
        for (long r = rows * part / parts; r < rows * (part + 1) / parts; r++) {
            const long sample = r / (s.frames * s.place), table = sample * c;
            float unit[c], v[c], gate[c], g[c], more[c], dot = 0;
            load_row(unit, at(x, r * c, type), c, type);
            const float inverse = normalise_row(unit, c);
            long first, count;
            copies(s, r, &first, &count);
            load_row(g, at(dy, first * c, type), c, type);
            for (long k = 1; k < count; k++) {
                load_row(more, at(dy, (first + k * s.place) * c, type), c, type);
#pragma omp simd
                for (long i = 0; i < c; i++) g[i] += more[i];
            }
            if (scale) modulate_row(unit, scale + table, shift + table, v, c);
            else memcpy(v, unit, c * 4);
            sigmoid_row(v, gate, c);
#pragma omp simd
            for (long i = 0; i < c; i++) g[i] *= gate[i] * (1 + v[i] * (1 - gate[i]));
            if (scale) {
                float *dscale = dtables + (part * s.batch + sample) * 2 * c, *dshift = dscale + c;
                const float *factor = scale + table;
#pragma omp simd
                for (long i = 0; i < c; i++) {
                    dscale[i] += g[i] * unit[i];
                    dshift[i] += g[i];
                    g[i] *= 1 + factor[i];
                }
            }
#pragma omp simd reduction(+ : dot)
            for (long i = 0; i < c; i++) dot += g[i] * unit[i];
            dot /= c;
#pragma omp simd
            for (long i = 0; i < c; i++) g[i] = inverse * (g[i] - unit[i] * dot);
            store_row(at_mutable(dx, r * c, type), g, c, type);
        }
}

void openltx_norm_activate_back(const void *dy, const void *x, const float *scale, const float *shift, void *dx,
                                float *dtables, long batch, long frames, long place, long c, long before, long after,
                                long parts, int type)
{
    const Volume s = {batch, frames, place, c, before, after};
    if (type == FLOAT32) norm_activate_back(dy, x, scale, shift, dx, dtables, s, parts, FLOAT32);
    else norm_activate_back(dy, x, scale, shift, dx, dtables, s, parts, BFLOAT16);
}

/* y (batch, f p1 - skip, h p2, w p3, c) from x (batch, f, h, w, c p1 p2 p3), the factors innermost in the channels, plus
 * the same of `input` (batch, f, h, w, c_in p1 p2 p3) with its channels repeated to c, if given. `skip` drops leading
 * frames of the result. */
INLINE void depth_to_space(const void *x, const void *input, void *y, long batch, long frames, long h, long w, long c,
                           long c_in, long p1, long p2, long p3, long skip, const int type)
{
    const long p = p1 * p2 * p3, out_frames = frames * p1 - skip;
#pragma omp parallel for schedule(static)
    for (long r = 0; r < batch * frames * h * w; r++) {
        const long column = r % w, line = r / w % h, frame = r / (w * h) % frames, sample = r / (w * h * frames);
        float v[c * p], skip_row[input ? c_in * p : 1], row[c];
        load_row(v, at(x, r * c * p, type), c * p, type);
        if (input) load_row(skip_row, at(input, r * c_in * p, type), c_in * p, type);
        for (long part = 0; part < p; part++) {
            const long to_frame = frame * p1 + part / (p2 * p3) - skip;
            if (to_frame < 0) continue;
            for (long i = 0; i < c; i++) row[i] = v[i * p + part];
            if (input)
                for (long i = 0; i < c; i += c_in)
                    for (long j = 0; j < c_in; j++) row[i + j] += skip_row[j * p + part];
            const long to_line = line * p2 + part / p3 % p2, to_column = column * p3 + part % p3;
            const long to = ((sample * out_frames + to_frame) * h * p2 + to_line) * w * p3 + to_column;
            store_row(at_mutable(y, to * c, type), row, c, type);
        }
    }
}

void openltx_depth_to_space(const void *x, const void *input, void *y, long batch, long frames, long h, long w, long c,
                            long c_in, long p1, long p2, long p3, long skip, int type)
{
    if (type == FLOAT32) depth_to_space(x, input, y, batch, frames, h, w, c, c_in, p1, p2, p3, skip, FLOAT32);
    else depth_to_space(x, input, y, batch, frames, h, w, c, c_in, p1, p2, p3, skip, BFLOAT16);
}

/* The other way: y (batch, f, h, w, c p1 p2 p3) from x (batch, f p1 - missing, h p2, w p3, c); `missing` leading frames of x
 * count as zero. */
INLINE void space_to_depth(const void *x, void *y, long batch, long frames, long h, long w, long c, long p1, long p2, long p3,
                           long missing, const int type)
{
    const long p = p1 * p2 * p3, in_frames = frames * p1 - missing;
#pragma omp parallel for schedule(static)
    for (long r = 0; r < batch * frames * h * w; r++) {
        const long column = r % w, line = r / w % h, frame = r / (w * h) % frames, sample = r / (w * h * frames);
        float v[c * p], row[c];
        for (long part = 0; part < p; part++) {
            const long from_frame = frame * p1 + part / (p2 * p3) - missing;
            const long from_line = line * p2 + part / p3 % p2, from_column = column * p3 + part % p3;
            const long from = ((sample * in_frames + from_frame) * h * p2 + from_line) * w * p3 + from_column;
            if (from_frame < 0) memset(row, 0, c * 4);
            else load_row(row, at(x, from * c, type), c, type);
            for (long i = 0; i < c; i++) v[i * p + part] = row[i];
        }
        store_row(at_mutable(y, r * c * p, type), v, c * p, type);
    }
}

void openltx_space_to_depth(const void *x, void *y, long batch, long frames, long h, long w, long c, long p1, long p2, long p3,
                            long missing, int type)
{
    if (type == FLOAT32) space_to_depth(x, y, batch, frames, h, w, c, p1, p2, p3, missing, FLOAT32);
    else space_to_depth(x, y, batch, frames, h, w, c, p1, p2, p3, missing, BFLOAT16);
}
