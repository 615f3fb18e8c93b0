// SPDX-License-Identifier: Apache-2.0
// Activations and their derivatives, and the last step of a product, while a tile of C is at hand.
//
// Below kLowest every activation but relu is -0, also where its formula would make NaN of -infinity: arguments are
// raised to it first, which changes no other bit. NaN gives NaN.

template <class T>
struct ActivationConstants {
  static constexpr T kLowestGelu = -16;                            // erf and tanh are -1 from far above it
  static constexpr T kLowestSilu = sizeof(T) == 4 ? -128 : -1024;  // exp(-x) is infinite from above it
  static constexpr T kCubic = T(0.044715);
  static constexpr T kTanhScale = T(0.79788456080286535588);  // sqrt(2 / pi)
  static constexpr T kDensity = T(0.39894228040143267794);    // 1 / sqrt(2 pi)
};

// a where x < a, else x: NaN stays.
template <class T, class V>
MULTIHEAD_INLINE V raised(T a, V x) {
  return V::max(V::splat(a), x);
}

// V: Vec<T>, or Two of it.
template <Activation kActivation, class T, class V>
MULTIHEAD_INLINE V activate(V x) {
  using C = ActivationConstants<T>;
  const V zero = V::splat(0), one = V::splat(1), half = V::splat(T(0.5));
  if constexpr (kActivation == Activation::none) return x;
  if constexpr (kActivation == Activation::relu) return V::max(zero, x);
  if constexpr (kActivation == Activation::gelu) {
    x = raised(C::kLowestGelu, x);
    return x * half * (one + erf<T>(x * V::splat(std::numbers::sqrt2_v<T> / 2)));
  }
  if constexpr (kActivation == Activation::gelu_tanh) {
    x = raised(C::kLowestGelu, x);
    const V inner = V::fma(x * x * x, V::splat(C::kCubic), x);
    return x * half * (one + tanh<T>(inner * V::splat(C::kTanhScale)));
  }
  if constexpr (kActivation == Activation::silu) {
    x = raised(C::kLowestSilu, x);
    return x / (one + exp<T>(zero - x));
  }
}

// A whole register where there are so many elements, which is the fast way, else the first n.
template <class T>
MULTIHEAD_INLINE Vec<T> load_up_to(const T* from, int n) {
  return n >= Vec<T>::kLanes ? Vec<T>::load(from) : Vec<T>::load_first(from, n);
}
template <class T>
MULTIHEAD_INLINE void store_up_to(Vec<T> x, T* to, int n) {
  n >= Vec<T>::kLanes ? x.store(to) : x.store_first(to, n);
}

// C (rows, columns) = activation(C), four registers in step. One loop over all of them, before which the constants are
// made ready once.
template <Activation kActivation, class T>
MULTIHEAD_NOINLINE void activate_rows(T* c, std::int64_t stride, std::int64_t rows, int columns) {
  using V = Vec<T>;
  const int whole = columns / V::kLanes * V::kLanes;
  T* row = c;
  int column = 0;
  const auto next = [&] {
    T* const at = row + column;
    column += V::kLanes;
    if (column == whole) column = 0, row += stride;
    return at;
  };
  std::int64_t left = rows * (whole / V::kLanes);
  for (; left >= 4; left -= 4) {
    T *const p = next(), *const q = next(), *const r = next(), *const s = next();
    const Two<T> first{V::load(p), V::load(q)}, second{V::load(r), V::load(s)};
    const Two<T, Two<T>> y = activate<kActivation, T>(Two<T, Two<T>>{first, second});
    y.a.a.store(p), y.a.b.store(q), y.b.a.store(r), y.b.b.store(s);
  }
  for (; left > 0; --left) {
    T* const at = next();
    activate<kActivation, T>(V::load(at)).store(at);
  }
  const int rest = columns - whole;
  for (T* at = c + whole; rest > 0 && rows > 0; --rows, at += stride)
    activate<kActivation, T>(V::load_first(at, rest)).store_first(at, rest);
}

// What is run over rows of C after their bias; null: nothing.
template <class T>
using ActivateRows = void (*)(T* c, std::int64_t stride, std::int64_t rows, int columns);

