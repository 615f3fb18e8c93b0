// SPDX-License-Identifier: Apache-2.0
// Both distributions with everything that can be asked of them, over every option: bits alone, together, on other
// threads and targets and in scratch of the exact size; norm-weighted numbers of every sequence against the definition.
#include <gtest/gtest.h>

#include "allocations.hpp"
#include "statistics_problem.hpp"

namespace multihead::testing {
namespace {

bool is_packed(const Problem& p) { return !p.cu_seqlens_q.empty() || !p.q_segments.empty(); }

// n_j of (batch, heads, kv_len); some are 0.
template <class Real>
std::vector<Real> norms_of(const Problem& p) {
  Random random(p.seed + 99);
  std::vector<Real> norms;
  for (std::int64_t left = p.shape.batch * p.shape.heads * p.shape.kv_len; left >= 0; --left)
    norms.push_back(random.chance(15) ? Real(0) : static_cast<Real>(random.uniform() * 3));
  return norms;
}

// Everything of one call, of a problem or of a part of it.
template <class T>
struct Whole {
  using Real = Sum<T>;
  View4<T> q, k, v;
  StatisticsLists lists;
  StatisticsRoom<Real> plain, weighted;
  std::array<std::vector<Real>, 2> received, map;
  Tensor<T> out;
  std::vector<Real> lse_values;
  View3<Real> lse;
  StatisticsRequest<Real> request;

  Whole(const Problem& p, Tensors<T>& in, const std::vector<Real>& norms, std::int64_t bin)
      : Whole(p, {in.q.view, in.k.view, in.v.view}, nullptr) {
    request.norms = {norms.data(), {q.extent(0), q.extent(1), k.extent(2)}};
    if (bin == 0) return;
    const std::array<std::int64_t, 4> cells{q.extent(0), q.extent(1), map_cells(q.extent(2), bin),
                                            map_cells(k.extent(2), bin)};
    for (auto& values : map) values.assign(static_cast<std::size_t>(cells[0] * cells[1] * cells[2] * cells[3]) + 1, 77);
    request.bin = bin;
    request.plain.map = {map[0].data(), cells}, request.norm_weighted.map = {map[1].data(), cells};
  }
  Whole(const Problem& p, Tensors<T>& in, const std::vector<Real>& norms, const Part& part)
      : Whole(
            p,
            {rows_of(in.q.view, part.b, part.q_begin, part.q_end), rows_of(in.k.view, part.b, part.k_begin, part.k_end),
             rows_of(in.v.view, part.b, part.k_begin, part.k_end)},
            &part) {
    const std::int64_t heads = q.extent(1), keys = p.shape.kv_len;
    request.norms = {
        norms.data() + part.b * heads * keys + part.k_begin, {1, heads, k.extent(2)}, {heads * keys, keys, 1}};
  }
  Whole(const Whole&) = delete;

  void run(const AttentionOptions& options) {
    attention(View4<const T>(q), View4<const T>(k), View4<const T>(v), out.view, lse, {}, request, options);
  }
  std::uint64_t bits() const {
    std::uint64_t hash = hash_bits(request.plain.received, hash_bits(request.norm_weighted.received));
    for (std::int64_t b = 0; b < q.extent(0); ++b)
      for (const StatisticsRoom<Real>* room : {&plain, &weighted})
        hash = hash * 31 + hash_statistics(*room, Part{b, 0, q.extent(2), 0, 0});
    if (request.bin > 0) hash = hash_bits(request.plain.map, hash_bits(request.norm_weighted.map, hash));
    return hash;
  }

 private:
  struct Operands {
    View4<T> q, k, v;
  };
  Whole(const Problem& p, const Operands& in, const Part* part)
      : q(in.q),
        k(in.k),
        v(in.v),
        lists(p),
        plain({q.extent(0), q.extent(1), q.extent(2)}, lists, p.seed % 2 == 1),
        weighted({q.extent(0), q.extent(1), q.extent(2)}, lists, p.seed % 2 == 0),
        out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)}),
        lse_values(static_cast<std::size_t>(q.extent(0) * q.extent(1) * q.extent(2)) + 1),
        lse(lse_values.data(), {q.extent(0), q.extent(1), q.extent(2)}),
        request(request_of(p, lists, plain.to, part)) {
    request.norm_weighted = weighted.to;
    const std::array<std::int64_t, 3> columns{q.extent(0), q.extent(1), k.extent(2)};
    for (auto& values : received) values.assign(static_cast<std::size_t>(columns[0] * columns[1] * columns[2]) + 1, 77);
    request.plain.received = {received[0].data(), columns};
    request.norm_weighted.received = {received[1].data(), columns};
  }
};

