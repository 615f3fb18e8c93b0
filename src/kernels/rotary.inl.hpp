// SPDX-License-Identifier: Apache-2.0
// Rotary embedding (Su et al. 2021, section 3.4.2): pairs of channels turned by the angles of their row.
//
//   y_a = fma(a, cos, -(b sin))     y_b = fma(b, cos, a sin)      the product in brackets rounded, then one fma

template <class T>
MULTIHEAD_INLINE void turn(Vec<T>& a, Vec<T>& b, Vec<T> cos, Vec<T> sin) {
  const Vec<T> turned = Vec<T>::fma(a, cos, (b * sin) ^ Vec<T>::splat(T(-0.0)));
  b = Vec<T>::fma(b, cos, a * sin);
  a = turned;
}

// a0 b0 a1 b1 .. in two registers to a and b. Interleaving moves an element's place one bit round; so many rounds more
// bring it all the way to where it undoes one.
template <class T>
MULTIHEAD_INLINE void unzip(Vec<T>& a, Vec<T>& b) {
  MULTIHEAD_UNROLL
  for (int length = 1; length < Vec<T>::kLanes; length *= 2) {
    const Vec<T> low = Vec<T>::zip_low(a, b);
    b = Vec<T>::zip_high(a, b);
    a = low;
  }
}

// One vector in half-split pairs, cos and sin its row's, sign on sin's.
template <class T>
MULTIHEAD_INLINE void rotate_halves(const T* x, T* y, const T* cos, const T* sin, std::int64_t half, Vec<T> sign) {
  using V = Vec<T>;
  std::int64_t t = 0;
  for (; t + V::kLanes <= half; t += V::kLanes) {
    V a = V::load(x + t), b = V::load(x + half + t);
    turn<T>(a, b, V::load(cos + t), V::load(sin + t) ^ sign);
    a.store(y + t), b.store(y + half + t);
  }
  const int rest = static_cast<int>(half - t);
  if (rest == 0) return;
  V a = V::load_first(x + t, rest), b = V::load_first(x + half + t, rest);
  turn<T>(a, b, V::load_first(cos + t, rest), V::load_first(sin + t, rest) ^ sign);
  a.store_first(y + t, rest), b.store_first(y + half + t, rest);
}

// The same in interleaved pairs.
template <class T>
MULTIHEAD_INLINE void rotate_neighbours(const T* x, T* y, const T* cos, const T* sin, std::int64_t half, Vec<T> sign) {
  using V = Vec<T>;
  constexpr int kLanes = V::kLanes;
  std::int64_t t = 0;
  for (; t + kLanes <= half; t += kLanes) {
    V a = V::load(x + 2 * t), b = V::load(x + 2 * t + kLanes);
    unzip<T>(a, b);
    turn<T>(a, b, V::load(cos + t), V::load(sin + t) ^ sign);
    V::zip_low(a, b).store(y + 2 * t), V::zip_high(a, b).store(y + 2 * t + kLanes);
  }
  const int rest = static_cast<int>(half - t);
  if (rest == 0) return;
  const int low = std::min(2 * rest, kLanes), high = 2 * rest - low;
  V a = V::load_first(x + 2 * t, low), b = V::splat(0);
  if (high > 0) b = V::load_first(x + 2 * t + kLanes, high);
  unzip<T>(a, b);
  turn<T>(a, b, V::load_first(cos + t, rest), V::load_first(sin + t, rest) ^ sign);
  V::zip_low(a, b).store_first(y + 2 * t, low);
  if (high > 0) V::zip_high(a, b).store_first(y + 2 * t + kLanes, high);
}

template <class T>
void rotary_task(const RotaryTask<T>& task) noexcept {
  const Vec<T> sign = Vec<T>::splat(task.back ? T(-0.0) : T(0));
  for (std::int64_t row = 0; row < task.x.rows; ++row) {
    const std::int64_t position = task.positions[row * task.position_stride];
    const T* cos = task.cos + position * task.cos_stride;
    const T* sin = task.sin + position * task.sin_stride;
    for (std::int64_t head = 0; head < task.x.heads; ++head) {
      const T* x = task.x.data + row * task.x.row_stride + head * task.x.head_stride;
      T* y = task.y.data + row * task.y.row_stride + head * task.y.head_stride;
      if (task.interleaved)
        rotate_neighbours<T>(x, y, cos, sin, task.half, sign);
      else
        rotate_halves<T>(x, y, cos, sin, task.half, sign);
      if (x != y) std::copy(x + 2 * task.half, x + task.width, y + 2 * task.half);
    }
  }
}
