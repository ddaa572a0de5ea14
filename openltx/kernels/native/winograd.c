/* 3 x 3 x 3 convolution by minimal filtering: F(2 x 2, 3 x 3) over rows and columns (Winograd 1980; Lavin and Gray 2016),
 * tap by tap over frames. 16 products instead of 36 for four results of a frame:
 *
 *     y = A^T [ sum over channels and taps of (G g G^T) * (B^T d B) ] A        d: 4 x 4 inputs, y: 2 x 2 results
 *
 *     B^T = 1  0 -1  0      G = 1    0   0        A^T = 1  1  1  0
 *           0  1  1  0         1/2  1/2 1/2             0  1 -1 -1
 *           0 -1  1  0         1/2 -1/2 1/2
 *           0  1  0 -1          0    0   1
 *
 * Channels lie together. A strip of tiles passes all frames: the transformed inputs of the last three stay in the cache.
 * In bfloat16 the transformed kernels and inputs are rounded once more, sums stay float32.
 */
#ifdef __AVX512F__
#include <stdlib.h>

#include "tiles.h"

enum { STRIP = 48, DEPTH = 64 }; /* tiles in a strip; words of channels that a product takes at once */

typedef struct {
    const void *x, *add;
    const int32_t *kernel;
    const float *bias;
    void *y;
    long batch, frames, h, w, c, n, taps; /* frames of the result; x has taps - 1 more */
    long n0, count; /* the channels of the result that `kernel` is for */
} Convolution;

/* to [place][panel][tap][word of channels][PANEL] from g [n][tap][row][column][channel] */
INLINE void transform_kernel(const Convolution s, const void *g, int32_t *to, const int type)
{
    const long c = s.c, taps = s.taps, per_word = PER_WORD(type), words = c / per_word, place = s.count * taps * words;
    const __m512 half = _mm512_set1_ps(0.5f);
#pragma omp parallel for collapse(3) schedule(static)
    for (long panel = 0; panel < s.count / PANEL; panel++)
        for (long tap = 0; tap < taps; tap++)
            for (long c0 = 0; c0 < c; c0 += 16)
                for (long j = 0; j < PANEL; j++) {
                    __m512 v[4][3];
                    for (long b = 0; b < 3; b++) {
                        const long from = (((s.n0 + panel * PANEL + j) * taps + tap) * 9 + b) * c + c0;
                        v[0][b] = load_16(g, from, type), v[3][b] = load_16(g, from + 6 * c, type);
                        const __m512 outer = _mm512_add_ps(v[0][b], v[3][b]), middle = load_16(g, from + 3 * c, type);
                        v[1][b] = _mm512_mul_ps(half, _mm512_add_ps(outer, middle));
                        v[2][b] = _mm512_mul_ps(half, _mm512_sub_ps(outer, middle));
                    }
                    int32_t *start = to + ((panel * taps + tap) * words + c0 / per_word) * PANEL + j, row[16];
                    for (long a = 0; a < 4; a++) {
                        const __m512 outer = _mm512_add_ps(v[a][0], v[a][2]), middle = v[a][1];
                        const __m512 u[4] = {v[a][0], _mm512_mul_ps(half, _mm512_add_ps(outer, middle)),
                                             _mm512_mul_ps(half, _mm512_sub_ps(outer, middle)), v[a][2]};
                        for (long b = 0; b < 4; b++) {
                            store_16(row, 0, u[b], type);
                            for (long k = 0; k < 16 / per_word; k++) start[(4 * a + b) * place + k * PANEL] = row[k];
                        }
                    }
                }
}

/* to [place][tile][channel] from a frame of x: `count` tiles from tile `first` on */
INLINE void transform_input(const Convolution s, long frame, long first, long count, void *to, const int type)
{
    const long across = (s.w + 1) / 2;
    for (long i = 0; i < count; i++) {
        const long top = (first + i) / across * 2 - 1, left = (first + i) % across * 2 - 1;
        for (long c = 0; c < s.c; c += 16) {
            __m512 d[4][4];
            for (long a = 0; a < 4; a++)
                for (long b = 0; b < 4; b++) {
                    const long row = top + a, column = left + b;
                    const int inside = row >= 0 && row < s.h && column >= 0 && column < s.w;
                    d[a][b] = inside ? load_16(s.x, ((frame * s.h + row) * s.w + column) * s.c + c, type)
                                     : _mm512_setzero_ps();
                }
            for (long b = 0; b < 4; b++) {
                const __m512 d1 = d[1][b], d2 = d[2][b];
                d[0][b] = _mm512_sub_ps(d[0][b], d2), d[3][b] = _mm512_sub_ps(d1, d[3][b]);
                d[1][b] = _mm512_add_ps(d1, d2), d[2][b] = _mm512_sub_ps(d2, d1);
            }
            for (long a = 0; a < 4; a++) {
                const __m512 *v = d[a];
                const __m512 u[4] = {_mm512_sub_ps(v[0], v[2]), _mm512_add_ps(v[1], v[2]), _mm512_sub_ps(v[2], v[1]),
                                     _mm512_sub_ps(v[1], v[3])};
                for (long b = 0; b < 4; b++) store_16(to, ((4 * a + b) * STRIP + i) * s.c + c, u[b], type);
            }
        }
    }
}

