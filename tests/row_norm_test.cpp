// SPDX-License-Identifier: Apache-2.0
// row_norm: each kind against float64, aliases, and bits over rows, threads and targets.
#include <gtest/gtest.h>

#include <map>

#include "multihead/linear.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

using Kind = HeadNorm::Kind;
constexpr Kind kKinds[] = {Kind::none, Kind::rms, Kind::rms_plus_1, Kind::layer};

template <class T>
class RowNormOf : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(RowNormOf, Types);

template <class T>
struct NormProblem {
  std::int64_t rows, width, padding;
  HeadNorm norm;
  bool summed, weighted, biased;
  std::vector<T> x, residual, weight, bias;

  NormProblem(Random& random, Kind kind, std::int64_t given_rows, std::int64_t given_width, unsigned parts)
      : rows(given_rows), width(given_width), padding(random.between(0, 2)), norm{kind, 1e-5} {
    summed = parts & 1, weighted = (parts & 2) && kind != Kind::none, biased = (parts & 4) && kind == Kind::layer;
    for (std::int64_t i = 0; i < rows * stride(); ++i)
      x.push_back(static_cast<T>(random.normal() + 1)), residual.push_back(static_cast<T>(random.normal() * 2));
    for (std::int64_t c = 0; c < width; ++c)
      weight.push_back(static_cast<T>(random.normal())), bias.push_back(static_cast<T>(random.normal()));
  }
  std::int64_t stride() const { return width + padding; }
  RowNorm<T> how() const {
    return {norm, weighted ? std::span<const T>(weight) : std::span<const T>(),
            biased ? std::span<const T>(bias) : std::span<const T>()};
  }
  template <class E>
  MatrixView<E> view(E* data) const {
    return {data, {rows, width}, {stride(), 1}};
  }
  MatrixView<const T> other() const { return summed ? view<const T>(residual.data()) : MatrixView<const T>(); }
  std::vector<T> run(const LayerOptions& options = {}) const {
    std::vector<T> y(x.size(), T(77));
    row_norm(view<const T>(x.data()), other(), how(), view<T>(y.data()), options);
    return y;
  }
};

template <class T>
std::vector<long double> truth(const NormProblem<T>& p, std::int64_t row) {
  std::vector<long double> y;
  long double mean = 0, squares = 0;
  const long double n = static_cast<long double>(p.width);
  for (std::int64_t c = 0; c < p.width; ++c) {
    const auto at = static_cast<std::size_t>(row * p.stride() + c);
    y.push_back(p.summed ? p.x[at] + p.residual[at] : p.x[at]);  // the sum is rounded once, to T
    mean += y.back() / n;
  }
  if (p.norm.kind == Kind::none) return y;
  if (p.norm.kind != Kind::layer) mean = 0;
  for (long double e : y) squares += (e - mean) * (e - mean) / n;
  for (std::size_t c = 0; c < y.size(); ++c) {
    const long double weight = !p.weighted ? 1 : p.weight[c] + (p.norm.kind == Kind::rms_plus_1 ? 1.0L : 0.0L);
    y[c] = (y[c] - mean) / std::sqrt(squares + p.norm.eps) * weight + (p.biased ? p.bias[c] : T(0));
  }
  return y;
}

TYPED_TEST(RowNormOf, EveryWidthIsWithinTheBound) {
  using T = TypeParam;
  Random random(31);
  const double eps = std::numeric_limits<T>::epsilon();
  double worst = 0;
  for (std::int64_t width = 1; width <= 400; width += width < 70 ? 1 : 110)
    for (Kind kind : kKinds)
      for (unsigned parts = 0; parts < 8; ++parts) {
        const NormProblem<T> p(random, kind, 3, width, parts);
        for (Target target : available_targets()) {
          const std::vector<T> y = p.run({.target = target});
          for (std::int64_t r = 0; r < p.rows; ++r) {
            const std::vector<long double> wanted = truth(p, r);
            long double largest = 1;
            for (long double e : wanted) largest = std::max(largest, std::fabs(e));
            for (std::int64_t c = 0; c < width; ++c)
              worst = std::max(worst, distance(y[static_cast<std::size_t>(r * p.stride() + c)],
                                               wanted[static_cast<std::size_t>(c)]) /
                                          static_cast<double>(eps * largest));
            for (std::int64_t c = width; c < p.stride(); ++c)
              EXPECT_EQ(y[static_cast<std::size_t>(r * p.stride() + c)], T(77));
          }
          EXPECT_LE(worst, 12) << target_name(target) << " width " << width << " kind " << static_cast<int>(kind);
        }
      }
  std::printf("row_norm, %zu bytes: worst error %.2f eps\n", sizeof(T), worst);
}

TYPED_TEST(RowNormOf, BitsAreARowsOwnAndOfTheFamily) {
  using T = TypeParam;
  Random random(32);
  for (Kind kind : kKinds) {
    const NormProblem<T> p(random, kind, 101, 77, 7);
    std::map<bool, std::vector<T>> of_family;
    for (Target target : available_targets()) {
      const std::vector<T> all = p.run({.target = target});
      EXPECT_EQ(all, of_family.emplace(target == Target::baseline, all).first->second) << target_name(target);
      EXPECT_EQ(all, p.run({.threads = 4, .target = target}));
      NormProblem<T> one = p;  // the last row alone
      one.rows = 1;
      one.x.erase(one.x.begin(), one.x.begin() + 100 * p.stride());
      one.residual.erase(one.residual.begin(), one.residual.begin() + 100 * p.stride());
      const std::vector<T> alone = one.run({.target = target});
      EXPECT_TRUE(std::equal(alone.begin(), alone.begin() + p.width, all.begin() + 100 * p.stride()));
      std::vector<T> in_x = p.x, in_residual = p.residual, wanted = all;
      row_norm(p.template view<const T>(in_x.data()), p.other(), p.how(), p.template view<T>(in_x.data()),
               {.target = target});
      row_norm(p.template view<const T>(p.x.data()), p.template view<const T>(in_residual.data()), p.how(),
               p.template view<T>(in_residual.data()), {.target = target});
      for (std::int64_t r = 0; r < p.rows; ++r)
        for (std::int64_t c = 0; c < p.width; ++c) {
          const auto at = static_cast<std::size_t>(r * p.stride() + c);
          ASSERT_EQ(in_x[at], all[at]) << target_name(target);
          ASSERT_EQ(in_residual[at], all[at]) << target_name(target);
        }
    }
  }
}

// A stride of 0 reads one row for all; rows of nothing and no rows are nothing.
TYPED_TEST(RowNormOf, RepeatedAndEmptyRows) {
  using T = TypeParam;
  const std::vector<T> x{1, 2, 3, 4, 5, 6}, once{10, 20};
  std::vector<T> y(6);
  row_norm({x.data(), {3, 2}}, {once.data(), {3, 2}, {0, 1}}, {}, MatrixView<T>(y.data(), {3, 2}));
  EXPECT_EQ(y, (std::vector<T>{11, 22, 13, 24, 15, 26}));
  row_norm({x.data(), {0, 2}}, {}, {}, MatrixView<T>(y.data(), {0, 2}));
  row_norm({x.data(), {3, 0}}, {}, {.norm = {Kind::layer}}, MatrixView<T>(y.data(), {3, 0}));
  EXPECT_EQ(y, (std::vector<T>{11, 22, 13, 24, 15, 26}));
}

}  // namespace
}  // namespace multihead::testing
