// SPDX-License-Identifier: Apache-2.0
// The elementary functions over arrays, one entry of the kernel table for each element type.

template <MathFunction kFunction, class T>
MULTIHEAD_INLINE Vec<T> apply(Vec<T> x) {
  if constexpr (kFunction == MathFunction::exp) return exp<T>(x);
  if constexpr (kFunction == MathFunction::log) return log<T>(x);
  if constexpr (kFunction == MathFunction::tanh) return tanh<T>(x);
  if constexpr (kFunction == MathFunction::erf) return erf<T>(x);
  if constexpr (kFunction == MathFunction::sin) return sin<T>(x);
  if constexpr (kFunction == MathFunction::cos) return cos<T>(x);
}

template <MathFunction kFunction, class T>
MULTIHEAD_NOINLINE void map_with(const T* in, T* out, std::int64_t count) noexcept {
  using V = Vec<T>;
  std::int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) apply<kFunction, T>(V::load(in + i)).store(out + i);
  const int rest = static_cast<int>(count - i);
  if (rest > 0) apply<kFunction, T>(V::load_first(in + i, rest)).store_first(out + i, rest);
}

// out[i] = function(in[i]) for 0 <= i < count. out may be in itself; otherwise they do not overlap. An element's bits
// depend on its value alone, not on its place or on count. Nothing else is read or written.
template <class T>
void map_function(MathFunction function, const T* in, T* out, std::int64_t count) noexcept {
  switch (function) {
    case MathFunction::exp:
      return map_with<MathFunction::exp, T>(in, out, count);
    case MathFunction::log:
      return map_with<MathFunction::log, T>(in, out, count);
    case MathFunction::tanh:
      return map_with<MathFunction::tanh, T>(in, out, count);
    case MathFunction::erf:
      return map_with<MathFunction::erf, T>(in, out, count);
    case MathFunction::sin:
      return map_with<MathFunction::sin, T>(in, out, count);
    case MathFunction::cos:
      return map_with<MathFunction::cos, T>(in, out, count);
  }
}
