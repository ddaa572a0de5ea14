/* Linear layers in eight bits: y = x w^T + bias with x quantised per token (asymmetric, 0 to 255) as it comes and w per
 * output channel (symmetric, -127 to 127) once.
 *
 *     y[r][c] = scale_x[r] * scale_w[c] * (sum_k q_x[r][k] q_w[c][k] - zero[r] * sum_k q_w[c][k]) + bias[c]
 *
 * Packed weights are [panel of 64 outputs][word of 4 inputs][output][4] and packed rows [group of 6 rows][word][row][4]; one
 * instruction multiplies and adds a word. A few words at a time, so that this part of a panel stays in the first-level cache
 * while many groups of rows pass by; their sums wait in a buffer meanwhile.
 */
#ifdef __AVX512VNNI__
#include <immintrin.h>
#include <math.h>

#include "numbers.h"

enum { INT8_ROWS = 6, INT8_PANEL = 64, INT8_WORDS = 64, INT8_GROUPS = 32 };

/* q (groups x words x rows x 4), k a multiple of 4; the rows from n on are zero */
INLINE void quantize(const void *x, uint8_t *q, float *scale, float *zero, long n, long padded, long k, const int type)
{
#pragma omp parallel for schedule(static)
    for (long r = 0; r < padded; r++) {
        int32_t *to = (int32_t *)(q + r / INT8_ROWS * INT8_ROWS * k) + r % INT8_ROWS;
        if (r >= n) {
            for (long word = 0; word < k / 4; word++) to[word * INT8_ROWS] = 0;
            continue;
        }
        float v[k], low = 0, high = 0;
        uint8_t bytes[k];
        load_row(v, at(x, r * k, type), k, type);
#pragma omp simd reduction(min : low) reduction(max : high)
        for (long i = 0; i < k; i++) {
            low = v[i] < low ? v[i] : low;
            high = v[i] > high ? v[i] : high;
        }
        const float step = high > low ? (high - low) / 255 : 1, inverse = 1 / step, offset = rintf(-low * inverse);
        scale[r] = step;
        zero[r] = offset;
        for (long i = 0; i < k; i++) { /* the offset was rounded, so either end may lie half a step outside */
            const int32_t rounded = (int32_t)(v[i] * inverse + (offset + 0.5f));
            bytes[i] = (uint8_t)(rounded > 255 ? 255 : rounded < 0 ? 0 : rounded);
        }
        for (long word = 0; word < k / 4; word++) memcpy(to + word * INT8_ROWS, bytes + 4 * word, 4);
    }
}

void openltx_int8_quantize(const void *x, uint8_t *q, float *scale, float *zero, long n, long padded, long k, int type)
{
    if (type == FLOAT32) quantize(x, q, scale, zero, n, padded, k, FLOAT32);
    else quantize(x, q, scale, zero, n, padded, k, BFLOAT16);
}

/* w (outputs x k) to `packed` (panels x k / 4 x 64 x 4), outputs padded with zeros to whole panels */
void openltx_int8_pack(const int8_t *w, int8_t *packed, long outputs, long k)
{
    const long panels = (outputs + INT8_PANEL - 1) / INT8_PANEL;
#pragma omp parallel for schedule(static)
    for (long p = 0; p < panels; p++)
        for (long c = 0; c < INT8_PANEL; c++)
            for (long word = 0; word < k / 4; word++) {
                int8_t *to = packed + ((p * (k / 4) + word) * INT8_PANEL + c) * 4;
                if (p * INT8_PANEL + c < outputs) memcpy(to, w + (p * INT8_PANEL + c) * k + word * 4, 4);
                else memset(to, 0, 4);
            }
}

/* The tanh form of GELU, x / (1 + 2^(-u)), u = 2 sqrt(2/pi) log2(e) (x + 0.044715 x^3) */
INLINE __m512 gelu(__m512 x)
{
    const __m512 cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1.0f));
    __m512 u = _mm512_mul_ps(_mm512_mul_ps(x, cubic), _mm512_set1_ps(-2.302208198f));
    u = _mm512_min_ps(_mm512_max_ps(u, _mm512_set1_ps(-126.0f)), _mm512_set1_ps(126.0f));
    const __m512 whole = _mm512_roundscale_ps(u, 0), f = _mm512_sub_ps(u, whole);
    __m512 p = _mm512_set1_ps(1.3398874e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6184374e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5503323e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022648e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314720e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_scalef_ps(p, whole)));
}

typedef struct {
    const uint8_t *q;
    const float *scale, *zero;
    const int8_t *packed;
    const float *weight_scale, *weight_sum, *bias; /* padded to whole panels */
    void *out;
    long n, k, outputs;
} Int8;

