/* Softmax attention, softmax(q k^T / sqrt(d)) v, without ever holding the whole matrix of logits.
 *
 * The online softmax of FlashAttention (Dao et al., 2022) for processors with AVX-512: blocks of queries pass over blocks
 * of keys; for each block the logits, the running maximum, the exponentials in 16-wide polynomial form, and their product
 * with the values. q, k, v and the result are rows of tokens, heads side by side, so nothing is transposed outside.
 *
 * A "word" is 32 bits: one float, or two neighbouring bfloat16 that one instruction multiplies and adds. Both element
 * types therefore share the layouts: keys as [panel of 64 keys][word of channels][key], values as [panel of channels]
 * [word of keys][channel].
 */
#ifdef __AVX512F__
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>

#include "numbers.h"

enum { ROWS = 6, PANEL = 64, QUERY_BLOCK = 96, KEY_BLOCK = 512 };

/* floats in a word */
#define PER_WORD(type) ((type) == FLOAT32 ? 1 : 2)

INLINE __m512 multiply_add(__m512 sum, __m512i a, __m512i b, const int type)
{
#ifdef __AVX512BF16__
    if (type == BFLOAT16) return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#endif
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
}

/* c (ROWS x 16 * wide) = (or +=) a (ROWS x words) times b (words x 16 * wide); strides in words */
INLINE void tile(const int32_t *a, long stride_a, const int32_t *b, float *c, long stride_c, long words, const int wide,
                 const int add, const int type)
{
    __m512 sum[ROWS][4];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < wide; j++)
            sum[i][j] = add ? _mm512_loadu_ps(c + i * stride_c + 16 * j) : _mm512_setzero_ps();
    for (long k = 0; k < words; k++) {
        __m512i column[4];
        for (int j = 0; j < wide; j++) column[j] = _mm512_loadu_si512(b + (k * wide + j) * 16);
        for (int i = 0; i < ROWS; i++) {
            const __m512i row = _mm512_set1_epi32(a[i * stride_a + k]);
            for (int j = 0; j < wide; j++) sum[i][j] = multiply_add(sum[i][j], row, column[j], type);
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < wide; j++) _mm512_storeu_ps(c + i * stride_c + 16 * j, sum[i][j]);
}

/* 2^x for x <= 0, relative error below 2^-22 in float32 and 2^-12 (a quarter of bfloat16's step) otherwise */
INLINE __m512 exp2_512(__m512 x, const int type)
{
    x = _mm512_max_ps(x, _mm512_set1_ps(-126.0f));
    const __m512 whole = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, whole); /* f in [-1/2, 1/2] */
    __m512 p;
    if (type == FLOAT32) {
        p = _mm512_set1_ps(1.5353362e-4f);
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3398874e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6184374e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5503323e-2f));
    } else {
        p = _mm512_set1_ps(9.6184374e-3f);
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5503323e-2f));
    }
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022648e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314720e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
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

INLINE void pack_keys(const void *k, long stride, long n, long words, int32_t *to, const int type)
{
    for (long p = 0; p < n; p += PANEL, to += words * PANEL)
        for (long key = 0; key < PANEL; key++) {
            const int32_t *row = at(k, (p + key) * stride, type);
            for (long w = 0; w < words; w++) to[w * PANEL + key] = p + key < n ? row[w] : 0;
        }
}

INLINE void pack_values(const void *v, long stride, long n, long padded, long d, long columns, int32_t *to, const int type)
{
    const long per_word = PER_WORD(type);
    for (long first = 0; first < d; first += columns)
        for (long p = 0; p < padded; p += per_word, to += columns) {
            if (type == FLOAT32) {
                const int32_t *row = (const int32_t *)v + p * stride + first;
                for (long c = 0; c < columns; c++) to[c] = p < n ? row[c] : 0;
            } else {
                const uint16_t *row = (const uint16_t *)v + p * stride + first;
                const long next = p + 1 < n ? stride : 0;
                for (long c = 0; c < columns; c++)
                    to[c] = p < n ? row[c] | (next ? (uint32_t)row[next + c] << 16 : 0) : 0;
            }
        }
}

