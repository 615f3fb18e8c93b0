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

// Whether no element that is packed lies below one.
template <class T>
struct AllFrom {
  using Lanes = Vec<T>;
  Lanes least;
  typename Lanes::Mask holds = Lanes::splat(0) == Lanes::splat(0);

  MULTIHEAD_INLINE void look(Lanes x) { holds = Lanes::both(holds, least <= x); }
  bool all() const { return !Lanes::any(Lanes::select(holds, Lanes::splat(0), Lanes::splat(1)) == Lanes::splat(1)); }
};
template <class T>
struct LooksAtNone {
  MULTIHEAD_INLINE void look(Vec<T>) {}
};

// panel[c * kRowBlock + r] = source[r * stride + c] for r < rows, c < columns; lanes from rows up to the next whole
// register become zero. Returns what `looks` found at them.
template <class T, class Looks>
MULTIHEAD_NOINLINE Looks pack_panel(const T* source, std::int64_t stride, int rows, std::int64_t columns, T* panel,
                                    Looks looks) {
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
        for (int i = 0; i < kLanes; ++i) looks.look(x[i]), x[i].store(to + i * kRowBlock);
        continue;
      }
      T block[kLanes * kLanes];
      for (int i = 0; i < kLanes; ++i)
        (r + i < rows ? V::load_first(source + (r + i) * stride + c, valid) : V::splat(0)).store(block + i * kLanes);
      load_turned<T>(block, kLanes, x);
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i)
        if (i < valid) looks.look(x[i]), x[i].store(to + i * kRowBlock);
    }
  return looks;
}

template <class T>
void pack_panel(const T* source, std::int64_t stride, int rows, std::int64_t columns, T* panel) {
  pack_panel<T>(source, stride, rows, columns, panel, LooksAtNone<T>{});
}

// What elements are multiplied by as they leave a panel, each of the two or null. By that of a row a zero becomes +0.
template <class T>
struct PanelFactors {
  const T *rows = nullptr, *columns = nullptr;

  // Rows from r on, the first `valid` columns from c on.
  MULTIHEAD_INLINE void multiply(Vec<T> (&x)[Vec<T>::kLanes], int r, std::int64_t c, int valid) const {
    using V = Vec<T>;
    if (rows) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < V::kLanes; ++i) x[i] = V::fma(x[i], V::splat(rows[r + i]), V::splat(0));
    }
    if (columns) {
      const V by = valid == V::kLanes ? V::load(columns + c) : V::load_first(columns + c, valid);
      MULTIHEAD_UNROLL
      for (int i = 0; i < V::kLanes; ++i) x[i] = x[i] * by;
    }
  }
};

