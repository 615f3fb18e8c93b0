// SPDX-License-Identifier: Apache-2.0
// Panels: kRowBlock lanes wide, one line an inner index, so that a product reads whole registers. Packing into one and
// writing out of one are transpositions; the inner step of every product runs over one.

// Transposes kLanes registers of kLanes elements: log2(kLanes) rounds in which neighbours interleave with the half
// away, each doubling the length of the runs that stand in their final order.
template <class T>
MULTIHEAD_INLINE void transpose(Vec<T> (&x)[Vec<T>::kLanes]) {
  using V = Vec<T>;
  constexpr int kHalf = V::kLanes / 2;
  MULTIHEAD_UNROLL
  for (int length = 1; length < V::kLanes; length *= 2) {
    V y[V::kLanes];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kHalf; ++i) {
      y[2 * i] = V::zip_low(x[i], x[i + kHalf]);
      y[2 * i + 1] = V::zip_high(x[i], x[i + kHalf]);
    }
    MULTIHEAD_UNROLL
    for (int i = 0; i < V::kLanes; ++i) x[i] = y[i];
  }
}

// kLanes elements of as many rows, stride apart, transposed: by loads of half rows where a target has something better.
template <class T>
MULTIHEAD_INLINE void load_turned(const T* rows, std::int64_t stride, Vec<T> (&x)[Vec<T>::kLanes]) {
  if constexpr (requires { Vec<T>::load_turned(rows, stride, x); }) {
    Vec<T>::load_turned(rows, stride, x);
  } else {
    MULTIHEAD_UNROLL
    for (int i = 0; i < Vec<T>::kLanes; ++i) x[i] = Vec<T>::load(rows + i * stride);
    transpose<T>(x);
  }
}

// panel[c * kRowBlock + r] = source[r * stride + c] for r < rows, c < columns; lanes from rows up to the next whole
// register become zero.
template <class T>
MULTIHEAD_NOINLINE void pack_panel(const T* source, std::int64_t stride, int rows, std::int64_t columns, T* panel) {
  using V = Vec<T>;
  constexpr int kLanes = V::kLanes;
  for (int r = 0; r < rows; r += kLanes)
    for (std::int64_t c = 0; c < columns; c += kLanes) {
      const int valid = static_cast<int>(columns - c < kLanes ? columns - c : kLanes);
      T* const to = panel + c * kRowBlock + r;
      V x[kLanes];
      if (valid == kLanes && r + kLanes <= rows) {
        load_turned<T>(source + r * stride + c, stride, x);
        MULTIHEAD_UNROLL
        for (int i = 0; i < kLanes; ++i) x[i].store(to + i * kRowBlock);
        continue;
      }
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i)
        x[i] = r + i < rows ? V::load_first(source + (r + i) * stride + c, valid) : V::splat(0);
      transpose<T>(x);
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i)
        if (i < valid) x[i].store(to + i * kRowBlock);
    }
}

// target[r * stride + c] = panel[c * kRowBlock + r] for r < rows, c < columns.
template <class T>
MULTIHEAD_NOINLINE void unpack_panel(const T* panel, int rows, std::int64_t columns, T* target, std::int64_t stride) {
  using V = Vec<T>;
  constexpr int kLanes = V::kLanes;
  for (int r = 0; r < rows; r += kLanes)
    for (std::int64_t c = 0; c < columns; c += kLanes) {
      const int valid = static_cast<int>(columns - c < kLanes ? columns - c : kLanes);
      const T* const from = panel + c * kRowBlock + r;
      T* const to = target + r * stride + c;
      V x[kLanes];
      if (valid == kLanes && r + kLanes <= rows) {
        MULTIHEAD_UNROLL
        for (int i = 0; i < kLanes; ++i) x[i] = V::load(from + i * kRowBlock);
        transpose<T>(x);
        MULTIHEAD_UNROLL
        for (int i = 0; i < kLanes; ++i) x[i].store(to + i * stride);
        continue;
      }
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i) x[i] = i < valid ? V::load(from + i * kRowBlock) : V::splat(0);
      transpose<T>(x);
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i)
        if (r + i < rows) x[i].store_first(to + i * stride, valid);
    }
}

// What a product does with an element of each factor and the sum so far.
struct MultiplyAdd {
  template <class Lanes>
  static MULTIHEAD_INLINE Lanes add(Lanes a, Lanes b, Lanes sum) {
    return Lanes::fma(a, b, sum);
  }
};

// The inner step of every product: for each k, element (n, k) of A is broadcast and multiplied with line k of a panel,
// or of rows that lie line elements apart.
//   sums[n][v] = fma(A(n, k), panel[k][v], sums[n][v]), k ascending: one chain an element
template <class T, int N, int Low, int High, int V, class Step = MultiplyAdd>
MULTIHEAD_INLINE void accumulate(Vec<T> (&sums)[N][V], const T* a, std::int64_t n_step, std::int64_t k_step,
                                 const T* panel, std::int64_t count, std::int64_t line = kRowBlock) {
  MULTIHEAD_UNROLL_4
  for (std::int64_t k = 0; k < count; ++k) {
    Vec<T> lanes[V];
    MULTIHEAD_UNROLL
    for (int v = Low; v < High; ++v) lanes[v] = Vec<T>::load(panel + k * line + v * Vec<T>::kLanes);
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      const Vec<T> element = Vec<T>::splat(a[n * n_step + k * k_step]);
      MULTIHEAD_UNROLL
      for (int v = Low; v < High; ++v) sums[n][v] = Step::add(element, lanes[v], sums[n][v]);
    }
  }
}
