// SPDX-License-Identifier: Apache-2.0
// Gradients of norms along a vector. With n = (x - mean) factor, factor = 1 / deviation, y = n w + b and g = d_y w:
//
//   d_x = factor (g - mean(g) - n mean(g n))      d_w += d_y n      d_b += d_y
//
// the first mean only where the norm is centered. Sums along a vector are the chains of norm.inl.hpp.

// Whole registers where there are such: a masked store costs many times a plain one on some machines.
template <class T>
MULTIHEAD_INLINE Vec<T> load_valid(const T* from, int valid) {
  return valid == Vec<T>::kLanes ? Vec<T>::load(from) : Vec<T>::load_first(from, valid);
}
template <class T>
MULTIHEAD_INLINE void store_valid(Vec<T> x, T* to, int valid) {
  valid == Vec<T>::kLanes ? x.store(to) : x.store_first(to, valid);
}

// The weight at i.. as it multiplies n.
template <class T>
MULTIHEAD_INLINE Vec<T> norm_weight(const NormBackTask<T>& task, std::int64_t i, int valid) {
  const Vec<T> one = Vec<T>::splat(1);
  if (!task.weight) return one;
  const Vec<T> w = load_valid<T>(task.weight + i, valid);
  return task.plus_1 ? w + one : w;
}

template <class T>
MULTIHEAD_INLINE void normalise_back(const NormBackTask<T>& task, const T* x, const T* d_y, T* d_x) {
  using V = Vec<T>;
  const T width = static_cast<T>(task.width);
  const T mean = task.centered ? sum_of<T>(x, task.width) / width : T(0);
  const T variance = sum_of_squares<T>(x, task.width, mean) / width;
  const V factor = V::splat(T(1) / square_root(variance + task.epsilon)), shift = V::splat(mean);
  const auto normed = [&](std::int64_t i, int valid) { return (load_valid<T>(x + i, valid) - shift) * factor; };

  V mean_g = V::splat(0), mean_gn = V::splat(0);
  if (d_x) {
    std::int64_t i = 0;  // of the next register
    const T products = Chains<T>().over(d_y, task.width, [&](Vec<T> d, Vec<T> sum, int valid) {
      const V g = d * norm_weight<T>(task, i, valid), n = normed(i, valid);
      i += V::kLanes;
      return V::fma(g, n, sum);
    });
    mean_gn = V::splat(products / width);
  }
  if (d_x && task.centered) {
    std::int64_t i = 0;
    const T gradients = Chains<T>().over(d_y, task.width, [&](Vec<T> d, Vec<T> sum, int valid) {
      const V g = d * norm_weight<T>(task, i, valid);
      i += V::kLanes;
      return sum + g;
    });
    mean_g = V::splat(gradients / width);
  }

  for (std::int64_t i = 0; i < task.width; i += V::kLanes) {
    const int valid = static_cast<int>(std::min<std::int64_t>(task.width - i, V::kLanes));
    const V d = load_valid<T>(d_y + i, valid), n = normed(i, valid);
    if (task.d_weight) store_valid<T>(V::fma(d, n, load_valid<T>(task.d_weight + i, valid)), task.d_weight + i, valid);
    if (task.d_bias) store_valid<T>(load_valid<T>(task.d_bias + i, valid) + d, task.d_bias + i, valid);
    if (d_x) {
      const V g = d * norm_weight<T>(task, i, valid);
      store_valid<T>(((g - mean_g) - n * mean_gn) * factor, d_x + i, valid);
    }
  }
}

template <class T>
void norm_back_task(const NormBackTask<T>& task) noexcept {
  const auto vector = [](const auto& grid, std::int64_t row, std::int64_t head) {
    return grid.data ? grid.data + row * grid.row_stride + head * grid.head_stride : nullptr;
  };
  for (std::int64_t row = 0; row < task.x.rows; ++row)
    for (std::int64_t head = 0; head < task.x.heads; ++head)
      normalise_back<T>(task, vector(task.x, row, head), vector(task.d_y, row, head), vector(task.d_x, row, head));
}
