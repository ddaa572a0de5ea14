/* Two element types, float32 and bfloat16, behind one load and one store. Sums are always taken in float32.
 *
 * The `type` arguments are compile-time constants in every caller (which is always inlined), so the branch costs nothing
 * and the loops around it are vectorised.
 */
#ifndef OPENLTX_NUMBERS_H
#define OPENLTX_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { FLOAT32 = 0, BFLOAT16 = 1 };

#define INLINE static inline __attribute__((always_inline))

INLINE float load(const void *p, long i, const int type)
{
    if (type == FLOAT32) return ((const float *)p)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE void store(void *p, long i, float x, const int type)
{
    if (type == FLOAT32) {
        ((float *)p)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits += 0x7fff + ((bits >> 16) & 1); /* round to nearest, ties to even */
    ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
}

INLINE const void *at(const void *p, long i, const int type) { return (const char *)p + i * (type == FLOAT32 ? 4 : 2); }
INLINE void *at_mutable(void *p, long i, const int type) { return (char *)p + i * (type == FLOAT32 ? 4 : 2); }

/* n elements from or to float32, in loops that do nothing else, which every compiler vectorises */
INLINE void load_row(float *restrict to, const void *restrict from, long n, const int type)
{
    for (long i = 0; i < n; i++) to[i] = load(from, i, type);
}

INLINE void store_row(void *restrict to, const float *restrict from, long n, const int type)
{
    for (long i = 0; i < n; i++) store(to, i, from[i], type);
}

/* 1 / (1 + e^-v), the power by a polynomial, relative error below 2^-22. Without finite-math-only the minimum and
 * maximum would not be vectorised; a nan stays a nan where the result is multiplied by v. */
INLINE void sigmoid_row(const float *restrict v, float *restrict to, long n)
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
        to[i] = 1 / (1 + p * power);
    }
}

#endif
