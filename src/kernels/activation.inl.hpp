// SPDX-License-Identifier: Apache-2.0
// Activations and their derivatives, and the last step of a product: bias, then activation, while its block of C is at
// hand.
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
template <class T>
MULTIHEAD_INLINE Vec<T> raised(T a, Vec<T> x) {
  return Vec<T>::max(Vec<T>::splat(a), x);
}

template <Activation kActivation, class T>
MULTIHEAD_INLINE Vec<T> activate(Vec<T> x) {
  using V = Vec<T>;
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

// C = activation(C + bias), bias where there is one.
template <Activation kActivation, class T>
MULTIHEAD_NOINLINE void finish_with(const MatmulTask<T>& task) {
  using V = Vec<T>;
  for (std::int64_t row = 0; row < task.rows; ++row)
    for (int column = 0; column < task.columns; column += V::kLanes) {
      T* to = task.c + row * task.c_stride + column;
      const int valid = task.columns - column;
      if (valid >= V::kLanes) {
        const V sum = V::load(to);
        activate<kActivation, T>(task.bias ? sum + V::load(task.bias + column) : sum).store(to);
      } else {
        const V sum = V::load_first(to, valid);
        const V biased = task.bias ? sum + V::load_first(task.bias + column, valid) : sum;
        activate<kActivation, T>(biased).store_first(to, valid);
      }
    }
}

template <class T>
void finish_product(const MatmulTask<T>& task) {
  switch (task.activation) {
    case Activation::none:
      if (task.bias) finish_with<Activation::none, T>(task);
      return;
    case Activation::relu:
      return finish_with<Activation::relu, T>(task);
    case Activation::gelu:
      return finish_with<Activation::gelu, T>(task);
    case Activation::gelu_tanh:
      return finish_with<Activation::gelu_tanh, T>(task);
    case Activation::silu:
      return finish_with<Activation::silu, T>(task);
  }
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
    const auto load = [&](const T* from) { return valid == V::kLanes ? V::load(from) : V::load_first(from, valid); };
    const V x = load(task.x + i);
    const V y = task.d_y ? load(task.d_y + i) * derivative<kActivation, T>(x) : activate<kActivation, T>(x);
    valid == V::kLanes ? y.store(task.y + i) : y.store_first(task.y + i, valid);
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
