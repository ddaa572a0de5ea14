/* Softmax attention, softmax(q k^T / sqrt(d)) v, without ever holding the whole matrix of logits.
 *
 * The online softmax of FlashAttention (Dao et al., 2022) for processors with AVX-512: blocks of queries pass over blocks
 * of keys; for each block the logits, the running maximum, the exponentials in 16-wide polynomial form, and their product
 * with the values. q, k, v and the result are rows of tokens, heads side by side, so nothing is transposed outside.
 *
 * Both element types share the layouts, in words (tiles.h): keys as [panel of 64 keys][word of channels][key], values as
 * [panel of channels][word of keys][channel].
 */
#ifdef __AVX512F__
#include <math.h>
#include <stdlib.h>

#include "tiles.h"

enum { QUERY_BLOCK = 96, KEY_BLOCK = 512 };

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

/* ---- gradients, for clips short enough that the matrix of a head fits in the cache: P is computed again ----
 *
 *     P = softmax(c q k^T),  dP = do v^T,  dS = c P (dP - sum P dP),  dq = dS k,  dk = dS^T q,  dv = P^T do
 */

INLINE long round_up(long n, long to) { return (n + to - 1) / to * to; }

typedef struct {
    int32_t *keys, *values, *key_rows, *query_rows, *out_rows; /* packed for the five products */
    int32_t *q, *dout, *ds;                                    /* rows */
    int32_t *ds_words, *p_words;                               /* [word of queries][key]: read as rows of keys */
    float *p, *dp, *product;
} Back;

/* Logits of one query to weights p, in place, and dp to dS; beyond `keys` both become zero */
INLINE void softmax_back(float *p, float *dp, const float *bias, long keys, long padded, float scale)
{
    const float c = scale * 1.44269504f;
    float dot = 0;
    if (bias)
        for (long j = 0; j < keys; j++) p[j] += bias[j] / c;
    for (long j = keys; j < padded; j++) p[j] = -INFINITY;
    __m512 maximum = _mm512_loadu_ps(p), sum = _mm512_setzero_ps();
    for (long j = 16; j < padded; j += 16) maximum = _mm512_max_ps(maximum, _mm512_loadu_ps(p + j));
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(maximum)), factor = _mm512_set1_ps(c);
    for (long j = 0; j < padded; j += 16) {
        const __m512 e = exp2_512(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(p + j), top), factor), FLOAT32);
        _mm512_storeu_ps(p + j, e);
        sum = _mm512_add_ps(sum, e);
    }
    const float inverse = 1 / _mm512_reduce_add_ps(sum);
#pragma omp simd reduction(+ : dot)
    for (long j = 0; j < padded; j++) {
        p[j] *= inverse;
        dot += p[j] * dp[j];
    }
#pragma omp simd
    for (long j = 0; j < padded; j++) dp[j] = scale * p[j] * (dp[j] - dot);
}

/* Rows of floats, n of them, to words of neighbouring rows; the last row's partner may be missing */
INLINE void to_words(const float *rows, long n, long width, int32_t *to, const int type)
{
    if (type == FLOAT32) {
        memcpy(to, rows, n * width * 4);
        return;
    }
    for (long i = 0; i < n; i += 2, to += width) {
        const float *low = rows + i * width, *high = low + (i + 1 < n ? width : 0);
        const uint32_t mask = i + 1 < n ? 0xffff0000u : 0;
        for (long j = 0; j < width; j++) {
            uint32_t a, b;
            memcpy(&a, low + j, 4);
            memcpy(&b, high + j, 4);
            a += 0x7fff + ((a >> 16) & 1);
            b += 0x7fff + ((b >> 16) & 1);
            to[j] = (int32_t)(a >> 16 | (b & mask));
        }
    }
}

/* product (count x d) = rows (count x words, `step` between a row's words, `stride` between rows) times packed (words x d) */
INLINE void multiply(const int32_t *rows, long count, long stride, long step, long words, const int32_t *packed, long packed_words,
                     float *product, long d, const int type)
{
    const long columns = d % 64 ? 32 : 64;
    for (long c0 = 0; c0 < d; c0 += columns)
        for (long i = 0; i < count; i += ROWS) {
            const int32_t *panel = packed + c0 * packed_words;
            const int wide = columns == 64 ? 4 : 2;
            if (wide == 4) strided_tile(rows + i * stride, stride, step, panel, product + i * d + c0, d, words, 4, 0, type);
            else strided_tile(rows + i * stride, stride, step, panel, product + i * d + c0, d, words, 2, 0, type);
        }
}

INLINE void store_rows(const float *product, long count, long d, void *to, long stride, const int type)
{
    for (long i = 0; i < count; i++) store_row(at_mutable(to, i * stride, type), product + i * d, d, type);
}

INLINE void copy_rows(const void *from, long stride, long count, long padded, long words, int32_t *to, const int type)
{
    for (long i = 0; i < count; i++) memcpy(to + i * words, at(from, i * stride, type), words * 4);
    memset(to + count * words, 0, (padded - count) * words * 4);
}

