// SPDX-License-Identifier: Apache-2.0
// Matrix products for other rooms: several of them shared out to threads at once.
#pragma once

#include <span>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "kernels/table.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// c = activation(a b + bias), or c += a b. c (rows, columns) contiguous along rows; a (rows, inner) and b (inner,
// columns) along either axis, a also of one stride 0; b may be packed once: blocks of kRowBlock columns, each inner
// lines of kRowBlock elements, zeros after the last column.
template <class T>
struct Product {
  MatrixView<const T> a, b;
  MatrixView<T> c;
  const T* packed = nullptr;  // then b is not read
  const T* bias = nullptr;    // (columns)
  Activation activation = Activation::none;
  bool add = false;
};

// Elements of a packed matrix.
constexpr std::int64_t packed_elements(std::int64_t inner, std::int64_t columns) {
  return (columns + kRowBlock - 1) / kRowBlock * kRowBlock * inner;
}

constexpr std::int64_t kRowChunk = 384;  // rows of a task: enough to make up for packing its panel of b

// Tasks of a product of rows x columns.
constexpr std::int64_t product_tasks(std::int64_t rows, std::int64_t columns) {
  return (rows + kRowChunk - 1) / kRowChunk * ((columns + kRowBlock - 1) / kRowBlock);
}

template <class T>
constexpr std::size_t product_scratch() {
  return round_to_line(kMatmulScratch * sizeof(T));
}

// Computes all of them. scratch: product_scratch<T>() for each of min(threads, tasks) workers, or null where all are
// packed. A product's bits do not depend on the others, nor on packing, nor on how rows and columns are cut.
template <class T>
void run_products(std::span<const Product<T>> products, int threads, const ParallelFor& custom,
                  const KernelTable& table, std::byte* scratch) {
  const auto tasks_of = [](const Product<T>& p) { return product_tasks(p.c.extent(0), p.c.extent(1)); };
  std::int64_t tasks = 0;
  for (const Product<T>& product : products) tasks += tasks_of(product);
  parallel_for(tasks, threads, custom, [&](int worker, std::int64_t index) {
    const Product<T>* product = products.data();
    for (; index >= tasks_of(*product); ++product) index -= tasks_of(*product);
    const std::int64_t chunks = product_tasks(product->c.extent(0), 1);
    const auto& [a, b, c, packed, bias, activation, add] = *product;
    const std::int64_t row = index % chunks * kRowChunk, column = index / chunks * kRowBlock;
    MatmulTask<T> task{};
    task.a = a.data() + row * a.stride(0);
    if (packed) {
      task.packed = packed + column * a.extent(1);
      task.packed_after = packed_elements(a.extent(1), c.extent(1) - column) - packed_elements(a.extent(1), 1);
    } else {
      task.b = b.data() + column * b.stride(1);
    }
    if (bias) task.bias = bias + column;
    task.activation = activation;
    task.c = &c(row, column);
    task.a_turned = a.extent(1) > 1 && a.stride(1) != 1;
    task.add = add;
    task.a_stride = a.stride(task.a_turned ? 1 : 0);
    task.b_inner_stride = b.stride(0);
    task.b_column_stride = b.extent(1) > 1 ? b.stride(1) : 1;
    task.c_stride = c.stride(0);
    task.rows = std::min(kRowChunk, c.extent(0) - row);
    task.inner = a.extent(1);
    task.columns = static_cast<int>(std::min<std::int64_t>(kRowBlock, c.extent(1) - column));
    if (scratch) task.scratch = reinterpret_cast<T*>(scratch + static_cast<std::size_t>(worker) * product_scratch<T>());
    table.kernels<T>().matmul(task);
  });
}

// One product of matrices stored in two bytes, T: BFloat16 or Float16; packed and bias as for Product. scratch:
// narrow_product_scratch() for each of min(threads, tasks) workers.
constexpr std::size_t narrow_product_scratch() { return round_to_line(kNarrowMatmulScratch * sizeof(float)); }

constexpr std::int64_t narrow_product_tasks(std::int64_t rows, std::int64_t columns) {
  return (rows + kNarrowRows - 1) / kNarrowRows * ((columns + kRowBlock - 1) / kRowBlock);
}

template <class T>
struct NarrowProduct {
  MatrixView<const T> a;
  MatrixView<T> c;
  const T* packed;
  const float* bias = nullptr;
  Activation activation = Activation::none;
};

template <class T>
void run_narrow_product(const NarrowProduct<T>& product, int threads, const ParallelFor& custom,
                        const KernelTable& table, std::byte* scratch) {
  const auto& [a, c, packed, bias, activation] = product;
  const std::int64_t rows = c.extent(0), columns = c.extent(1), chunks = narrow_product_tasks(rows, 1);
  NarrowMatmulTask every{};
  every.type = kTypeOf<T>, every.activation = activation;
  every.inner = a.extent(1), every.a_stride = a.stride(0), every.c_stride = c.stride(0);
  const T *const from = a.data(), *const weights = packed;
  T* const to = c.data();
  const float* const biases = bias;
  parallel_for(narrow_product_tasks(rows, columns), threads, custom, [&](int worker, std::int64_t index) {
    const std::int64_t row = index % chunks * kNarrowRows, column = index / chunks * kRowBlock;
    NarrowMatmulTask task = every;
    task.a = from + row * task.a_stride;
    task.packed = weights + column * task.inner;
    task.c = to + row * task.c_stride + column;
    task.rows = std::min(kNarrowRows, rows - row);
    task.columns = static_cast<int>(std::min<std::int64_t>(kRowBlock, columns - column));
    if (biases) task.bias = biases + column;
    task.scratch = reinterpret_cast<float*>(scratch + static_cast<std::size_t>(worker) * narrow_product_scratch());
    table.narrow_matmul(task);
  });
}

}  // namespace multihead