/* total (6 x 64, as 6 x 4 vectors) += the products of some words of a group of rows and of a panel */
INLINE void add_words(__m512i *total, const int32_t *q, const __m512i *w, long words, const int first)
{
    __m512i sum[INT8_ROWS * 4]; /* in registers, but only if every loop over them is unrolled */
#pragma GCC unroll 24
    for (int i = 0; i < INT8_ROWS * 4; i++) sum[i] = first ? _mm512_setzero_si512() : _mm512_load_si512(total + i);
    for (long word = 0; word < words; word++) {
        __m512i column[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) column[j] = _mm512_loadu_si512(w + word * 4 + j);
#pragma GCC unroll 24
        for (int i = 0; i < INT8_ROWS * 4; i++) {
            const __m512i row = _mm512_set1_epi32(q[word * INT8_ROWS + i / 4]);
            sum[i] = _mm512_dpbusd_epi32(sum[i], row, column[i % 4]);
            __asm__("" : "+v"(sum[i])); /* or gcc 12 keeps a third of the sums in memory, at half the speed */
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < INT8_ROWS * 4; i++) _mm512_store_si512(total + i, sum[i]);
}

/* the sums of row r and panel p become 64 outputs */
INLINE void finish(const Int8 *a, const __m512i *total, long r, long p, const int activate, const int type)
{
    const __m512 step = _mm512_set1_ps(a->scale[r]), zero = _mm512_set1_ps(a->zero[r]);
    const long left = a->outputs - p * INT8_PANEL;
    float row[INT8_PANEL];
    for (int j = 0; j < 4; j++) {
        const long c = p * INT8_PANEL + 16 * j;
        __m512 y = _mm512_fnmadd_ps(zero, _mm512_loadu_ps(a->weight_sum + c), _mm512_cvtepi32_ps(total[j]));
        y = _mm512_mul_ps(_mm512_mul_ps(y, step), _mm512_loadu_ps(a->weight_scale + c));
        y = _mm512_add_ps(y, _mm512_loadu_ps(a->bias + c));
        _mm512_storeu_ps(row + 16 * j, activate ? gelu(y) : y);
    }
    void *to = at_mutable(a->out, r * a->outputs + p * INT8_PANEL, type);
    if (left >= INT8_PANEL) store_row(to, row, INT8_PANEL, type);
    else store_row(to, row, left, type);
}

INLINE void product(const Int8 a, const int activate, const int type)
{
    const long panels = (a.outputs + INT8_PANEL - 1) / INT8_PANEL, words = a.k / 4;
    const long groups = (a.n + INT8_ROWS - 1) / INT8_ROWS, blocks = (groups + INT8_GROUPS - 1) / INT8_GROUPS;
#pragma omp parallel for schedule(dynamic, 1)
    for (long task = 0; task < panels * blocks; task++) {
        const long p = task / blocks, first = task % blocks * INT8_GROUPS;
        const long count = groups - first < INT8_GROUPS ? groups - first : INT8_GROUPS;
        const __m512i *w = (const __m512i *)(a.packed + p * words * INT8_PANEL * 4);
        const int32_t *q = (const int32_t *)a.q + first * words * INT8_ROWS;
        __m512i total[INT8_GROUPS][INT8_ROWS * 4];
        for (long from = 0; from < words; from += INT8_WORDS) {
            const long some = words - from < INT8_WORDS ? words - from : INT8_WORDS;
            for (long g = 0; g < count; g++) {
                const int32_t *rows = q + (g * words + from) * INT8_ROWS;
                if (from == 0) add_words(total[g], rows, w, some, 1);
                else add_words(total[g], rows, w + from * 4, some, 0);
            }
        }
        const long last = a.n - first * INT8_ROWS < count * INT8_ROWS ? a.n - first * INT8_ROWS : count * INT8_ROWS;
        for (long r = 0; r < last; r++)
            finish(&a, total[r / INT8_ROWS] + r % INT8_ROWS * 4, first * INT8_ROWS + r, p, activate, type);
    }
}

void openltx_int8_linear(const uint8_t *q, const float *scale, const float *zero, const int8_t *packed,
                         const float *weight_scale, const float *weight_sum, const float *bias, void *out, long n, long k,
                         long outputs, int activate, int type)
{
    const Int8 a = {q, scale, zero, packed, weight_scale, weight_sum, bias, out, n, k, outputs};
    if (type == FLOAT32) {
        if (activate) product(a, 1, FLOAT32);
        else product(a, 0, FLOAT32);
    } else {
        if (activate) product(a, 1, BFLOAT16);
        else product(a, 0, BFLOAT16);
    }
}
#endif