/* One row of logits to weights: p = 2^(s c - maximum); returns their sum. Lanes from `real` on count for nothing. */
INLINE float softmax_row(float *s, const float *bias, void *p, long real, long n, float c, float *maximum, const int type)
{
    if (bias)
        for (long j = 0; j < real; j++) s[j] += bias[j] / c; /* bias comes in units of log2 */
    for (long j = real; j < n; j++) s[j] = -INFINITY;
    __m512 top = _mm512_loadu_ps(s);
    for (long j = 16; j < n; j += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(s + j));
    *maximum = fmaxf(*maximum, _mm512_reduce_max_ps(top) * c);
    const __m512 m = _mm512_set1_ps(*maximum), factor = _mm512_set1_ps(c);
    __m512 sum = _mm512_setzero_ps();
    for (long j = 0; j < n; j += 32) {
        const __m512 low = exp2_512(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), factor, m), type);
        const __m512 high = exp2_512(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + 16), factor, m), type);
        sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
        store_two(p, j, low, high, type);
    }
    return _mm512_reduce_add_ps(sum);
}

INLINE void scale_row(float *row, float factor, long n)
{
    for (long j = 0; j < n; j += 16)
        _mm512_storeu_ps(row + j, _mm512_mul_ps(_mm512_set1_ps(factor), _mm512_loadu_ps(row + j)));
}

typedef struct {
    int32_t *keys, *values, *queries, *weights;
    float *logits, *output, maximum[QUERY_BLOCK], sum[QUERY_BLOCK];
} Scratch;

/* The packed keys and values of a head, and `count` <= QUERY_BLOCK packed queries, to scratch->output (unnormalised) */
INLINE void attend(Scratch *s, const float *bias, long count, long keys, long padded, long d, long columns, float c,
                   const int type)
{
    const long per_word = PER_WORD(type), words = d / per_word, key_words = KEY_BLOCK / per_word;
    memset(s->output, 0, count * d * 4);
    for (long i = 0; i < count; i++) s->maximum[i] = -INFINITY, s->sum[i] = 0;
    for (long k0 = 0; k0 < padded; k0 += KEY_BLOCK) {
        const long block = padded - k0 < KEY_BLOCK ? padded - k0 : KEY_BLOCK, real = keys - k0 < block ? keys - k0 : block;
        for (long p = 0; p < block; p += PANEL)
            for (long i = 0; i < count; i += ROWS)
                tile(s->queries + i * words, words, s->keys + (k0 + p) * words, s->logits + i * KEY_BLOCK + p, KEY_BLOCK,
                     words, 4, 0, type);
        for (long i = 0; i < count; i++) {
            float maximum = s->maximum[i];
            const float sum = softmax_row(s->logits + i * KEY_BLOCK, bias ? bias + k0 : 0, s->weights + i * key_words, real,
                                          block, c, &maximum, type);
            if (maximum != s->maximum[i]) {
                const float shrink = exp2f(s->maximum[i] - maximum);
                s->sum[i] *= shrink;
                scale_row(s->output + i * d, shrink, d);
                s->maximum[i] = maximum;
            }
            s->sum[i] += sum;
        }
        for (long c0 = 0; c0 < d; c0 += columns)
            for (long i = 0; i < count; i += ROWS) {
                const int32_t *weights = s->weights + i * key_words;
                const int32_t *values = s->values + c0 * padded / per_word + k0 / per_word * columns;
                float *output = s->output + i * d + c0;
                if (columns == 64) tile(weights, key_words, values, output, d, block / per_word, 4, 1, type);
                else tile(weights, key_words, values, output, d, block / per_word, 2, 1, type);
            }
    }
}

typedef struct {
    const void *q, *k, *v;
    void *out;
    const float *bias;
    long batch, queries, keys, heads, d, stride_q, stride_k, stride_v;
    float scale;
} Attention;

