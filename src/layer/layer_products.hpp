// SPDX-License-Identifier: Apache-2.0
// Products of a call's rows with packed weights, several at once.
#pragma once

#include <algorithm>
#include <array>
#include <span>

#include "layer/layer_call.hpp"

namespace multihead {

// The batch as one matrix of rows, where strides let it be one.
template <class E>
bool is_matrix(const View3<E>& x) {
  return x.extent(0) <= 1 || x.extent(1) <= 1 || x.stride(0) == x.extent(1) * x.stride(1);
}
template <class E>
MatrixView<E> rows_of(const View3<E>& x) {
  return {x.data(), {x.extent(0) * x.extent(1), x.extent(2)}, {x.extent(1) == 1 ? x.stride(0) : x.stride(1), 1}};
}

// y = x w + bias, (batch, length, w.in) to (batch, length, w.out). C: T, or the type of the sums.
template <class T, class C>
struct Projection {
  View3<const T> x;
  const PackedLinear<T>* w;
  View3<C> y;
};

// Products read and write matrices of two bytes as they are; what they want is memory for each worker.
template <class T>
constexpr bool kNarrow = sizeof(T) == 2;

// Bytes that project() takes for a call's inputs and its output.
template <class T>
std::size_t projection_bytes([[maybe_unused]] const LayerCall<T>& call) {
  if constexpr (!kNarrow<T>) {
    return 0;
  } else {
    const auto& layer = call.layer;
    const auto tasks = [&](std::int64_t length, const PackedLinear<T>& w) {
      return narrow_product_tasks(call.batch * length, w.out);
    };
    const std::int64_t inputs = tasks(call.q_len, layer.q) + tasks(call.kv_len, layer.k) + tasks(call.kv_len, layer.v);
    const std::int64_t most = std::max(inputs, tasks(call.q_len, layer.out));
    return narrow_product_scratch() *
           static_cast<std::size_t>(std::min<std::int64_t>(call.options.attention.threads, most));
  }
}

// scratch: projection_bytes(). At most three.
template <class T, class C>
void project(const LayerCall<T>& call, const KernelTable& table, std::span<const Projection<T, C>> projections,
             std::byte* scratch) {
  using Each = std::conditional_t<kNarrow<T>, NarrowProduct<T, C>, Product<T>>;
  bool all = true;
  for (const auto& p : projections) all = all && is_matrix(p.x) && is_matrix(p.y);
  if (call.batch == 0 || projections.empty()) return;
  const auto rows = [all]<class E>(const View3<E>& x, std::int64_t b) {
    return all ? rows_of(x) : MatrixView<E>(x.data() + b * x.stride(0), {x.extent(1), x.extent(2)}, {x.stride(1), 1});
  };
  const AttentionOptions& options = call.options.attention;
  for (std::int64_t b = 0; b < (all ? 1 : call.batch); ++b) {
    std::array<Each, 3> products{};
    std::size_t count = 0;
    for (const auto& p : projections) {
      Each& product = products[count++];
      product.a = rows(p.x, b), product.c = rows(p.y, b);
      product.packed = p.w->panels.data(), product.bias = p.w->bias.data_or_null();
    }
    const std::span<const Each> asked(products.data(), count);
    if constexpr (kNarrow<T>)
      run_narrow_products(asked, options.threads, options.parallel_for, table, scratch);
    else
      run_products(asked, options.threads, options.parallel_for, table, scratch);
  }
}

}  // namespace multihead
