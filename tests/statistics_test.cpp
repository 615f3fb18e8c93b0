// SPDX-License-Identifier: Apache-2.0
// Statistics gathered in the pass: against the definitions on weights in long double, over every option.
#include <gtest/gtest.h>

#include <set>

#include "statistics_problem.hpp"

namespace multihead::testing {
namespace {

// The weights of a part's rows, how far each may be off, and the number of keys that each row sees.
struct Truth {
  std::int64_t heads, rows, keys;
  std::vector<double> weights, wobble, seen;

  View4<const double> view(const std::vector<double>& values) const { return {values.data(), {1, heads, rows, keys}}; }
  double at(const std::vector<double>& values, std::int64_t h, std::int64_t i, std::int64_t j) const {
    return j < 0 || j >= keys ? 0 : values[static_cast<std::size_t>((h * rows + i) * keys + j)];
  }
};

// A weight whose score, sum and own arithmetic are off is off by 2 units of the magnitudes and some 16 roundings.
template <class T>
Truth truth_of(const Problem& p, Tensors<T>& in, const Part& part) {
  constexpr long double kEpsilon = std::numeric_limits<Sum<T>>::epsilon();
  Truth truth{p.shape.heads, part.q_end - part.q_begin, part.k_end - part.k_begin, {}, {}, {}};
  truth.weights.assign(static_cast<std::size_t>(truth.heads * truth.rows * truth.keys) + 1, 0);
  truth.wobble = truth.weights;
  for (std::int64_t h = 0; h < truth.heads; ++h)
    for (std::int64_t i = 0; i < truth.rows; ++i) {
      const Row<long double> row(p, in.q.view, in.k.view, {part.b, h, part.q_begin + i});
      truth.seen.push_back(static_cast<double>(row.keys.size()));
      long double mean = row.sink_weight > 0 ? row.sink_weight * std::fabs(row.sink) : 0;
      for (std::size_t at = 0; at < row.keys.size(); ++at) mean += row.weights[at] * row.biased.magnitudes[at];
      for (std::size_t at = 0; at < row.keys.size(); ++at) {
        const auto place = static_cast<std::size_t>((h * truth.rows + i) * truth.keys + row.keys[at] - part.k_begin);
        const long double own = (2 * (row.biased.magnitudes[at] + mean) + 16) * kEpsilon;
        truth.weights[place] = static_cast<double>(row.weights[at]);
        truth.wobble[place] = static_cast<double>(row.weights[at] * own);
      }
    }
  return truth;
}

// Judges the statistics of a part.
template <class T>
class Judged {
 public:
  using Real = Sum<T>;
  static constexpr double kEpsilon = std::numeric_limits<Real>::epsilon();
  // What is lost where weights are below the normal range: each is 0, and its products with it.
  static constexpr double kLost = sizeof(Real) == 4 ? 1e-34 : 1e-300;

  Judged(const Problem& p, Tensors<T>& in, const StatisticsAnswer<T>& answer, const Part& part)
      : p_(p), answer_(answer), part_(part), truth_(truth_of(p, in, part)), position_(Stand(p, part.b, part.q_begin)) {
    exact_ =
        std::make_unique<StatisticsRoom<double>>(std::array{std::int64_t{1}, truth_.heads, truth_.rows}, answer.lists);
    wobble_ =
        std::make_unique<StatisticsRoom<double>>(std::array{std::int64_t{1}, truth_.heads, truth_.rows}, answer.lists);
    statistics_of_weights(truth_.view(truth_.weights), request_of(p, answer.lists, exact_->to, &part),
                          position_.offset);
    statistics_of_weights(truth_.view(truth_.wobble), request_of(p, answer.lists, wobble_->to, &part),
                          position_.offset);
  }

  void judge() const {
    for (std::int64_t h = 0; h < truth_.heads; ++h)
      for (std::int64_t i = 0; i < truth_.rows; ++i) {
        moments(h, i);
        for (auto member : {&RowStatistics<Real>::duplicate_mass, &RowStatistics<Real>::induction_mass})
          mass(got(member, h, i), of(*exact_, member, h, i), of(*wobble_, member, h, i), "pattern");
        items(h, i);
        top(h, i);
      }
  }

 private:
  Real got(View3<Real> RowStatistics<Real>::*member, std::int64_t h, std::int64_t i) const {
    return (answer_.room.to.*member)(part_.b, h, part_.q_begin + i);
  }
  static double of(const StatisticsRoom<double>& room, View3<Real> RowStatistics<Real>::*member, std::int64_t h,
                   std::int64_t i) {
    using S = RowStatistics<Real>;
    const auto& to = room.to;
    return member == &S::duplicate_mass ? to.duplicate_mass(0, h, i) : to.induction_mass(0, h, i);
  }
  void near(double got, double truth, double wobble, const char* name) const {
    EXPECT_LE(distance(got, truth), wobble + kLost)
        << name << " is " << got << ", should be " << truth << " of batch " << part_.b << " " << p_.describe();
  }
  void mass(double got, double truth, double wobble, const char* name) const {
    near(got, truth, wobble + 16 * kEpsilon * truth, name);
  }