INLINE void attention(const Attention a, const int type, long threads)
{
    const long per_word = PER_WORD(type), words = a.d / per_word, columns = a.d % 64 ? 32 : 64;
    const long padded = (a.keys + PANEL - 1) / PANEL * PANEL;
    long chunk = a.queries; /* queries in a task: all of a head's, or fewer if there are too few heads to share out */
    while (chunk > 2 * QUERY_BLOCK && a.batch * a.heads * ((a.queries + chunk - 1) / chunk) < 8 * threads)
        chunk = (chunk / 2 + QUERY_BLOCK - 1) / QUERY_BLOCK * QUERY_BLOCK;
    const long chunks = (a.queries + chunk - 1) / chunk;
    const float c = a.scale * 1.44269504f;
#pragma omp parallel num_threads(threads)
    {
        Scratch s;
        char *memory = aligned_alloc(64, (2 * padded * words + QUERY_BLOCK * (words + KEY_BLOCK / per_word)) * 4
                                             + QUERY_BLOCK * (KEY_BLOCK + a.d) * 4);
        s.keys = (int32_t *)memory, s.values = s.keys + padded * words, s.queries = s.values + padded * words;
        s.weights = s.queries + QUERY_BLOCK * words, s.logits = (float *)(s.weights + QUERY_BLOCK * KEY_BLOCK / per_word);
        s.output = s.logits + QUERY_BLOCK * KEY_BLOCK;
        long packed = -1;
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < a.batch * a.heads * chunks; task++) {
            const long sample = task / chunks / a.heads, column = task / chunks % a.heads * a.d;
            if (packed != task / chunks) {
                pack_keys(at(a.k, sample * a.keys * a.stride_k + column, type), a.stride_k, a.keys, words, s.keys, type);
                pack_values(at(a.v, sample * a.keys * a.stride_v + column, type), a.stride_v, a.keys, padded, a.d, columns,
                            s.values, type);
                packed = task / chunks;
            }
            const long first = task % chunks * chunk, last = first + chunk < a.queries ? first + chunk : a.queries;
            for (long q0 = first; q0 < last; q0 += QUERY_BLOCK) {
                const long count = last - q0 < QUERY_BLOCK ? last - q0 : QUERY_BLOCK, full = (count + ROWS - 1) / ROWS * ROWS;
                const long row = sample * a.queries + q0;
                for (long i = 0; i < count; i++)
                    memcpy(s.queries + i * words, at(a.q, (row + i) * a.stride_q + column, type), words * 4);
                memset(s.queries + count * words, 0, (full - count) * words * 4);
                attend(&s, a.bias ? a.bias + sample * a.keys : 0, full, a.keys, padded, a.d, columns, c, type);
                for (long i = 0; i < count; i++) {
                    scale_row(s.output + i * a.d, 1 / s.sum[i], a.d);
                    void *to = at_mutable(a.out, (row + i) * a.heads * a.d + column, type);
                    for (long j = 0; j < a.d; j += 32)
                        store_two(to, j, _mm512_loadu_ps(s.output + i * a.d + j), _mm512_loadu_ps(s.output + i * a.d + j + 16),
                                  type);
                }
            }
        }
        free(memory);
    }
}

/* bias (batch x keys) is added to the logits in units of log2, or NULL; strides are those between tokens. The number of
 * channels of a head must be a multiple of 32. */
void openltx_attention(const void *q, const void *k, const void *v, void *out, const float *bias, long batch, long queries,
                       long keys, long heads, long d, long stride_q, long stride_k, long stride_v, float scale, int type,
                       long threads)
{
    const Attention a = {q, k, v, out, bias, batch, queries, keys, heads, d, stride_q, stride_k, stride_v, scale};
#ifdef __AVX512BF16__
    if (type == BFLOAT16) {
        attention(a, BFLOAT16, threads);
        return;
    }
#endif
    attention(a, FLOAT32, threads);
}

/* 0: float32 only; 1: bfloat16 too */
int openltx_attention_bfloat16(void)
{
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}
#endif
