// SPDX-License-Identifier: Apache-2.0
// run_products: the bits of a product whether its second matrix is packed, read where it lies or packed for the call,
// for every number of rows that takes tiles of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "core/scratch.hpp"
#include "kernels/matmul.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
class ProductsOf : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ProductsOf, Types);

template <class T>
std::vector<T> drawn(Random& random, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(std::max<std::int64_t>(count, 1)));
  for (T& value : values) value = static_cast<T>(random.normal());
  return values;
}

// a (rows, inner) b (inner, columns), b also packed and turned round.
template <class T>
struct ProductProblem {
  std::int64_t rows, inner, columns;
  std::vector<T> a, b, turned, packed, bias;

  ProductProblem(Random& random, std::array<std::int64_t, 3> extents)
      : rows(extents[0]),
        inner(extents[1]),
        columns(extents[2]),
        a(drawn<T>(random, rows * inner)),
        b(drawn<T>(random, inner * columns)),
        turned(b.size()),
        packed(static_cast<std::size_t>(packed_elements<T>(inner, columns))),
        bias(drawn<T>(random, columns)) {
    for (std::int64_t i = 0; i < inner; ++i)
      for (std::int64_t j = 0; j < columns; ++j) {
        const T element = b[static_cast<std::size_t>(i * columns + j)];
        turned[static_cast<std::size_t>(j * inner + i)] = element;
        packed[static_cast<std::size_t>(j / kRowBlock * kRowBlock * inner + packed_place<T>(i, j % kRowBlock))] =
            element;
      }
  }
  Product<T> product(std::vector<T>& c, Activation activation) const {
    Product<T> made;
    made.a = {a.data(), {rows, inner}}, made.b = {b.data(), {inner, columns}}, made.c = {c.data(), {rows, columns}};
    made.bias = bias.data(), made.activation = activation;
    return made;
  }
  std::vector<T> run(const Product<T>& made, std::vector<T>& c, Target target) const {
    Scratch scratch(product_scratch<T>(), {}, "products_test");
    run_products<T>({&made, 1}, 1, {}, choose_kernels(target), scratch.take<std::byte>(product_scratch<T>()));
    return c;
  }
  T expected(std::int64_t i, std::int64_t j) const {
    long double sum = bias[static_cast<std::size_t>(j)];
    for (std::int64_t k = 0; k < inner; ++k)
      sum += static_cast<long double>(a[static_cast<std::size_t>(i * inner + k)]) *
             b[static_cast<std::size_t>(k * columns + j)];
    return static_cast<T>(sum);
  }
};

TYPED_TEST(ProductsOf, BitsDoNotDependOnPacking) {
  using T = TypeParam;
  Random random(26);
  const double eps = std::numeric_limits<T>::epsilon();
  for (Target target : available_targets())
    for (std::int64_t rows = 1; rows <= 21; ++rows)
      for (std::int64_t columns : {1, 24, 48, 67, 96, 112}) {
        const ProductProblem<T> p(random, {rows, rows % 3 == 0 ? 300 : random.between(0, 40), columns});
        std::vector<T> c(static_cast<std::size_t>(rows * columns));
        Product<T> made = p.product(c, Activation::none);
        const std::vector<T> unpacked = p.run(made, c, target);
        made.packed = p.packed.data();
        EXPECT_EQ(unpacked, p.run(made, c, target)) << target_name(target) << " " << rows << " x " << columns;
        made.packed = nullptr, made.b = {p.turned.data(), {p.inner, columns}, {1, p.inner}};
        EXPECT_EQ(unpacked, p.run(made, c, target)) << target_name(target) << " " << rows << " x " << columns;
        const double bound = (static_cast<double>(p.inner) + 2) * eps * (5 + 4 * static_cast<double>(p.inner));
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < columns; ++j)
            EXPECT_NEAR(unpacked[static_cast<std::size_t>(i * columns + j)], p.expected(i, j), bound);
      }
}

// Rows on their own, in twos and threes, and among others: the activation runs over several registers in step.
TYPED_TEST(ProductsOf, BitsAreARowsOwnWithAnActivation) {
  using T = TypeParam;
  Random random(27);
  const ProductProblem<T> p(random, {21, 270, 107});
  for (Target target : available_targets())
    for (Activation activation : {Activation::none, Activation::gelu, Activation::gelu_tanh, Activation::silu}) {
      std::vector<T> all(static_cast<std::size_t>(p.rows * p.columns));
      p.run(p.product(all, activation), all, target);
      for (std::int64_t count : {1, 2, 3, 5, 9})
        for (std::int64_t first = 0; first + count <= p.rows; first += count) {
          std::vector<T> some(static_cast<std::size_t>(count * p.columns));
          Product<T> made = p.product(some, activation);
          made.a = {p.a.data() + first * p.inner, {count, p.inner}}, made.c = {some.data(), {count, p.columns}};
          p.run(made, some, target);
          EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * p.columns))
              << target_name(target) << " rows from " << first << ", " << count;
        }
    }
}

}  // namespace
}  // namespace multihead::testing