  void moments(std::int64_t h, std::int64_t i) const {
    using S = RowStatistics<Real>;
    const double seen = truth_.seen[static_cast<std::size_t>(h * truth_.rows + i)];
    EXPECT_EQ(got(&S::visible, h, i), static_cast<Real>(seen)) << p_.describe();
    double of_entropy = 0, of_squares = 0, off = 0, far_off = 0, all = 0;
    for (std::int64_t j = 0; j < truth_.keys; ++j) {
      const double weight = truth_.at(truth_.weights, h, i, j), wobble = truth_.at(truth_.wobble, h, i, j);
      if (weight == 0) continue;
      of_entropy += wobble * (std::fabs(std::log(weight)) + 1), of_squares += 2 * wobble * weight;
      off += wobble, far_off += wobble * static_cast<double>(std::abs(i + position(0) - j)), all += weight;
    }
    const double entropy = exact_->to.entropy(0, h, i), squares = exact_->to.sum_squares(0, h, i);
    const double far = exact_->to.distance(0, h, i);
    near(got(&S::sum_squares, h, i), squares, of_squares + 16 * kEpsilon * squares, "sum_squares");
    if (seen == 0) {
      EXPECT_TRUE(std::isnan(got(&S::entropy, h, i)) && std::isnan(got(&S::distance, h, i))) << p_.describe();
      return;
    }
    near(got(&S::entropy, h, i), all == 0 ? 0 : entropy, of_entropy + 16 * kEpsilon * (all == 0 ? 0 : entropy + 1),
         "entropy");
    // What is left by a sink that takes all is little, or nothing, which is NaN.
    const double lost = all > 0 ? kLost / all * static_cast<double>(truth_.keys + truth_.rows) : 0;
    if (!(all < 1e4 * kLost && std::isnan(got(&S::distance, h, i))))
      near(got(&S::distance, h, i), far, (far_off + far * off) / all + 16 * kEpsilon * far + lost, "distance");
    // What holds of any weights.
    EXPECT_GE(got(&S::entropy, h, i), 0);
    if (p_.sinks.empty()) {
      EXPECT_LE(got(&S::entropy, h, i), std::log(seen) + 8 * kEpsilon * (1 + std::log(seen)));
      EXPECT_GE(got(&S::sum_squares, h, i), 1 / seen * (1 - 64 * kEpsilon));
    }
    EXPECT_LE(got(&S::sum_squares, h, i), 1 + 16 * kEpsilon);
  }
  std::int64_t position(std::int64_t i) const { return i + part_.q_begin - position_.q_first + position_.offset; }

  void items(std::int64_t h, std::int64_t i) const {
    const std::int64_t b = part_.b, row = part_.q_begin + i;
    const auto& to = answer_.room.to;
    for (std::int64_t c = 0; c < to.class_mass.extent(3); ++c)
      mass(to.class_mass(b, h, row, c), exact_->to.class_mass(0, h, i, c), wobble_->to.class_mass(0, h, i, c), "class");
    // One weight: its truth, and the bits of the weight on request.
    const auto weight = [&](double got, std::int64_t j, const char* name) {
      const bool there = j >= 0 && j < truth_.keys;
      mass(got, truth_.at(truth_.weights, h, i, j), truth_.at(truth_.wobble, h, i, j), name);
      const double on_request = there ? answer_.weights(b, h, row, part_.k_begin + j) : 0;
      EXPECT_EQ(got, on_request) << name << " " << j << " " << p_.describe();
    };
    for (std::size_t c = 0; c < answer_.lists.offsets.size(); ++c)
      weight(to.offset_mass(b, h, row, static_cast<std::int64_t>(c)), position(i) + answer_.lists.offsets[c], "offset");
    for (std::size_t c = 0; c < answer_.lists.keys.size(); ++c)
      weight(to.key_mass(b, h, row, static_cast<std::int64_t>(c)), answer_.lists.keys[c], "key");
  }

  // Every place is filled by a key of its own, none of those left out being heavier, in falling order.
  void top(std::int64_t h, std::int64_t i) const {
    const std::int64_t b = part_.b, row = part_.q_begin + i;
    const auto& to = answer_.room.to;
    const double seen = truth_.seen[static_cast<std::size_t>(h * truth_.rows + i)];
    std::set<std::int64_t> listed;
    double least = 2;
    for (std::int64_t place = 0; place < to.top_keys.extent(3); ++place) {
      const std::int64_t key = to.top_keys(b, h, row, place);
      const double weight = to.top_weights(b, h, row, place);
      if (static_cast<double>(place) >= seen) {
        EXPECT_EQ(key, -1) << p_.describe();
        EXPECT_EQ(weight, 0);
        continue;
      }
      ASSERT_TRUE(key >= part_.k_begin && key < part_.k_end) << key << " " << p_.describe();
      EXPECT_TRUE(listed.insert(key).second) << "twice " << key << " " << p_.describe();
      EXPECT_EQ(weight, answer_.weights(b, h, row, key)) << p_.describe();
      EXPECT_LE(weight, least * (1 + 4 * kEpsilon)) << p_.describe();
      least = weight;
    }
    for (std::int64_t key = part_.k_begin; key < part_.k_end && !listed.empty(); ++key)
      if (!listed.count(key)) {
        EXPECT_LE(answer_.weights(b, h, row, key), least * (1 + 4 * kEpsilon) + kLost) << p_.describe();
      }
  }

  const Problem& p_;
  const StatisticsAnswer<T>& answer_;
  const Part part_;
  const Truth truth_;
  const Stand position_;
  std::unique_ptr<StatisticsRoom<double>> exact_, wobble_;
};

template <class T>
class Statistics : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(Statistics, Types);

TYPED_TEST(Statistics, AsDefinedOverAllOptions) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, 1);
  for (int left = quick_share() ? 40 : 100000; left > 0 && !plan.done(); --left) {
    const Problem p = plan.next();
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    for (Target target : available_targets()) {
      options.target = target;
      const StatisticsAnswer<T> answer(p, in, options, true);
      for (const Part& part : sequences_of(p)) Judged<T>(p, in, answer, part).judge();
      if (this->HasFailure()) FAIL() << target_name(target);
    }
  }
}

}  // namespace
}  // namespace multihead::testing
