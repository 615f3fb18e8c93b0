// SPDX-License-Identifier: Apache-2.0
// linear() with weights that change at every call, and its gradients.
#include <array>

#include "layer/packed_linear.hpp"
#include "multihead/gradients.hpp"
#include "train/checks.hpp"
#include "train/products.hpp"

namespace multihead {

template <class T>
void linear(MatrixView<const T> x, MatrixView<const T> weight, WeightOrder order, std::span<const T> bias,
            MatrixView<T> y, const LayerOptions& options) {
  constexpr const char* kName = "linear";
  const Operand from = operand("x", x), to = operand("y", y);
  check_matrix(kName, from);
  check_matrix(kName, to);
  check_order(kName, order);
  const MatrixView<const T> plain = checked_weight(kName, "weight", weight, order);
  check_equal(kName, "x", "has width", x.extent(1), "the weight's in is", plain.extent(0));
  check_equal(kName, "y", "has width", y.extent(1), "the weight's out is", plain.extent(1));
  check_equal(kName, "y", "has rows", y.extent(0), "x has", x.extent(0));
  check_vector(kName, "bias", bias, plain.extent(1), "out is");
  const View<const T, 1> added = vector_view(bias);
  check_written(kName, to, {from, operand("weight", weight), operand("bias", added)});
  check_threads(kName, options);
  const Product<T> product{x, plain, y, nullptr, given(bias) ? bias.data() : nullptr};
  run_in_scratch<T>(kName, {&product, 1}, options);
}

namespace {

template <class T>
struct LinearBackward {
  static constexpr const char* kName = "linear_backward";
  MatrixView<const T> x, weight, d_y;
  WeightOrder order;
  const LinearGradients<T>& gradients;
  const LayerOptions& options;

  void check() const {
    check_matrix(kName, operand("x", x));
    check_matrix(kName, operand("d_y", d_y));
    check_order(kName, order);
    const MatrixView<const T> plain = checked_weight(kName, "weight", weight, order);
    check_equal(kName, "x", "has width", x.extent(1), "the weight's in is", plain.extent(0));
    check_equal(kName, "d_y", "has width", d_y.extent(1), "the weight's out is", plain.extent(1));
    check_equal(kName, "d_y", "has rows", d_y.extent(0), "x has", x.extent(0));
    check_threads(kName, options);
    check_gradients(plain.extent(1));
  }

  void check_gradients(std::int64_t out) const {
    const View<T, 1> bias = vector_view(gradients.bias);
    const Operand from = operand("x", x), w = operand("weight", weight), d = operand("d_y", d_y);
    const Operand d_x = operand("gradients.x", gradients.x), d_weight = operand("gradients.weight", gradients.weight),
                  d_bias = operand("gradients.bias", bias);
    if (given(gradients.x)) {
      check_matrix(kName, d_x);
      check_like(kName, d_x, "x has", from);
      check_written(kName, d_x, {from, w, d});
    }
    if (given(gradients.weight)) {
      check_weight(kName, d_weight);
      check_like(kName, d_weight, "weight has", w);
      check_written(kName, d_weight, {from, w, d, d_x});
    }
    if (given(gradients.bias)) {
      check_view(kName, d_bias);
      check_equal(kName, "gradients.bias", "has", bias.extent(0), "out is", out);
      check_written(kName, d_bias, {from, w, d, d_x, d_weight});
    }
  }

  void run() const {
    check();
    std::array<Product<T>, 3> products;
    std::size_t count = 0;
    if (given(gradients.x)) products[count++] = {d_y, turned(in_out(weight, order)), gradients.x};
    if (given(gradients.weight) && x.extent(0) > 0)
      products[count++] = weight_product(x, d_y, written_in_out(gradients.weight));
    if (given(gradients.bias) && x.extent(0) > 0) products[count++] = bias_product(d_y, gradients.bias);
    run_in_scratch<T>(kName, {products.data(), count}, options);
  }

  MatrixView<T> written_in_out(MatrixView<T> matrix) const {
    return order == WeightOrder::in_out ? matrix : turned(matrix);
  }
};

}  // namespace

template <class T>
void linear_backward(MatrixView<const T> x, MatrixView<const T> weight, WeightOrder order, MatrixView<const T> d_y,
                     const LinearGradients<T>& gradients, const LayerOptions& options) {
  LinearBackward<T>{x, weight, d_y, order, gradients, options}.run();
}

#define MULTIHEAD_INSTANTIATE(T)                                                                                 \
  template void linear(MatrixView<const T>, MatrixView<const T>, WeightOrder, std::span<const T>, MatrixView<T>, \
                       const LayerOptions&);                                                                     \
  template void linear_backward(MatrixView<const T>, MatrixView<const T>, WeightOrder, MatrixView<const T>,      \
                                const LinearGradients<T>&, const LayerOptions&);
MULTIHEAD_INSTANTIATE(float)
MULTIHEAD_INSTANTIATE(double)
#undef MULTIHEAD_INSTANTIATE

}  // namespace multihead
