// SPDX-License-Identifier: Apache-2.0
// What target amx adds to the registers of avx512: instructions that cost an addition on Intel's processors, and more
// on others.

// a less the integer below it; of an infinity 0.
MULTIHEAD_INLINE Vec<float> less_floor(Vec<float> a) { return {_mm512_reduce_ps(a.r, _MM_FROUND_TO_NEG_INF)}; }

// p 2^floor(t), or 0 where t is below the lowest.
MULTIHEAD_INLINE Vec<float> power_or_zero(Vec<float> p, Vec<float> t, Vec<float> lowest) {
  return {_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(t.r, lowest.r, _CMP_NLT_UQ), p.r, t.r)};
}