// Scratch of the exact size, at a place that is not aligned; nothing else is allocated.
template <class T>
void expect_scratch(const Problem& p, Whole<T>& whole, AttentionOptions options, std::uint64_t bits) {
  const std::size_t bytes = attention_scratch_bytes(p.shape, options, false, whole.request);
  std::vector<std::byte> memory(bytes + 1);
  options.scratch = std::span(memory).subspan(1);
  const std::int64_t before = allocations;
  whole.run(options);
  const std::int64_t used = allocations - before;
  EXPECT_EQ(used, 0) << p.describe();
  EXPECT_EQ(whole.bits(), bits) << p.describe();
}

// A part's rows and keys are those of a call of its own.
template <class T>
void expect_part(const Problem& p, const Whole<T>& whole, const Whole<T>& alone, const Part& part) {
  const std::int64_t rows = part.q_end - part.q_begin;
  EXPECT_EQ(hash_statistics(alone.plain, {0, 0, rows, 0, 0}), hash_statistics(whole.plain, part)) << p.describe();
  EXPECT_EQ(hash_statistics(alone.weighted, {0, 0, rows, 0, 0}), hash_statistics(whole.weighted, part)) << p.describe();
  for (auto member : {&StatisticsRequest<Sum<T>>::plain, &StatisticsRequest<Sum<T>>::norm_weighted}) {
    const auto& together = (whole.request.*member).received;
    const auto& own = (alone.request.*member).received;
    for (std::int64_t h = 0; h < own.extent(1); ++h)
      for (std::int64_t j = 0; j < own.extent(2); ++j) {
        const Sum<T> a = together(part.b, h, part.k_begin + j), b = own(0, h, j);
        ASSERT_EQ(std::memcmp(&a, &b, sizeof a), 0) << "received " << a << " alone " << b << " " << p.describe();
      }
  }
}

// p_ij n_j / sum p n of a part in the range of logarithms, and how far a row's may be off relative to itself.
template <class T>
struct WeightedTruth {
  std::vector<double> weights, slack, seen;

  WeightedTruth(const Problem& p, Tensors<T>& in, const std::vector<Sum<T>>& norms, const Part& part) {
    const std::int64_t keys = part.k_end - part.k_begin;
    for (std::int64_t h = 0; h < p.shape.heads; ++h)
      for (std::int64_t i = part.q_begin; i < part.q_end; ++i) {
        const Row<long double> row(p, in.q.view, in.k.view, {part.b, h, i});
        std::vector<long double> scores;
        long double largest = -std::numeric_limits<long double>::infinity(), sum = 0, worst = 0;
        for (std::size_t at = 0; at < row.keys.size(); ++at) {
          const auto place = static_cast<std::size_t>((part.b * p.shape.heads + h) * p.shape.kv_len + row.keys[at]);
          scores.push_back(row.biased.values[at] + std::log(static_cast<long double>(norms[place])));
          largest = std::max(largest, scores.back());
        }
        for (long double& x : scores) sum += x = std::isinf(largest) ? 0 : std::exp(x - largest);
        const std::size_t line = weights.size();
        weights.resize(line + static_cast<std::size_t>(keys));
        for (std::size_t at = 0; at < row.keys.size(); ++at) {
          double& to = weights[line + static_cast<std::size_t>(row.keys[at] - part.k_begin)];
          to = static_cast<double>(sum == 0 ? 0 : scores[at] / sum);
          if (to > 0) worst = std::max(worst, row.biased.magnitudes[at]);
        }
        seen.push_back(static_cast<double>(row.keys.size()));
        slack.push_back(static_cast<double>(12 * worst + 64) * std::numeric_limits<Sum<T>>::epsilon());
      }
    weights.push_back(0);
  }
};

