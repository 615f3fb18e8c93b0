// SPDX-License-Identifier: Apache-2.0
// Norms and lengths along vectors: the documented order of every sum, on every target.
#include <gtest/gtest.h>

#include "kernels/table.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
class Norm : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Norm, Types);

// 16 chains, element i in chain i mod 16, joined by the tree.
template <class T, class Add>
T chained(const std::vector<T>& x, const Add& add) {
  T chains[16] = {};
  for (std::size_t i = 0; i < x.size(); ++i) chains[i % 16] = add(x[i], chains[i % 16]);
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) chains[i] = chains[i] + chains[i + step];
  return chains[0];
}

template <class T>
T squares(const std::vector<T>& x, bool fma) {
  return chained<T>(x, [fma](T e, T sum) {
    const T square = e * e;
    return fma ? std::fma(e, e, sum) : square + sum;
  });
}

// The norm in T, rounding by rounding.
template <class T>
std::vector<T> normed(std::vector<T> x, const NormTask<T>& task, bool fma) {
  const T width = static_cast<T>(x.size());
  if (task.centered) {
    const T mean = chained<T>(x, [](T e, T sum) { return sum + e; }) / width;
    for (T& e : x) e = e - mean;
  }
  const T factor = T(1) / std::sqrt(squares(x, fma) / width + task.epsilon);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = x[i] * factor;
    const T weighted = task.weight ? x[i] * task.weight[i] : x[i];
    x[i] = task.weight && task.bias && fma ? std::fma(x[i], task.weight[i], task.bias[i])
           : task.bias                     ? weighted + task.bias[i]
                                           : weighted;
  }
  return x;
}

TYPED_TEST(Norm, EveryWidthHasTheDocumentedBits) {
  using T = TypeParam;
  Random random(3);
  for (std::int64_t width = 1; width <= 70; ++width)
    for (bool centered : {false, true})
      for (int parts = 0; parts < 4; ++parts) {
        Tensor<T> x({1, 2, 3, width}, true, 2);
        x.fill_normal(random, 3);
        std::vector<T> weight, bias;
        for (std::int64_t c = 0; c < width; ++c)
          weight.push_back(static_cast<T>(random.normal())), bias.push_back(static_cast<T>(random.normal()));
        NormTask<T> task{
            {x.view.data(), x.view.stride(2), x.view.stride(1), 3, 2}, width, centered, T(1e-5), nullptr, nullptr};
        if (parts & 1) task.weight = weight.data();
        if (parts & 2) task.bias = bias.data();
        const std::vector<T> before = x.values;
        for (Target target : available_targets()) {
          const bool fma = target != Target::baseline;
          x.values = before;
          find_kernels(target)->kernels<T>().normalise(task);
          const std::vector<T> after = x.values;
          std::vector<T> wanted = before;
          for (std::int64_t h = 0; h < 2; ++h)
            for (std::int64_t i = 0; i < 3; ++i) {
              const auto first = before.begin() + i * x.view.stride(2) + h * x.view.stride(1);
              const std::vector<T> row = normed(std::vector<T>(first, first + width), task, fma);
              std::copy(row.begin(), row.end(), wanted.begin() + (first - before.begin()));
            }
          EXPECT_EQ(after, wanted) << target_name(target) << " " << width << " " << centered << " " << parts;
        }
      }
}

TYPED_TEST(Norm, LengthsHaveTheDocumentedBits) {
  using T = TypeParam;
  Random random(5);
  for (std::int64_t width = 0; width <= 70; ++width) {
    Tensor<T> x({1, 1, 4, width}, false, 3);
    x.fill_normal(random);
    for (Target target : available_targets()) {
      std::vector<T> norms(8, T(77));
      find_kernels(target)->kernels<T>().lengths({{x.view.data(), x.view.stride(2), 0, 4, 1}, width, norms.data(), 2});
      for (std::int64_t i = 0; i < 4; ++i) {
        std::vector<T> row;
        for (std::int64_t c = 0; c < width; ++c) row.push_back(x.view(0, 0, i, c));
        EXPECT_EQ(norms[static_cast<std::size_t>(2 * i)], std::sqrt(squares(row, target != Target::baseline)));
        EXPECT_EQ(norms[static_cast<std::size_t>(2 * i + 1)], T(77));
      }
    }
  }
}

// A constant vector has no deviation: eps alone keeps it finite, and the result is the bias.
TYPED_TEST(Norm, ConstantVectorsAreZeroBeforeTheBias) {
  using T = TypeParam;
  for (Target target : available_targets()) {
    std::vector<T> x(32, T(5)), bias(32, T(0.25));
    const NormTask<T> task{{x.data(), 32, 32, 1, 1}, 32, true, T(1e-6), nullptr, bias.data()};
    find_kernels(target)->kernels<T>().normalise(task);
    EXPECT_EQ(x, bias) << target_name(target);
  }
}

}  // namespace
}  // namespace multihead::testing
