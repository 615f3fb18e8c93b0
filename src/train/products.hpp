// SPDX-License-Identifier: Apache-2.0
// The products of a linear map's backward pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/scratch.hpp"
#include "kernels/matmul.hpp"
#include "multihead/layer.hpp"

namespace multihead {

template <class E>
MatrixView<E> turned(const MatrixView<E>& x) {
  return {x.data(), {x.extent(1), x.extent(0)}, {x.stride(1), x.stride(0)}};
}

// d_weight += x^T d_y, d_weight (in, out) with one axis contiguous. A sum over rows is one chain a block of kInnerBlock
// rows, the blocks added in order: the same whichever of the two is written along its rows.
template <class T>
Product<T> weight_product(MatrixView<const T> x, MatrixView<const T> d_y, MatrixView<T> d_weight) {
  Product<T> product;
  const bool rows = d_weight.extent(1) <= 1 || d_weight.stride(1) == 1;
  if (rows)
    product.a = turned(x), product.b = d_y, product.c = d_weight;
  else
    product.a = turned(d_y), product.b = x, product.c = turned(d_weight);
  product.add = true;
  return product;
}

template <class T>
inline constexpr T kOne = 1;

// d_bias += the column sums of d_y: a row of ones times d_y.
template <class T>
Product<T> bias_product(MatrixView<const T> d_y, std::span<T> d_bias) {
  Product<T> product;
  product.a = {&kOne<T>, {1, d_y.extent(0)}, {0, 0}};
  product.b = d_y;
  product.c = {d_bias.data(), {1, d_y.extent(1)}};
  product.add = true;
  return product;
}

// Runs them in the calling thread's kept scratch. Throws before anything is written.
template <class T>
void run_in_scratch(const char* function, std::span<const Product<T>> products, const LayerOptions& options) {
  const KernelTable& table = choose_kernels(options.target);
  std::int64_t tasks = 0;
  for (const Product<T>& product : products) tasks += product_tasks(product);
  const std::int64_t workers = std::min<std::int64_t>(options.threads, tasks);
  Scratch scratch(static_cast<std::size_t>(workers) * product_scratch<T>(), {}, function);
  std::byte* memory = scratch.take<std::byte>(static_cast<std::size_t>(workers) * product_scratch<T>());
  run_products<T>(products, options.threads, options.parallel_for, table, memory);
}

}  // namespace multihead