// Every norm-weighted number of a part against the plain definition on the truth.
template <class T>
void expect_weighted_truth(const Problem& p, Tensors<T>& in, const Whole<T>& whole, const std::vector<Sum<T>>& norms,
                           const Part& part) {
  const WeightedTruth<T> truth(p, in, norms, part);
  const std::int64_t heads = p.shape.heads, rows = part.q_end - part.q_begin, keys = part.k_end - part.k_begin;
  StatisticsRoom<double> room({1, heads, rows}, whole.lists);
  StatisticsRequest<double> wanted = request_of(p, whole.lists, room.to, &part);
  std::vector<double> received(static_cast<std::size_t>(heads * keys) + 1);
  wanted.plain.received = {received.data(), {1, heads, keys}};
  const Stand stand(p, part.b, part.q_begin);
  statistics_of_weights(View4<const double>(truth.weights.data(), {1, heads, rows, keys}), wanted, stand.offset);
  const RowStatistics<Sum<T>>& got = whole.request.norm_weighted;
  const RowStatistics<double>& w = wanted.plain;
  double most = 0, excess = 0;
  const auto meet = [&](double a, double b, double slack) {
    excess = std::max(excess, distance(a, b) - (std::isnan(slack) ? 0 : slack) - 1e-36);
  };
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t b = part.b, row = part.q_begin + i;
      const double slack = truth.slack[static_cast<std::size_t>(h * rows + i)];
      most = std::max(most, slack);
      const auto one = [&](const auto& mine, const auto& theirs, double more) {
        meet(mine(b, h, row), theirs(0, h, i), slack * (2 * theirs(0, h, i) + more));
      };
      meet(got.visible(b, h, row), truth.seen[static_cast<std::size_t>(h * rows + i)], 0);
      one(got.entropy, w.entropy, 4), one(got.distance, w.distance, 2 * static_cast<double>(keys + rows));
      one(got.sum_squares, w.sum_squares, 0);
      one(got.duplicate_mass, w.duplicate_mass, 0), one(got.induction_mass, w.induction_mass, 0);
      const auto each = [&](const auto& mine, const auto& theirs) {
        for (std::int64_t c = 0; c < mine.extent(3); ++c)
          meet(mine(b, h, row, c), theirs(0, h, i, c), 2 * slack * theirs(0, h, i, c));
      };
      each(got.offset_mass, w.offset_mass), each(got.key_mass, w.key_mass), each(got.class_mass, w.class_mass);
      each(got.top_weights, w.top_weights);
    }
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t j = 0; j < keys; ++j)
      meet(got.received(part.b, h, part.k_begin + j), w.received(0, h, j), 2 * most * w.received(0, h, j));
  EXPECT_LE(excess, 0) << "batch " << part.b << " from row " << part.q_begin << " " << p.describe();
}

template <class T>
class StatisticsWhole : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16>;
TYPED_TEST_SUITE(StatisticsWhole, Types);

TYPED_TEST(StatisticsWhole, OverEveryOption) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, 1);
  int packed = 0;
  for (int left = quick_share() ? 40 : 400; left > 0 && !plan.done() && !this->HasFailure(); --left) {
    const Problem p = plan.next();
    Tensors<T> in(p);
    const auto norms = norms_of<Sum<T>>(p);
    const std::int64_t bin = is_packed(p) ? 0 : Random(p.seed).template pick<std::int64_t>({16, 32, 64, 128, 384});
    packed += is_packed(p) ? 1 : 0;
    std::uint64_t of_fma = 0;
    for (Target target : available_targets()) {
      AttentionOptions options = p.options();
      options.target = target, options.threads = 1;
      Whole<T> whole(p, in, norms, bin);
      whole.run(options);
      const std::uint64_t bits = whole.bits();
      EXPECT_EQ(hash_bits(whole.lse, hash_bits(whole.out.view)), Answer<T>(in, options).bits()) << p.describe();
      if (!has_own_bits(target, kTypeOf<T>)) {
        EXPECT_TRUE(of_fma == 0 || of_fma == bits) << target_name(target) << " " << p.describe();
        of_fma = bits;
      }
      Whole<T> other(p, in, norms, bin);
      expect_scratch(p, other, options, bits);
      options.threads = 3;
      other.run(options);
      EXPECT_EQ(other.bits(), bits) << "threads " << p.describe();
      for (const Part& part : sequences_of(p)) {
        const Problem own = part_of(p, part);
        AttentionOptions own_options = own.options();
        own_options.target = target;
        Whole<T> alone(p, in, norms, part);
        alone.run(own_options);
        expect_part(p, whole, alone, part);
        expect_weighted_truth(p, in, whole, norms, part);
      }
    }
  }
  EXPECT_GT(packed, 3);
}

