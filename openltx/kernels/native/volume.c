/* Parts of the Video-VAE on volumes whose channels lie together: rows of c channels at (sample, frame, height, width).
 *
 *     norm_activate    SiLU(x / rms(x) * (1 + scale) + shift), with the edge frames repeated as the convolution needs them
 *     depth_to_space   the pixel shuffle behind an upsampling convolution, plus its repeated input
 */
#pragma GCC optimize("finite-math-only") /* or the minimum and maximum in silu_row are not vectorised; nan stays nan */
#include <math.h>

#include "numbers.h"

/* v / (1 + e^-v), the power by a polynomial, relative error below 2^-22 */
INLINE void silu_row(float *v, long n)
{
#pragma omp simd
    for (long i = 0; i < n; i++) {
        const float z = fminf(fmaxf(v[i] * -1.44269504f, -126.0f), 126.0f), whole = rintf(z), f = z - whole;
        const int32_t bits = ((int32_t)whole + 127) << 23;
        float p = 1.5353362e-4f, power;
        p = p * f + 1.3398874e-3f;
        p = p * f + 9.6184374e-3f;
        p = p * f + 5.5503323e-2f;
        p = p * f + 2.4022648e-1f;
        p = p * f + 6.9314720e-1f;
        p = p * f + 1.0f;
        memcpy(&power, &bits, 4);
        v[i] = v[i] / (1 + p * power);
    }
}

/* frames of the result: `before` copies of the first, all, `after` copies of the last; place = h * w */
INLINE void norm_activate(const void *x, const float *scale, const float *shift, void *y, long batch, long frames, long place,
                          long c, long before, long after, const int type)
{
    const long longer = frames + before + after;
#pragma omp parallel for schedule(static)
    for (long r = 0; r < batch * frames * place; r++) {
        const long sample = r / (frames * place), frame = r / place % frames, at_place = r % place;
        float v[c], sum = 0;
        load_row(v, at(x, r * c, type), c, type);
#pragma omp simd reduction(+ : sum)
        for (long i = 0; i < c; i++) sum += v[i] * v[i];
        const float inv = 1.0f / sqrtf(sum / c + 1e-8f);
        if (scale) {
            const float *a = scale + sample * c, *b = shift + sample * c;
#pragma omp simd
            for (long i = 0; i < c; i++) v[i] = v[i] * inv * (1 + a[i]) + b[i];
        } else {
#pragma omp simd
            for (long i = 0; i < c; i++) v[i] *= inv;
        }
        silu_row(v, c);
        const long first = frame == 0 ? 0 : frame + before, last = frame == frames - 1 ? longer - 1 : frame + before;
        void *to = at_mutable(y, ((sample * longer + first) * place + at_place) * c, type);
        store_row(to, v, c, type);
        for (long f = first + 1; f <= last; f++)
            memcpy(at_mutable(y, ((sample * longer + f) * place + at_place) * c, type), to, c * (type == FLOAT32 ? 4 : 2));
    }
}

void openltx_norm_activate(const void *x, const float *scale, const float *shift, void *y, long batch, long frames,
                           long place, long c, long before, long after, int type)
{
    if (type == FLOAT32) norm_activate(x, scale, shift, y, batch, frames, place, c, before, after, FLOAT32);
    else norm_activate(x, scale, shift, y, batch, frames, place, c, before, after, BFLOAT16);
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