template <class T>
ActivateRows<T> rows_activation(Activation activation) {
  switch (activation) {
    case Activation::none:
      return nullptr;
    case Activation::relu:
      return activate_rows<Activation::relu, T>;
    case Activation::gelu:
      return activate_rows<Activation::gelu, T>;
    case Activation::gelu_tanh:
      return activate_rows<Activation::gelu_tanh, T>;
    case Activation::silu:
      return activate_rows<Activation::silu, T>;
  }
  return nullptr;
}

// C = activation(C + bias), bias where there is one: of sums that no tile has stored with theirs.
template <class T>
void finish_product(const MatmulTask<T>& task) {
  using V = Vec<T>;
  for (std::int64_t row = 0; task.bias && row < task.rows; ++row)
    for (int column = 0; column < task.columns; column += V::kLanes) {
      T* const to = task.c + row * task.c_stride + column;
      const int valid = task.columns - column;
      store_up_to<T>(load_up_to<T>(to, valid) + load_up_to<T>(task.bias + column, valid), to, valid);
    }
  const ActivateRows<T> activate = rows_activation<T>(task.activation);
  if (activate) activate(task.c, task.c_stride, task.rows, task.columns);
}

// The derivative. Beyond kLowest of either sign it is taken there, where it has its limit or is too small to matter:
// infinity times zero does not arise.
template <Activation kActivation, class T>
MULTIHEAD_INLINE Vec<T> derivative(Vec<T> x) {
  using V = Vec<T>;
  using C = ActivationConstants<T>;
  const V zero = V::splat(0), one = V::splat(1), half = V::splat(T(0.5));
  const auto within = [](T lowest, V v) {
    const V low = raised(lowest, v), end = V::splat(-lowest);
    return V::select(end < low, end, low);
  };
  if constexpr (kActivation == Activation::none) return one;
  if constexpr (kActivation == Activation::relu) return V::select(zero < x, one, V::select(x <= zero, zero, x));
  if constexpr (kActivation == Activation::gelu) {
    x = within(C::kLowestGelu, x);
    const V density = exp<T>(x * x * V::splat(T(-0.5))) * V::splat(C::kDensity);
    return V::fma(x, density, half * (one + erf<T>(x * V::splat(std::numbers::sqrt2_v<T> / 2))));
  }
  if constexpr (kActivation == Activation::gelu_tanh) {
    x = within(C::kLowestGelu, x);
    const V square = x * x * V::splat(C::kCubic);
    const V t = tanh<T>(V::fma(square, x, x) * V::splat(C::kTanhScale));
    const V inner = V::fma(square, V::splat(3), one) * V::splat(C::kTanhScale);
    const V slope = (one - t * t) * inner;
    return half * V::fma(x, slope, one + t);
  }
  if constexpr (kActivation == Activation::silu) {
    x = within(C::kLowestSilu, x);
    const V s = one / (one + exp<T>(zero - x));
    return V::fma(x * s, one - s, s);
  }
}

template <Activation kActivation, class T>
MULTIHEAD_NOINLINE void activation_with(const ActivationTask<T>& task) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < task.count; i += V::kLanes) {
    const int valid = static_cast<int>(std::min<std::int64_t>(task.count - i, V::kLanes));
    const V x = load_up_to<T>(task.x + i, valid);
    const V y =
        task.d_y ? load_up_to<T>(task.d_y + i, valid) * derivative<kActivation, T>(x) : activate<kActivation, T>(x);
    store_up_to<T>(y, task.y + i, valid);
  }
}

template <class T>
void activation_task(const ActivationTask<T>& task) noexcept {
  switch (task.activation) {
    case Activation::none:
      return activation_with<Activation::none, T>(task);
    case Activation::relu:
      return activation_with<Activation::relu, T>(task);
    case Activation::gelu:
      return activation_with<Activation::gelu, T>(task);
    case Activation::gelu_tanh:
      return activation_with<Activation::gelu_tanh, T>(task);
    case Activation::silu:
      return activation_with<Activation::silu, T>(task);
  }
}
