// SPDX-License-Identifier: Apache-2.0
// Linear: a product with packed weights, its bias and its activation in one pass.
#include "multihead/linear.hpp"

#include "layer/packed_linear.hpp"
#include "layer/rows.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "Linear";

}  // namespace

void check_activation(const char* function, Activation activation) {
  switch (activation) {
    case Activation::none:
    case Activation::relu:
    case Activation::gelu:
    case Activation::gelu_tanh:
    case Activation::silu:
      return;
  }
  fail(ErrorCode::bad_option, std::string(function) + ": activation is none of none, relu, gelu, gelu_tanh and silu");
}

template <class T>
struct Linear<T>::State {
  PackedLinear<T> weights;
};

template <class T>
Linear<T>::Linear(MatrixView<const T> weight, WeightOrder order, std::span<const T> bias) {
  check_order(kName, order);
  const MatrixView<const T> plain = checked_weight(kName, "weight", weight, order);
  check_size(kName, plain.extent(0), plain.extent(1));
  check_vector(kName, "bias", bias, plain.extent(1), "out is");
  auto state = std::make_shared<State>();
  pack_columns(kName, plain, plain.extent(1), kSameColumn, state->weights);
  if (given(bias)) widen_into(kName, bias, kSameColumn, plain.extent(1), state->weights.bias);
  state_ = std::move(state);
}

template <class T>
std::int64_t Linear<T>::in() const noexcept {
  return state_->weights.in;
}

template <class T>
std::int64_t Linear<T>::out() const noexcept {
  return state_->weights.out;
}

namespace {

// What a call's views and options must be.
template <class T, class C>
void check_call(const Linear<T>& layer, const MatrixView<const T>& x, const MatrixView<C>& y, Activation activation,
                int threads) {
  const Operand from = operand("x", x), to = operand("y", y);
  for (const Operand& view : {from, to}) {
    check_view(kName, view);
    check_contiguous(kName, view);
  }
  check_equal(kName, "x", "has width", x.extent(1), "in is", layer.in());
  check_equal(kName, "y", "has width", y.extent(1), "out is", layer.out());
  check_equal(kName, "y", "has rows", y.extent(0), "x has", x.extent(0));
  check_writable(kName, to);
  check_apart(kName, to, from);
  check_activation(kName, activation);
  check_between(kName, "threads", threads, 1, 1 << 16);
}

template <class T, class C>
void multiply_narrow(const PackedLinear<T>& w, MatrixView<const T> x, MatrixView<C> y, Activation activation,
                     const LayerOptions& options) {
  const KernelTable& table = choose_kernels(options.target);
  const std::int64_t workers = std::min<std::int64_t>(options.threads, narrow_product_tasks(y.extent(0), w.out));
  const std::size_t bytes = narrow_product_scratch() * static_cast<std::size_t>(workers);
  Scratch scratch(bytes, {}, kName);
  run_narrow_product<T, C>({x, y, w.panels.data(), w.bias.data_or_null(), activation}, options.threads,
                           options.parallel_for, table, scratch.take<std::byte>(bytes));
}

}  // namespace

template <class T>
void Linear<T>::forward(MatrixView<const T> x, MatrixView<T> y, Activation activation,
                        const LayerOptions& options) const {
  check_call(*this, x, y, activation, options.threads);
  const PackedLinear<T>& w = state_->weights;
  if constexpr (sizeof(T) == 2) {
    multiply_narrow(w, x, y, activation, options);
  } else {
    const Product<T> product{x, {}, y, w.panels.data(), w.bias.data_or_null(), activation};
    run_products<T>({&product, 1}, options.threads, options.parallel_for, choose_kernels(options.target), nullptr);
  }
}

template <class T>
template <Unrounded<T> Y>
void Linear<T>::forward(MatrixView<const T> x, MatrixView<Y> y, Activation activation,
                        const LayerOptions& options) const {
  check_call(*this, x, y, activation, options.threads);
  multiply_narrow(state_->weights, x, y, activation, options);
}

template class Linear<float>;
template class Linear<double>;
template class Linear<BFloat16>;
template class Linear<Float16>;
template void Linear<BFloat16>::forward(MatrixView<const BFloat16>, MatrixView<float>, Activation,
                                        const LayerOptions&) const;
template void Linear<Float16>::forward(MatrixView<const Float16>, MatrixView<float>, Activation,
                                       const LayerOptions&) const;

}  // namespace multihead
