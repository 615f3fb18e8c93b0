// SPDX-License-Identifier: Apache-2.0
// Norms along a vector: root mean square (Zhang and Sennrich 2019), layer norm (Ba et al. 2016), Euclidean length.
//
// Every sum is kSumChains chains, element i in chain i mod kSumChains, joined by the fixed tree: the same on every
// target, whatever its registers. Zeros stand behind the last element.

// The chains of one sum over a vector: add(x) for each register of elements, in order.
template <class T>
struct Chains {
  static constexpr int kLanes = Vec<T>::kLanes;
  static constexpr int kVecs = kSumChains / kLanes;
  Vec<T> sums[kVecs];

  Chains() {
    MULTIHEAD_UNROLL
    for (int v = 0; v < kVecs; ++v) sums[v] = Vec<T>::splat(0);
  }
  // sums[v] = add(elements of chains v * kLanes .., sums[v]) over the whole vector.
  template <class Add>
  MULTIHEAD_INLINE T over(const T* x, std::int64_t width, const Add& add) {
    std::int64_t i = 0;
    for (; i + kSumChains <= width; i += kSumChains) {
      MULTIHEAD_UNROLL
      for (int v = 0; v < kVecs; ++v) sums[v] = add(Vec<T>::load(x + i + v * kLanes), sums[v], kLanes);
    }
    const int rest = static_cast<int>(width - i);
    if (rest > 0) {
      MULTIHEAD_UNROLL
      for (int v = 0; v < kVecs; ++v) {
        const int valid = std::clamp(rest - v * kLanes, 0, kLanes);
        if (valid > 0) sums[v] = add(Vec<T>::load_first(x + i + v * kLanes, valid), sums[v], valid);
      }
    }
    T chains[kSumChains];
    for (int v = 0; v < kVecs; ++v) sums[v].store(chains + v * kLanes);
    for (int step = kSumChains / 2; step > 0; step /= 2)
      for (int chain = 0; chain < step; ++chain) chains[chain] = chains[chain] + chains[chain + step];
    return chains[0];
  }
};

template <class T>
MULTIHEAD_INLINE T square_root(T x) {
  if constexpr (sizeof(T) == 4)
    return __builtin_sqrtf(x);
  else
    return __builtin_sqrt(x);
}

template <class T>
MULTIHEAD_INLINE T sum_of(const T* x, std::int64_t width) {
  return Chains<T>().over(x, width, [](Vec<T> e, Vec<T> sum, int) { return sum + e; });
}

// Of x - mean; the zeros behind the last element stay out of it.
template <class T>
MULTIHEAD_INLINE T sum_of_squares(const T* x, std::int64_t width, T mean) {
  return Chains<T>().over(x, width, [mean](Vec<T> e, Vec<T> sum, int valid) {
    Vec<T> centered = e - Vec<T>::splat(mean);
    if (valid < Vec<T>::kLanes) {
      T lanes[Vec<T>::kLanes];
      centered.store(lanes);
      centered = Vec<T>::load_first(lanes, valid);
    }
    return Vec<T>::fma(centered, centered, sum);
  });
}

// y = ((x - mean) * factor) * weight + bias, in place; the last two steps only where there are such, as one fma where
// there are both.
template <class T>
MULTIHEAD_INLINE void normalise_vector(const NormTask<T>& task, T* x) {
  using V = Vec<T>;
  const T width = static_cast<T>(task.width);
  const T mean = task.centered ? sum_of<T>(x, task.width) / width : T(0);
  const T variance = sum_of_squares<T>(x, task.width, mean) / width;
  const V factor = V::splat(T(1) / square_root(variance + task.epsilon)), shift = V::splat(mean);
  for (std::int64_t i = 0; i < task.width; i += V::kLanes) {
    const int valid = static_cast<int>(std::min<std::int64_t>(task.width - i, V::kLanes));
    const auto load = [&](const T* from) { return valid == V::kLanes ? V::load(from) : V::load_first(from, valid); };
    V y = (load(x + i) - shift) * factor;
    if (task.weight && task.bias)
      y = V::fma(y, load(task.weight + i), load(task.bias + i));
    else if (task.weight)
      y = y * (task.plus_1 ? load(task.weight + i) + V::splat(1) : load(task.weight + i));
    else if (task.bias)
      y = y + load(task.bias + i);
    valid == V::kLanes ? y.store(x + i) : y.store_first(x + i, valid);
  }
}

// x = from + residual, or from where residual is null.
template <class T>
MULTIHEAD_INLINE void make_vector(const T* from, const T* residual, std::int64_t width, T* x) {
  using V = Vec<T>;
  std::int64_t i = 0;
  for (; i + V::kLanes <= width; i += V::kLanes)
    (residual ? V::load(from + i) + V::load(residual + i) : V::load(from + i)).store(x + i);
  const int rest = static_cast<int>(width - i);
  if (rest == 0) return;
  const V last = V::load_first(from + i, rest);
  (residual ? last + V::load_first(residual + i, rest) : last).store_first(x + i, rest);
}

template <class T>
void norm_task(const NormTask<T>& task) noexcept {
  const auto vector = [](const auto& grid, std::int64_t row, std::int64_t head) {
    return grid.data ? grid.data + row * grid.row_stride + head * grid.head_stride : nullptr;
  };
  for (std::int64_t row = 0; row < task.x.rows; ++row)
    for (std::int64_t head = 0; head < task.x.heads; ++head) {
      T* x = vector(task.x, row, head);
      if (task.from.data) make_vector<T>(vector(task.from, row, head), vector(task.residual, row, head), task.width, x);
      if (!task.sum_alone) normalise_vector<T>(task, x);
    }
}

template <class T>
void length_task(const LengthTask<T>& task) noexcept {
  for (std::int64_t row = 0; row < task.x.rows; ++row)
    task.norms[row * task.norm_stride] =
        square_root(sum_of_squares<T>(task.x.data + row * task.x.row_stride, task.width, T(0)));
}
