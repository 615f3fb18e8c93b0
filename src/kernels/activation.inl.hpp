// SPDX-License-Identifier: Apache-2.0
// Activations, and the last step of a product: bias, then activation, while its block of C is at hand.
//
// Below kLowest every activation but relu is -0, also where its formula would make NaN of -infinity: arguments are
// raised to it first, which changes no other bit. NaN gives NaN.

template <class T>
struct ActivationConstants {
  static constexpr T kLowestGelu = -16;                            // erf and tanh are -1 from far above it
  static constexpr T kLowestSilu = sizeof(T) == 4 ? -128 : -1024;  // exp(-x) is infinite from above it
  static constexpr T kCubic = T(0.044715);
  static constexpr T kTanhScale = T(0.79788456080286535588);  // sqrt(2 / pi)
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
