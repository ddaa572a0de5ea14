/* Linear layers in eight bits: y = x w^T + bias with x quantised per token (asymmetric, 0 to 255) as it comes and w per
 * output channel (symmetric, -127 to 127) once.
 *
 *     y[r][c] = scale_x[r] * scale_w[c] * (sum_k q_x[r][k] q_w[c][k] - zero[r] * sum_k q_w[c][k]) + bias[c]
 *
 * Packed weights are [panel of 64 outputs][word of 4 inputs][output][4]; one instruction multiplies and adds a word.
 */
#ifdef __AVX512VNNI__
#include <immintrin.h>
#include <math.h>

#include "numbers.h"

enum { INT8_ROWS = 6, INT8_PANEL = 64 };

/* q (padded rows x k), k a multiple of 4; the rows from n on are zero */
INLINE void quantize(const void *x, uint8_t *q, float *scale, float *zero, long n, long padded, long k, const int type)
{
#pragma omp parallel for schedule(static)
    for (long r = 0; r < padded; r++) {
        uint8_t *to = q + r * k;
        if (r >= n) {
            memset(to, 0, k);
            continue;
        }
        float v[k], low = 0, high = 0;
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
            to[i] = (uint8_t)(rounded > 255 ? 255 : rounded < 0 ? 0 : rounded);
        }
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

INLINE void product(const Int8 a, const int activate, const int type)
{
    const long panels = (a.outputs + INT8_PANEL - 1) / INT8_PANEL, words = a.k / 4;
    const long row_blocks = panels >= 16 ? 1 : 4, groups = (a.n + INT8_ROWS - 1) / INT8_ROWS;
#pragma omp parallel for schedule(dynamic, 1)
    for (long task = 0; task < panels * row_blocks; task++) {
        const long p = task / row_blocks, part = task % row_blocks;
        const __m512i *w = (const __m512i *)(a.packed + p * words * INT8_PANEL * 4);
        __m512 scale[4], sum[4], bias[4];
        for (int j = 0; j < 4; j++) {
            scale[j] = _mm512_loadu_ps(a.weight_scale + p * INT8_PANEL + 16 * j);
            sum[j] = _mm512_loadu_ps(a.weight_sum + p * INT8_PANEL + 16 * j);
            bias[j] = _mm512_loadu_ps(a.bias + p * INT8_PANEL + 16 * j);
        }
        for (long g = groups * part / row_blocks; g < groups * (part + 1) / row_blocks; g++) {
            const int32_t *q = (const int32_t *)(a.q + g * INT8_ROWS * a.k);
            __m512i total[INT8_ROWS][4];
            for (int i = 0; i < INT8_ROWS; i++)
                for (int j = 0; j < 4; j++) total[i][j] = _mm512_setzero_si512();
            for (long word = 0; word < words; word++) {
                __m512i column[4];
                for (int j = 0; j < 4; j++) column[j] = _mm512_loadu_si512(w + word * 4 + j);
                for (int i = 0; i < INT8_ROWS; i++) {
                    const __m512i row = _mm512_set1_epi32(q[i * words + word]);
                    for (int j = 0; j < 4; j++) total[i][j] = _mm512_dpbusd_epi32(total[i][j], row, column[j]);
                }
            }
            for (int i = 0; i < INT8_ROWS && g * INT8_ROWS + i < a.n; i++) {
                const long r = g * INT8_ROWS + i;
                const __m512 step = _mm512_set1_ps(a.scale[r]), zero = _mm512_set1_ps(a.zero[r]);
                float row[INT8_PANEL];
                for (int j = 0; j < 4; j++) {
                    __m512 y = _mm512_fnmadd_ps(zero, sum[j], _mm512_cvtepi32_ps(total[i][j]));
                    y = _mm512_fmadd_ps(_mm512_mul_ps(y, step), scale[j], bias[j]);
                    _mm512_storeu_ps(row + 16 * j, activate ? gelu(y) : y);
                }
                const long left = a.outputs - p * INT8_PANEL, count = left < INT8_PANEL ? left : INT8_PANEL;
                void *to = at_mutable(a.out, r * a.outputs + p * INT8_PANEL, type);
                if (count == INT8_PANEL) store_row(to, row, INT8_PANEL, type);
                else store_row(to, row, count, type);
            }
        }
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
