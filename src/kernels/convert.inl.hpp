// SPDX-License-Identifier: Apache-2.0
// Between storage types and the type of the sums: exact on the way in, rounded once on the way out.

// to[i] = from[i * stride], i < count.
template <class T, class Stored>
void gather(const void* from, std::int64_t stride, std::int64_t count, T* to) {
  const Stored* const elements = static_cast<const Stored*>(from);
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(Stored) == 2)
      to[i] = static_cast<T>(static_cast<float>(elements[i * stride]));
    else
      to[i] = static_cast<T>(elements[i * stride]);
  }
}

// Contiguous elements of two bytes to floats, a register at a time.
template <bool kIsBFloat16>
void widen(const std::uint16_t* from, std::int64_t count, float* to) {
  using V = Vec<float>;
  const auto load = [](const std::uint16_t* p) {
    if constexpr (kIsBFloat16)
      return V::load_bfloat16(p);
    else
      return V::load_float16(p);
  };
  std::int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) load(from + i).store(to + i);
  if (i == count) return;
  std::uint16_t rest[V::kLanes] = {};
  for (std::int64_t j = i; j < count; ++j) rest[j - i] = from[j];
  load(rest).store_first(to + i, static_cast<int>(count - i));
}

// to[i] = from[i * stride] for elements of any storage type.
template <class T>
MULTIHEAD_NOINLINE void load_row(const void* from, Type type, std::int64_t stride, std::int64_t count, T* to) {
  if constexpr (sizeof(T) == 4)
    if (stride == 1 && type != Type::float32) {
      const auto* halves = static_cast<const std::uint16_t*>(from);
      if (type == Type::bfloat16)
        widen<true>(halves, count, to);
      else
        widen<false>(halves, count, to);
      return;
    }
  switch (type) {
    case Type::float32:
      return gather<T, float>(from, stride, count, to);
    case Type::float64:
      return gather<T, double>(from, stride, count, to);
    case Type::bfloat16:
      return gather<T, BFloat16>(from, stride, count, to);
    case Type::float16:
      return gather<T, Float16>(from, stride, count, to);
  }
}

// to[i] = from[i] rounded to a type of two bytes: a register at a time where a target stores one so.
template <class Stored, class T>
void narrow(const T* from, std::int64_t count, void* to) {
  Stored* const elements = static_cast<Stored*>(to);
  std::int64_t i = 0;
  if constexpr (requires(Vec<T> x) { x.template store_rounded<Stored>(to); })
    for (; i + Vec<T>::kLanes <= count; i += Vec<T>::kLanes)
      Vec<T>::load(from + i).template store_rounded<Stored>(elements + i);
  for (; i < count; ++i) elements[i] = Stored(static_cast<float>(from[i]));
}

// The address of element i.
MULTIHEAD_INLINE const void* element(const void* data, Type type, std::int64_t i) {
  return static_cast<const char*>(data) + i * static_cast<std::int64_t>(size_of(type));
}
