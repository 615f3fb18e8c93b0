// SPDX-License-Identifier: Apache-2.0
// Matrix products for other rooms: several of them shared out to threads at once.
#pragma once

#include <span>
#include <type_traits>

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

// Elements of the inner axis that stand side by side in a packed line: two of bfloat16, as its instructions read them.
template <class T>
constexpr std::int64_t kPackedTogether = std::is_same_v<T, BFloat16> ? 2 : 1;

// Elements of a packed column: of bfloat16 with zeros up to a whole tile of pairs, 16 lines.
template <class T>
constexpr std::int64_t packed_inner(std::int64_t inner) {
  constexpr std::int64_t kWhole = kPackedTogether<T> == 1 ? 1 : 32;
  return (inner + kWhole - 1) / kWhole * kWhole;
}

// Where element (i, column) of a packed block stands, from the block's first. Blocks lie kRowBlock * packed_inner<T>()
// elements apart.
template <class T>
constexpr std::int64_t packed_place(std::int64_t i, std::int64_t column) {
  constexpr std::int64_t kTogether = kPackedTogether<T>;
  return (i / kTogether * kRowBlock + column) * kTogether + i % kTogether;
}

// Elements of a packed matrix, which pack_columns() fills.
template <class T>
constexpr std::int64_t packed_elements(std::int64_t inner, std::int64_t columns) {
  return (columns + kRowBlock - 1) / kRowBlock * kRowBlock * packed_inner<T>(inner);
}

// Rows of a task: of 256 inner elements they stay in L2 from panel to panel of b.
constexpr std::int64_t kRowChunk = 192;

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
    const std::int64_t panels = product_tasks(1, product->c.extent(1));
    const auto& [a, b, c, packed, bias, activation, add] = *product;
    const std::int64_t row = index / panels * kRowChunk, column = index % panels * kRowBlock;
    MatmulTask<T> task{};
    task.a = a.data() + row * a.stride(0);
    if (packed) {
      task.packed = packed + column * a.extent(1);
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
    task.columns_after = c.extent(1) - column - task.columns;
    if (scratch) task.scratch = reinterpret_cast<T*>(scratch + static_cast<std::size_t>(worker) * product_scratch<T>());
    table.kernels<T>().matmul(task);
  });
}

// c = activation(a b + bias) of matrices stored in two bytes, T: BFloat16 or Float16, sums, bias and activation in
// float. c: of T, rounded once, or of float. packed as NarrowMatmulTask says; bias (columns) or null.
template <class T, class C = T>
struct NarrowProduct {
  MatrixView<const T> a;
  MatrixView<C> c;
  const T* packed;
  const float* bias = nullptr;
  Activation activation = Activation::none;
};

constexpr std::size_t narrow_product_scratch() { return round_to_line(kNarrowMatmulScratch * sizeof(float)); }

constexpr std::int64_t narrow_product_tasks(std::int64_t rows, std::int64_t columns) {
  return (rows + kNarrowRows - 1) / kNarrowRows * ((columns + kRowBlock - 1) / kRowBlock);
}

// The task that takes a product's rows and columns from these on.
template <class T, class C>
NarrowMatmulTask narrow_task(const NarrowProduct<T, C>& product, std::int64_t row, std::int64_t column) {
  const std::int64_t inner = product.a.extent(1), columns = product.c.extent(1);
  NarrowMatmulTask task{};
  task.type = kTypeOf<T>, task.c_type = kTypeOf<C>;
  task.a = product.a.data() + row * product.a.stride(0);
  task.packed = product.packed + column * packed_inner<T>(inner);
  task.packed_end = product.packed + packed_elements<T>(inner, columns);
  task.c = product.c.data() + row * product.c.stride(0) + column;
  task.a_stride = product.a.stride(0), task.c_stride = product.c.stride(0);
  task.rows = std::min(kNarrowRows, product.c.extent(0) - row), task.inner = inner;
  task.columns = static_cast<int>(std::min<std::int64_t>(kRowBlock, columns - column));
  task.bias = product.bias ? product.bias + column : nullptr;
  task.activation = product.activation;
  return task;
}

// Computes all of them. scratch: narrow_product_scratch() for each of min(threads, tasks) workers. A product's bits do
// not depend on the others, nor on how rows and columns are cut.
template <class T, class C>
void run_narrow_products(std::span<const NarrowProduct<T, C>> products, int threads, const ParallelFor& custom,
                         const KernelTable& table, std::byte* scratch) {
  const auto tasks_of = [](const NarrowProduct<T, C>& p) { return narrow_product_tasks(p.c.extent(0), p.c.extent(1)); };
  std::int64_t tasks = 0;
  for (const NarrowProduct<T, C>& product : products) tasks += tasks_of(product);
  parallel_for(tasks, threads, custom, [&](int worker, std::int64_t index) {
    const NarrowProduct<T, C>* product = products.data();
    for (; index >= tasks_of(*product); ++product) index -= tasks_of(*product);
    const std::int64_t panels = narrow_product_tasks(1, product->c.extent(1));
    NarrowMatmulTask task = narrow_task(*product, index / panels * kNarrowRows, index % panels * kRowBlock);
    task.scratch = reinterpret_cast<float*>(scratch + static_cast<std::size_t>(worker) * narrow_product_scratch());
    table.narrow_matmul(task);
  });
}

template <class T, class C>
void run_narrow_product(const NarrowProduct<T, C>& product, int threads, const ParallelFor& custom,
                        const KernelTable& table, std::byte* scratch) {
  run_narrow_products(std::span<const NarrowProduct<T, C>>(&product, 1), threads, custom, table, scratch);
}

}  // namespace multihead