/* The results of a strip for PANEL channels from n0 on, from m [place][tile][PANEL] */
INLINE void transform_output(const Convolution s, long frame, long first, long count, long n0, const float *m, const int type)
{
    const long across = (s.w + 1) / 2;
    for (long i = 0; i < count; i++) {
        const long top = (first + i) / across * 2, left = (first + i) % across * 2;
        for (long n = 0; n < PANEL; n += 16) {
            __m512 half[2][4];
            for (long b = 0; b < 4; b++) {
                __m512 v[4];
                for (long a = 0; a < 4; a++) v[a] = _mm512_loadu_ps(m + ((4 * a + b) * STRIP + i) * PANEL + n);
                half[0][b] = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), v[2]);
                half[1][b] = _mm512_sub_ps(_mm512_sub_ps(v[1], v[2]), v[3]);
            }
            const __m512 bias = s.bias ? _mm512_loadu_ps(s.bias + n0 + n) : _mm512_setzero_ps();
            for (long a = 0; a < 2 && top + a < s.h; a++) {
                const __m512 *v = half[a];
                const __m512 y[2] = {_mm512_add_ps(_mm512_add_ps(v[0], v[1]), v[2]),
                                     _mm512_sub_ps(_mm512_sub_ps(v[1], v[2]), v[3])};
                for (long b = 0; b < 2 && left + b < s.w; b++) {
                    const long at_y = ((frame * s.h + top + a) * s.w + left + b) * s.n + n0 + n;
                    __m512 result = _mm512_add_ps(y[b], bias);
                    if (s.add) result = _mm512_add_ps(result, load_16(s.add, at_y, type));
                    store_16(s.y, at_y, result, type);
                }
            }
        }
    }
}

/* m [place][tile][PANEL] = sum over taps and channels of inputs times kernel */
INLINE void multiply_strip(const Convolution s, long frame, long full, long panel, int32_t *const *inputs, float *m,
                           const int type)
{
    const long words = s.c / PER_WORD(type), place = s.count * s.taps * words;
    for (long i = 0; i < 16; i++)
        for (long tap = 0; tap < s.taps; tap++) {
            const int32_t *rows = inputs[(frame + tap) % s.taps] + i * STRIP * words;
            const int32_t *kernel = s.kernel + i * place + (panel * s.taps + tap) * words * PANEL;
            for (long k = 0; k < words; k += DEPTH) {
                const long depth = words - k < DEPTH ? words - k : DEPTH;
                for (long t = 0; t < full; t += ROWS) {
                    float *sum = m + (i * STRIP + t) * PANEL;
                    const int32_t *row = rows + t * words + k, *column = kernel + k * PANEL;
                    if (tap || k) tile(row, words, column, sum, PANEL, depth, 4, 1, type);
                    else tile(row, words, column, sum, PANEL, depth, 4, 0, type);
                }
            }
        }
}

INLINE void convolve(const Convolution s, const int type)
{
    const long words = s.c / PER_WORD(type), tiles = (s.h + 1) / 2 * ((s.w + 1) / 2), strips = (tiles + STRIP - 1) / STRIP;
    const long longer = s.frames + s.taps - 1;
#pragma omp parallel
    {
        int32_t *memory = aligned_alloc(64, 16 * STRIP * (s.taps * words + PANEL) * 4), *inputs[3];
        float *m = (float *)(memory + s.taps * 16 * STRIP * words);
        for (long tap = 0; tap < s.taps; tap++) inputs[tap] = memory + tap * 16 * STRIP * words;
        memset(memory, 0, s.taps * 16 * STRIP * words * 4); /* rows behind the last tile are multiplied too */
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (long sample = 0; sample < s.batch; sample++)
            for (long strip = 0; strip < strips; strip++) {
                const long first = strip * STRIP, count = tiles - first < STRIP ? tiles - first : STRIP;
                const long full = (count + ROWS - 1) / ROWS * ROWS;
                for (long frame = 0; frame < longer; frame++) {
                    transform_input(s, sample * longer + frame, first, count, inputs[frame % s.taps], type);
                    const long now = frame - (s.taps - 1);
                    for (long panel = 0; panel < s.count / PANEL && now >= 0; panel++) {
                        multiply_strip(s, now, full, panel, inputs, m, type);
                        transform_output(s, sample * s.frames + now, first, count, s.n0 + panel * PANEL, m, type);
                    }
                }
            }
        free(memory);
    }
}

INLINE void convolve_in_parts(Convolution s, const void *kernel, int32_t *scratch, long part, const int type)
{
    for (s.n0 = 0; s.n0 < s.n; s.n0 += part) {
        s.count = s.n - s.n0 < part ? s.n - s.n0 : part;
        transform_kernel(s, kernel, scratch, type);
        convolve(s, type);
    }
}

/* x (batch, frames + taps - 1, h, w, c) to y (batch, frames, h, w, n), zeros around every frame; kernel [n][tap][row]
 * [column][c], bias (n) or NULL, add like y or NULL; c a multiple of 32, n of 64. `scratch` has room for the transformed
 * kernel, 16 * taps * c, of `part` channels of the result, a multiple of 64. */
void openltx_winograd(const void *x, const void *kernel, const float *bias, const void *add, void *scratch, void *y,
                      long batch, long frames, long h, long w, long c, long n, long taps, long part, int type)
{
    const Convolution s = {x, add, scratch, bias, y, batch, frames, h, w, c, n, taps, 0, 0};
#ifdef __AVX512BF16__
    if (type == BFLOAT16) {
        convolve_in_parts(s, kernel, scratch, part, BFLOAT16);
        return;
    }
#endif
    convolve_in_parts(s, kernel, scratch, part, FLOAT32);
}
#endif