// A class of many keys is gone over whole, one of few key by key: as the sum of classes that are both of few.
TEST(StatisticsClasses, ManyKeysAndFew) {
  constexpr std::int64_t kLength = 300, kClasses = 6;
  Tensor<float> q({1, 2, kLength, 16}), k({1, 2, kLength, 16}), v({1, 2, kLength, 16}), out(q.view.extents());
  Random random(4);
  for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random, 2);
  // Every key, none, each key of a block but one, 24 and 25 of each block, and every third.
  std::vector<std::uint32_t> classes;
  for (std::int64_t j = 0; j < kLength; ++j)
    classes.push_back(1u | (j % 128 != 77 ? 4u : 0u) | (j % 128 < 24 ? 8u : 0u) | (j % 128 < 25 ? 16u : 0u) |
                      (j % 3 == 0 ? 32u : 0u));
  for (bool causal : {false, true})
    for (Target target : available_targets()) {
      const std::vector<std::int64_t> lengths{kLength - 9};
      const AttentionOptions options{.causal = causal, .lengths = lengths, .target = target};
      std::vector<float> masses(2 * kLength * kClasses), weights(2 * kLength * kLength), squares(2 * kLength);
      StatisticsRequest<float> request;
      request.key_classes = {classes.data(), {1, kLength}};
      request.plain.class_mass = {masses.data(), {1, 2, kLength, kClasses}};
      WeightsRequest<float> wanted;
      wanted.per_head = {weights.data(), {1, 2, kLength, kLength}};
      const auto ask = [&] {
        attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), out.view, {},
                  wanted, request, options);
      };
      ask();
      for (std::int64_t row = 0; row < 2 * kLength; ++row)
        for (std::int64_t c = 0; c < kClasses; ++c) {
          double sum = 0;
          for (std::int64_t j = 0; j < kLength; ++j)
            if (classes[static_cast<std::size_t>(j)] >> c & 1)
              sum += static_cast<double>(weights[static_cast<std::size_t>(row * kLength + j)]);
          EXPECT_NEAR(masses[static_cast<std::size_t>(row * kClasses + c)], sum, 1e-6) << c << " of row " << row;
        }
    }
}

// The bits do not say how a class was added up: 25 of a block with one key of weight 0 are the 24.
TEST(StatisticsClasses, BothWaysHaveTheSameBits) {
  constexpr std::int64_t kLength = 128;
  Tensor<float> q({1, 1, kLength, 16}), k({1, 1, kLength, 16}), v({1, 1, kLength, 16}), out(q.view.extents());
  Random random(5);
  for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random, 1);
  std::vector<std::uint8_t> keep(kLength, 1);
  for (std::size_t j = 1; j < kLength; j += 4) keep[j] = 0;
  // Class 0: few keys that are seen. Class 1: those and every key that is hidden.
  std::vector<std::uint32_t> classes(kLength, 0);
  for (std::size_t j = 0; j < kLength; ++j) classes[j] = keep[j] == 0 ? 2u : j % 6 == 0 ? 3u : 0u;
  for (Target target : available_targets()) {
    AttentionOptions options{.target = target};
    options.keep_mask = MatrixView<const std::uint8_t>(keep.data(), {1, kLength});  // kept where 1
    std::vector<float> masses(2 * kLength);
    StatisticsRequest<float> request;
    request.key_classes = {classes.data(), {1, kLength}};
    request.plain.class_mass = {masses.data(), {1, 1, kLength, 2}};
    attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), out.view, {}, {},
              request, options);
    for (std::size_t row = 0; row < kLength; ++row) EXPECT_EQ(masses[2 * row], masses[2 * row + 1]) << row;
  }
}

// A sink so far above the scores that nothing is left of the weights: distance is NaN, all else is that of zeros.
TEST(StatisticsSinks, ThatTakeEverything) {
  const auto of_sink = [](double sink) {
    const std::vector<float> x(4 * 8, 0.0f);
    std::vector<float> out(4 * 8), numbers(4 * 5), top(4);
    std::vector<std::int64_t> keys(4);
    StatisticsRequest<float> request;
    RowStatistics<float>& to = request.plain;
    int next = 0;
    for (View3<float>* view : {&to.visible, &to.entropy, &to.sum_squares, &to.distance, &to.received})
      *view = {numbers.data() + 4 * next++, {1, 1, 4}};
    to.top_keys = {keys.data(), {1, 1, 4, 1}}, to.top_weights = {top.data(), {1, 1, 4, 1}};
    const std::vector<double> sinks{sink};
    const View4<const float> in(x.data(), {1, 1, 4, 8});
    attention(in, in, in, View4<float>(out.data(), {1, 1, 4, 8}), {}, {}, request, {.sinks = sinks});
    EXPECT_EQ(to.visible(0, 0, 2), 4);
    return std::array<float, 5>{to.entropy(0, 0, 2), to.sum_squares(0, 0, 2), to.distance(0, 0, 2),
                                to.received(0, 0, 2), to.top_weights(0, 0, 2, 0)};
  };
  const auto nearly = of_sink(80), all = of_sink(120);
  EXPECT_EQ(nearly[2], 1) << "of rows at 0 to 3 the third";
  EXPECT_GT(nearly[4], 0);
  EXPECT_TRUE(std::isnan(all[2]));
  for (int i : {0, 1, 3, 4}) EXPECT_EQ(all[static_cast<std::size_t>(i)], 0) << i;
  double at = 80;
  while (!std::isnan(of_sink(at)[2])) at += 0.5;
  EXPECT_EQ(at, 87.5) << "where 2^-126 ends, as statistics.hpp says";
}

}  // namespace
}  // namespace multihead::testing
