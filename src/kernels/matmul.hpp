// SPDX-License-Identifier: Apache-2.0
// Matrix products for other rooms: several of them shared out to threads at once.
#pragma once

#include <span>
#include <type_traits>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "core/shares.hpp"
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

// Rows of a task, at most. Of 768 inner floats 96 stay in L2 from panel to panel of b; where a task packs its panel,
// more rows share that.
constexpr std::int64_t kPackedRowChunk = 96, kRowChunk = 192;

constexpr std::int64_t product_panels(std::int64_t columns) { return (columns + kRowBlock - 1) / kRowBlock; }

// Tasks of a product of rows x columns whose b is not packed.
constexpr std::int64_t product_tasks(std::int64_t rows, std::int64_t columns) {
  return (rows + kRowChunk - 1) / kRowChunk * product_panels(columns);
}

template <class T>
std::int64_t product_chunks(const Product<T>& product) {
  const std::int64_t rows = product.c.extent(0);
  return product.packed ? (rows + kPackedRowChunk - 1) / kPackedRowChunk : (rows + kRowChunk - 1) / kRowChunk;
}

template <class T>
std::int64_t product_tasks(const Product<T>& product) {
  return product_chunks(product) * product_panels(product.c.extent(1));
}

template <class T>
constexpr std::size_t product_scratch() {
  return round_to_line(kMatmulScratch * sizeof(T));
}

// Task `index` of a product: panel after panel of b with the first rows, then with the next. Each has as many rows as
// the others, whole tiles of 4; the last what is left.
template <class T>
MatmulTask<T> product_task(const Product<T>& product, std::int64_t index, T* scratch) {
  const auto& [a, b, c, packed, bias, activation, add] = product;
  const std::int64_t chunks = product_chunks(product);
  std::int64_t row = 0, rows = c.extent(0);
  if (chunks > 1) {
    const std::int64_t panels = product_panels(c.extent(1)), each = ((rows + chunks - 1) / chunks + 3) / 4 * 4;
    row = index / panels * each, index %= panels;
    rows = std::min(each, rows - row);
  }
  const std::int64_t column = index * kRowBlock, columns = std::min<std::int64_t>(kRowBlock, c.extent(1) - column);
  const bool turned = a.extent(1) > 1 && a.stride(1) != 1;
  return {.a = a.data() + row * a.stride(0),
          .b = packed ? nullptr : b.data() + column * b.stride(1),
          .c = &c(row, column),
          .a_stride = a.stride(turned ? 1 : 0),
          .b_inner_stride = b.stride(0),
          .b_column_stride = b.extent(1) > 1 ? b.stride(1) : 1,
          .c_stride = c.stride(0),
          .rows = rows,
          .inner = a.extent(1),
          .columns = static_cast<int>(columns),
          .scratch = scratch,
          .packed = packed ? packed + column * a.extent(1) : nullptr,
          .columns_after = c.extent(1) - column - columns,
          .bias = bias ? bias + column : nullptr,
          .activation = activation,
          .a_turned = turned,
          .add = add};
}

// Computes all of them. scratch: product_scratch<T>() for each of min(threads, tasks) workers, or null where all are
// packed. A product's bits do not depend on the others, nor on packing, nor on how rows and columns are cut.
template <class T>
void run_products(std::span<const Product<T>> products, int threads, const ParallelFor& custom,
                  const KernelTable& table, std::byte* scratch) {
  std::int64_t tasks = 0;
  for (const Product<T>& product : products) tasks += product_tasks(product);
  // A task asks for the first lines of the panel after its own, which its worker mostly comes to next.
  parallel_shares(tasks, threads, custom, [&](int worker, std::int64_t index) {
    const Product<T>* product = products.data();
    for (std::int64_t its; index >= (its = product_tasks(*product)); ++product) index -= its;
    T* const own =
        scratch ? reinterpret_cast<T*>(scratch + static_cast<std::size_t>(worker) * product_scratch<T>()) : nullptr;
    table.kernels<T>().matmul(product_task(*product, index, own));
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

// Panels of a task, of which a call has so many with one each: more share their rows as long as each thread gets
// enough.
constexpr int narrow_panels(std::int64_t tasks, int threads) {
  constexpr std::int64_t kEnough = 4;  // tasks a thread
  int panels = kNarrowPanels;
  while (panels > 1 && tasks < kEnough * panels * threads) panels /= 2;
  return panels;
}

// The task that takes a product's rows and columns from these on, at most so many panels.
template <class T, class C>
NarrowMatmulTask narrow_task(const NarrowProduct<T, C>& product, std::int64_t row, std::int64_t column, int panels) {
  const std::int64_t inner = product.a.extent(1), columns = product.c.extent(1);
  NarrowMatmulTask task{};
  task.type = kTypeOf<T>, task.c_type = kTypeOf<C>;
  task.a = product.a.data() + row * product.a.stride(0);
  task.packed = product.packed + column * packed_inner<T>(inner);
  task.panel_elements = packed_inner<T>(inner) * kRowBlock;
  task.packed_end = product.packed + packed_elements<T>(inner, columns);
  task.c = product.c.data() + row * product.c.stride(0) + column;
  task.a_stride = product.a.stride(0), task.c_stride = product.c.stride(0);
  task.rows = std::min(kNarrowRows, product.c.extent(0) - row), task.inner = inner;
  task.columns = static_cast<int>(std::min<std::int64_t>(panels * kRowBlock, columns - column));
  task.bias = product.bias ? product.bias + column : nullptr;
  task.activation = product.activation;
  return task;
}

// Computes all of them. scratch: narrow_product_scratch() for each of min(threads, tasks) workers, tasks being those of
// one panel. A product's bits do not depend on the others, nor on how rows and columns are cut.
template <class T, class C>
void run_narrow_products(std::span<const NarrowProduct<T, C>> products, int threads, const ParallelFor& custom,
                         const KernelTable& table, std::byte* scratch) {
  std::int64_t single = 0, tasks = 0;
  for (const auto& p : products) single += narrow_product_tasks(p.c.extent(0), p.c.extent(1));
  const int panels = narrow_panels(single, threads);
  const std::int64_t width = panels * kRowBlock;
  const auto across = [=](const NarrowProduct<T, C>& p) { return (p.c.extent(1) + width - 1) / width; };
  const auto tasks_of = [=](const NarrowProduct<T, C>& p) {
    return (p.c.extent(0) + kNarrowRows - 1) / kNarrowRows * across(p);
  };
  for (const auto& p : products) tasks += tasks_of(p);
  parallel_shares(tasks, threads, custom, [&](int worker, std::int64_t index) {
    const NarrowProduct<T, C>* product = products.data();
    for (; index >= tasks_of(*product); ++product) index -= tasks_of(*product);
    NarrowMatmulTask task =
        narrow_task(*product, index / across(*product) * kNarrowRows, index % across(*product) * width, panels);
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
