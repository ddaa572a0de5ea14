/* Products of small matrices by AVX-512, in float32 or in bfloat16 with float32 sums.
 *
 * A "word" is 32 bits: one float, or two neighbouring bfloat16 that one instruction multiplies and adds. Both element
 * types therefore share the layouts.
 */
#ifndef OPENLTX_TILES_H
#define OPENLTX_TILES_H

#include <immintrin.h>

#include "numbers.h"

enum { ROWS = 6, PANEL = 64 };

/* floats in a word */
#define PER_WORD(type) ((type) == FLOAT32 ? 1 : 2)

INLINE __m512 multiply_add(__m512 sum, __m512i a, __m512i b, const int type)
{
#ifdef __AVX512BF16__
    if (type == BFLOAT16) return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#endif
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
}

/* c (ROWS x 16 * wide) = (or +=) a (ROWS x words) times b (words x 16 * wide). In words: `stride_a` between the rows of a
 * and `step_a` between the words of a row */
INLINE void strided_tile(const int32_t *a, long stride_a, long step_a, const int32_t *b, float *c, long stride_c, long words,
                         const int wide, const int add, const int type)
{
    __m512 sum[ROWS][4];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < wide; j++)
            sum[i][j] = add ? _mm512_loadu_ps(c + i * stride_c + 16 * j) : _mm512_setzero_ps();
    for (long k = 0; k < words; k++) {
        __m512i column[4];
        for (int j = 0; j < wide; j++) column[j] = _mm512_loadu_si512(b + (k * wide + j) * 16);
        for (int i = 0; i < ROWS; i++) {
            const __m512i row = _mm512_set1_epi32(a[i * stride_a + k * step_a]);
            for (int j = 0; j < wide; j++) sum[i][j] = multiply_add(sum[i][j], row, column[j], type);
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < wide; j++) _mm512_storeu_ps(c + i * stride_c + 16 * j, sum[i][j]);
}

INLINE void tile(const int32_t *a, long stride_a, const int32_t *b, float *c, long stride_c, long words, const int wide,
                 const int add, const int type)
{
    strided_tile(a, stride_a, 1, b, c, stride_c, words, wide, add, type);
}

/* 16 neighbouring elements */
INLINE __m512 load_16(const void *p, long i, const int type)
{
    if (type == FLOAT32) return _mm512_loadu_ps((const float *)p + i);
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at(p, i, type)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

INLINE void store_16(void *p, long i, __m512 x, const int type)
{
#ifdef __AVX512BF16__
    if (type == BFLOAT16) {
        _mm256_storeu_si256(at_mutable(p, i, type), (__m256i)_mm512_cvtneps_pbh(x));
        return;
    }
#endif
    _mm512_storeu_ps((float *)p + i, x);
}

INLINE void store_two(void *to, long i, __m512 low, __m512 high, const int type)
{
#ifdef __AVX512BF16__
    if (type == BFLOAT16) {
        _mm512_storeu_si512(at_mutable(to, i, type), (__m512i)_mm512_cvtne2ps_pbh(high, low));
        return;
    }
#endif
    _mm512_storeu_ps((float *)to + i, low);
    _mm512_storeu_ps((float *)to + i + 16, high);
}

#endif
