// SPDX-License-Identifier: Apache-2.0
// activate() and its gradient.
#include "core/parallel.hpp"
#include "kernels/table.hpp"
#include "layer/rows.hpp"
#include "multihead/gradients.hpp"
#include "train/checks.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kRowsTogether = 48;  // rows of a task

// y from x, and from d_y where it is a gradient.
template <class T>
void run_rows(Activation activation, MatrixView<const T> x, MatrixView<const T> d_y, MatrixView<T> y,
              const LayerOptions& options) {
  const KernelTable& table = choose_kernels(options.target);
  const std::int64_t rows = x.extent(0), width = x.extent(1);
  parallel_for((rows + kRowsTogether - 1) / kRowsTogether, options.threads, options.parallel_for,
               [&](int, std::int64_t index) {
                 const std::int64_t end = std::min(rows, (index + 1) * kRowsTogether);
                 for (std::int64_t row = index * kRowsTogether; row < end; ++row)
                   table.kernels<T>().activate({x.data() + row * x.stride(0),
                                                given(d_y) ? d_y.data() + row * d_y.stride(0) : nullptr,
                                                y.data() + row * y.stride(0), width, activation});
               });
}

}  // namespace

template <class T>
void activate(Activation activation, MatrixView<const T> x, MatrixView<T> y, const LayerOptions& options) {
  constexpr const char* kName = "activate";
  const Operand from = operand("x", x), to = operand("y", y);
  check_activation(kName, activation);
  check_matrix(kName, from);
  check_matrix(kName, to);
  check_like(kName, to, "x has", from);
  check_writable(kName, to);
  if (!same_place(to, from)) check_apart(kName, to, from);
  check_threads(kName, options);
  run_rows<T>(activation, x, {}, y, options);
}

template <class T>
void activation_backward(Activation activation, MatrixView<const T> x, MatrixView<const T> d_y, MatrixView<T> d_x,
                         const LayerOptions& options) {
  constexpr const char* kName = "activation_backward";
  const Operand at = operand("x", x), from = operand("d_y", d_y), to = operand("d_x", d_x);
  check_activation(kName, activation);
  for (const Operand& matrix : {at, from, to}) check_matrix(kName, matrix);
  check_like(kName, from, "x has", at);
  check_like(kName, to, "x has", at);
  check_written(kName, to, {at});
  if (!same_place(to, from)) check_apart(kName, to, from);
  check_threads(kName, options);
  run_rows<T>(activation, x, d_y, d_x, options);
}

#define MULTIHEAD_INSTANTIATE(T)                                                                         \
  template void activate(Activation, MatrixView<const T>, MatrixView<T>, const LayerOptions&);           \
  template void activation_backward(Activation, MatrixView<const T>, MatrixView<const T>, MatrixView<T>, \
                                    const LayerOptions&);
MULTIHEAD_INSTANTIATE(float)
MULTIHEAD_INSTANTIATE(double)
#undef MULTIHEAD_INSTANTIATE

}  // namespace multihead