// target[r * stride + c] = panel[c * kRowBlock + r] for r < rows, c < columns, by their factors.
template <class T>
MULTIHEAD_NOINLINE void unpack_panel(const T* panel, int rows, std::int64_t columns, T* target, std::int64_t stride,
                                     PanelFactors<T> by = {}) {
  using V = Vec<T>;
  constexpr int kLanes = V::kLanes;
  for (int r = 0; r < rows; r += kLanes)
    for (std::int64_t c = 0; c < columns; c += kLanes) {
      const int valid = static_cast<int>(columns - c < kLanes ? columns - c : kLanes);
      const T* const from = panel + c * kRowBlock + r;
      T* const to = target + r * stride + c;
      V x[kLanes];
      if (valid == kLanes && r + kLanes <= rows) {
        load_turned<T>(from, kRowBlock, x);
        by.multiply(x, r, c, kLanes);
        MULTIHEAD_UNROLL
        for (int i = 0; i < kLanes; ++i) x[i].store(to + i * stride);
        continue;
      }
      T block[kLanes * kLanes];
      for (int i = 0; i < kLanes; ++i)
        (i < valid ? V::load(from + i * kRowBlock) : V::splat(0)).store(block + i * kLanes);
      load_turned<T>(block, kLanes, x);
      by.multiply(x, r, c, valid);
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

// Registers [Low, High) of a line of a panel.
template <class T, int Low, int High, int V>
MULTIHEAD_INLINE void load_line(Vec<T> (&lanes)[V], const T* line) {
  MULTIHEAD_UNROLL
  for (int v = Low; v < High; ++v) lanes[v] = Vec<T>::load(line + v * Vec<T>::kLanes);
}

// body<0>() to body<N - 1>().
template <int N, class Body>
MULTIHEAD_INLINE void each_index(const Body& body) {
  const auto call = [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (body.template operator()<I>(), ...);
  };
  call(std::make_integer_sequence<int, N>());
}

// Whether a target multiplies by one lane of a register. Where it does, elements of A that stand side by side are
// loaded together: a broadcast from memory would take one of the multiply-adds' pipes.
template <class V>
constexpr bool kMultipliesByLane = requires(V v) {
  V::template fma_lane<0>(v, v, v);
};

// accumulate() of N rows whose elements of one k stand side by side. The last register of them overlaps the one before.
template <class T, int N, int Low, int High, int V>
MULTIHEAD_INLINE void accumulate_columns(Vec<T> (&sums)[N][V], const T* a, std::int64_t k_step, const T* panel,
                                         std::int64_t count, std::int64_t line) {
  constexpr int kLanes = Vec<T>::kLanes, kLast = (N - 1) / kLanes;
  MULTIHEAD_UNROLL_4
  for (std::int64_t k = 0; k < count; ++k) {
    Vec<T> lanes[V], elements[kLast + 1];
    load_line<T, Low, High>(lanes, panel + k * line);
    MULTIHEAD_UNROLL
    for (int i = 0; i < kLast; ++i) elements[i] = Vec<T>::load(a + k * k_step + i * kLanes);
    elements[kLast] = Vec<T>::load(a + k * k_step + N - kLanes);
    each_index<N>([&]<int n>() __attribute__((always_inline)) {
      constexpr int kLane = n / kLanes < kLast ? n % kLanes : n - (N - kLanes);
      MULTIHEAD_UNROLL
      for (int v = Low; v < High; ++v)
        sums[n][v] = Vec<T>::template fma_lane<kLane>(lanes[v], elements[n / kLanes], sums[n][v]);
    });
  }
}

// Rows First to First + Count of accumulate_rows(), from the k on where registers of elements begin.
template <class T, int First, int Count, int Low, int High, int N, int V>
MULTIHEAD_INLINE void accumulate_lanes(Vec<T> (&sums)[N][V], const T* a, std::int64_t n_step, const T* panel,
                                       std::int64_t line) {
  asm volatile("" : "+r"(panel));  // the compiler would keep lines from run to run, and sums on the stack for it
  Vec<T> elements[Count];
  MULTIHEAD_UNROLL
  for (int n = 0; n < Count; ++n) elements[n] = Vec<T>::load(a + (First + n) * n_step);
  each_index<Vec<T>::kLanes>([&]<int k>() __attribute__((always_inline)) {
    Vec<T> lanes[V];
    load_line<T, Low, High>(lanes, panel + k * line);
    MULTIHEAD_UNROLL
    for (int n = 0; n < Count; ++n) {
      MULTIHEAD_UNROLL
      for (int v = Low; v < High; ++v)
        sums[First + n][v] = Vec<T>::template fma_lane<k>(lanes[v], elements[n], sums[First + n][v]);
    }
  });
}

// accumulate() of N rows whose elements stand side by side along k, as far as whole registers reach: so many k are
// done. Two rows at a time: with elements of more, some sums would find no register.
template <class T, int N, int Low, int High, int V>
MULTIHEAD_INLINE std::int64_t accumulate_rows(Vec<T> (&sums)[N][V], const T* a, std::int64_t n_step, const T* panel,
                                              std::int64_t count, std::int64_t line) {
  constexpr int kLanes = Vec<T>::kLanes, kTogether = 2;
  std::int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes)
    each_index<(N + kTogether - 1) / kTogether>([&]<int Run>() __attribute__((always_inline)) {
      constexpr int kFirst = Run * kTogether;
      accumulate_lanes<T, kFirst, std::min(kTogether, N - kFirst), Low, High>(sums, a + k, n_step, panel + k * line,
                                                                              line);
    });
  return k;
}

// The inner step of every product: for each k, element (n, k) of A is broadcast and multiplied with line k of a panel,
// or of rows that lie line elements apart.
//   sums[n][v] = fma(A(n, k), panel[k][v], sums[n][v]), k ascending: one chain an element
template <class T, int N, int Low, int High, int V, class Step = MultiplyAdd>
MULTIHEAD_INLINE void accumulate(Vec<T> (&sums)[N][V], const T* a, std::int64_t n_step, std::int64_t k_step,
                                 const T* panel, std::int64_t count, std::int64_t line = kRowBlock) {
  std::int64_t k = 0;
  if constexpr (kMultipliesByLane<Vec<T>>) {
    if constexpr (N >= Vec<T>::kLanes)
      if (n_step == 1) return accumulate_columns<T, N, Low, High>(sums, a, k_step, panel, count, line);
    if (k_step == 1) k = accumulate_rows<T, N, Low, High>(sums, a, n_step, panel, count, line);
  }
  MULTIHEAD_UNROLL_4
  for (; k < count; ++k) {
    Vec<T> lanes[V];
    load_line<T, Low, High>(lanes, panel + k * line);
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      const Vec<T> element = Vec<T>::splat(a[n * n_step + k * k_step]);
      MULTIHEAD_UNROLL
      for (int v = Low; v < High; ++v) sums[n][v] = Step::add(element, lanes[v], sums[n][v]);
    }
  }
}