INLINE void attention_back(const Attention a, const void *dout, void *dq, void *dk, void *dv, const int type, long threads)
{
    const long per_word = PER_WORD(type), words = a.d / per_word, columns = a.d % 64 ? 32 : 64, width = a.heads * a.d;
    const long keys = round_up(a.keys, PANEL), queries = round_up(a.queries, PANEL); /* padded */
    const long key_words = keys / per_word, query_words = queries / per_word;
    const long used = (a.queries + per_word - 1) / per_word; /* words of real queries */
    const long rows = queries + ROWS, key_count = keys + ROWS;
#pragma omp parallel num_threads(threads)
    {
        const long packed = (3 * keys + 2 * queries + 2 * rows) * words + rows * key_words + 2 * (query_words + 1) * key_count;
        const long floats = 2 * rows * keys + (rows > key_count ? rows : key_count) * a.d;
        char *memory = aligned_alloc(64, round_up((packed + floats) * 4, 64));
        Back s;
        s.keys = (int32_t *)memory, s.values = s.keys + keys * words, s.key_rows = s.values + keys * words;
        s.query_rows = s.key_rows + keys * words, s.out_rows = s.query_rows + queries * words;
        s.q = s.out_rows + queries * words, s.dout = s.q + rows * words, s.ds = s.dout + rows * words;
        s.ds_words = s.ds + rows * key_words, s.p_words = s.ds_words + (query_words + 1) * key_count;
        s.p = (float *)(s.p_words + (query_words + 1) * key_count), s.dp = s.p + rows * keys;
        s.product = s.dp + rows * keys;
        memset(s.ds_words, 0, 2 * (query_words + 1) * key_count * 4); /* what lies behind the last key is read, not used */
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < a.batch * a.heads; task++) {
            const long sample = task / a.heads, column = task % a.heads * a.d;
            const long q_at = sample * a.queries * width + column, k_at = sample * a.keys * width + column;
            const void *q = at(a.q, sample * a.queries * a.stride_q + column, type);
            const void *k = at(a.k, sample * a.keys * a.stride_k + column, type);
            const void *v = at(a.v, sample * a.keys * a.stride_v + column, type), *g = at(dout, q_at, type);
            pack_keys(k, a.stride_k, a.keys, words, s.keys, type);
            pack_keys(v, a.stride_v, a.keys, words, s.values, type);
            pack_values(k, a.stride_k, a.keys, keys, a.d, columns, s.key_rows, type);
            pack_values(q, a.stride_q, a.queries, queries, a.d, columns, s.query_rows, type);
            pack_values(g, width, a.queries, queries, a.d, columns, s.out_rows, type);
            const long full = round_up(a.queries, ROWS), key_full = round_up(a.keys, ROWS);
            copy_rows(q, a.stride_q, a.queries, full, words, s.q, type);
            copy_rows(g, width, a.queries, full, words, s.dout, type);
            for (long p = 0; p < keys; p += PANEL)
                for (long i = 0; i < full; i += ROWS) {
                    tile(s.q + i * words, words, s.keys + p * words, s.p + i * keys + p, keys, words, 4, 0, type);
                    tile(s.dout + i * words, words, s.values + p * words, s.dp + i * keys + p, keys, words, 4, 0, type);
                }
            for (long i = 0; i < full; i++) {
                softmax_back(s.p + i * keys, s.dp + i * keys, a.bias ? a.bias + sample * a.keys : 0, a.keys, keys, a.scale);
                store_row(at_mutable(s.ds, i * keys, type), s.dp + i * keys, keys, type);
            }
            to_words(s.p, a.queries, keys, s.p_words, type);
            to_words(s.dp, a.queries, keys, s.ds_words, type);
            multiply(s.ds, full, key_words, 1, key_words, s.key_rows, key_words, s.product, a.d, type);
            store_rows(s.product, a.queries, a.d, at_mutable(dq, q_at, type), width, type);
            multiply(s.ds_words, key_full, 1, keys, used, s.query_rows, query_words, s.product, a.d, type);
            store_rows(s.product, a.keys, a.d, at_mutable(dk, k_at, type), width, type);
            multiply(s.p_words, key_full, 1, keys, used, s.out_rows, query_words, s.product, a.d, type);
            store_rows(s.product, a.keys, a.d, at_mutable(dv, k_at, type), width, type);
        }
        free(memory);
    }
}

/* dout is dense (batch, queries, heads * d), as are dq, dk and dv */
void openltx_attention_back(const void *q, const void *k, const void *v, const void *dout, const float *bias, void *dq, void *dk,
                            void *dv, long batch, long queries, long keys, long heads, long d, long stride_q, long stride_k,
                            long stride_v, float scale, int type, long threads)
{
    const Attention a = {q, k, v, 0, bias, batch, queries, keys, heads, d, stride_q, stride_k, stride_v, scale};
#ifdef __AVX512BF16__
    if (type == BFLOAT16) {
        attention_back(a, dout, dq, dk, dv, BFLOAT16, threads);
        return;
    }
#endif
    attention_back(a, dout, dq, dk, dv, FLOAT32, threads);
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
