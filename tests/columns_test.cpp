// SPDX-License-Identifier: Apache-2.0
// What keys get from rows: received and map over every option against the plain definition, their bits, and what is
// hidden in them.
#include <gtest/gtest.h>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

bool packed(const Problem& p) { return !p.cu_seqlens_q.empty() || !p.q_segments.empty(); }

// received and, where sequences share bins, a map, with strides of their own.
template <class Real>
struct Columns {
  std::vector<Real> received_values, map_values;
  StatisticsRequest<Real> request;

  Columns(const AttentionShape& s, std::int64_t bin, bool turned = false) {
    const auto room = [](std::vector<Real>& values, std::int64_t count) {
      values.assign(static_cast<std::size_t>(count) + 1, Real(77));
      return values.data();
    };
    const std::int64_t b = s.batch, h = s.heads;
    Real* const received = room(received_values, b * h * s.kv_len);
    request.plain.received = {received, {b, h, s.kv_len}};
    if (turned) request.plain.received = {received, {b, h, s.kv_len}, {1, b, b * h}};
    if (bin == 0) return;
    const std::int64_t r = (s.q_len + bin - 1) / bin, c = (s.kv_len + bin - 1) / bin;
    Real* const map = room(map_values, b * h * r * c);
    request.bin = bin, request.plain.map = {map, {b, h, r, c}};
    if (turned) request.plain.map = {map, {b, h, r, c}, {1, b, b * h * c, b * h}};
  }
  Columns(const Columns&) = delete;
  const View3<Real>& received() const { return request.plain.received; }
  const View4<Real>& map() const { return request.plain.map; }
  std::uint64_t bits() const {
    const std::uint64_t bits = hash_bits(received());
    return map().data() ? hash_bits(map(), bits) : bits;
  }
};

// The bits of out and lse of a call that asks for columns.
template <class T>
std::uint64_t ask(const View4<T>& q, const View4<T>& k, const View4<T>& v, const StatisticsRequest<Sum<T>>& request,
                  const AttentionOptions& options) {
  Tensor<T> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  std::vector<Sum<T>> values(static_cast<std::size_t>(q.extent(0) * q.extent(1) * q.extent(2)) + 1);
  const View3<Sum<T>> lse(values.data(), {q.extent(0), q.extent(1), q.extent(2)});
  attention(View4<const T>(q), View4<const T>(k), View4<const T>(v), out.view, lse, {}, request, options);
  return hash_bits(lse, hash_bits(out.view));
}
template <class T>
std::uint64_t ask(Tensors<T>& in, const Columns<Sum<T>>& columns, const AttentionOptions& options) {
  return ask(in.q.view, in.k.view, in.v.view, columns.request, options);
}

// Calls visit(row, exact row, of all keys) for each row of a problem.
template <class T, class Visit>
void each_row(const Problem& p, Tensors<T>& in, const Visit& visit) {
  for (std::int64_t b = 0; b < p.shape.batch; ++b)
    for (std::int64_t h = 0; h < p.shape.heads; ++h)
      for (std::int64_t i = 0; i < p.shape.q_len; ++i)
        visit(std::array{b, h, i}, Row<long double>(p, in.q.view, in.k.view, {b, h, i}, true));
}

// Exact weights, and how far each may be off: by itself times the error of its score and the mean of all errors, and by
// some 16 roundings of its own.
template <class T>
struct Truth {
  std::vector<double> weights, wobble;
  View4<const double> weights_view, wobble_view;

  Truth(const Problem& p, Tensors<T>& in) {
    constexpr long double kEpsilon = std::numeric_limits<Sum<T>>::epsilon();
    each_row(p, in, [&](const auto&, const Row<long double>& row) {
      long double mean = row.sink_weight > 0 ? row.sink_weight * std::fabs(row.sink) : 0;
      for (std::size_t j = 0; j < row.keys.size(); ++j) mean += row.weights[j] * row.biased.magnitudes[j];
      for (std::size_t j = 0; j < row.keys.size(); ++j) {
        weights.push_back(static_cast<double>(row.weights[j]));
        wobble.push_back(static_cast<double>(row.weights[j] * (4 * (row.biased.magnitudes[j] + mean) + 16) * kEpsilon));
      }
    });
    weights.push_back(0), wobble.push_back(0);
    const std::array<std::int64_t, 4> extents{p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.kv_len};
    weights_view = {weights.data(), extents}, wobble_view = {wobble.data(), extents};
  }
};

// The worst distance beyond the bound: the weights' own, and the rounding of sums of so many.
double excess(double got, double truth, double wobble, std::int64_t additions, double epsilon) {
  return distance(got, truth) - wobble - static_cast<double>(additions + 8) * epsilon * truth - 1e-37;
}

template <class T>
class ColumnsOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(ColumnsOf, Types);

TYPED_TEST(ColumnsOf, EveryOptionIsTheDefinition) {
  using T = TypeParam;
  using Real = Sum<T>;
  Plan plan(kTypeOf<T>, 1);
  const unsigned most = quick_share() ? 30 : 100000;
  for (unsigned seed = 0; seed < most && !plan.done() && !this->HasFailure(); ++seed) {
    const Problem p = plan.next();
    Random random(seed);
    const std::int64_t bin = packed(p) ? 0 : random.pick<std::int64_t>({16, 32, 64, 128, 256, 1280});
    Tensors<T> in(p);
    const Truth<T> truth(p, in);
    Columns<double> wanted(p.shape, bin), slack(p.shape, bin);
    statistics_of_weights(truth.weights_view, wanted.request);
    statistics_of_weights(truth.wobble_view, slack.request);
    for (Target target : available_targets()) {
      const Columns<Real> got(p.shape, bin, random.chance(50));
      AttentionOptions options = p.options();
      options.target = target;
      EXPECT_EQ(ask(in, got, options), Answer<T>(in, options).bits()) << p.describe();
      double worst = 0;
      const auto meet = [&](double a, double b, double wobble, std::int64_t additions) {
        worst = std::max(worst, excess(a, b, wobble, additions, std::numeric_limits<Real>::epsilon()));
      };
      for (std::int64_t b = 0; b < p.shape.batch; ++b)
        for (std::int64_t h = 0; h < p.shape.heads; ++h) {
          for (std::int64_t j = 0; j < p.shape.kv_len; ++j)
            meet(got.received()(b, h, j), wanted.received()(b, h, j), slack.received()(b, h, j), p.shape.q_len / 16);
          for (std::int64_t r = 0; bin > 0 && r < got.map().extent(2); ++r)
            for (std::int64_t c = 0; c < got.map().extent(3); ++c)
              meet(got.map()(b, h, r, c), wanted.map()(b, h, r, c), slack.map()(b, h, r, c), bin * 2);
        }
      EXPECT_LE(worst, 0) << target_name(target) << " bin " << bin << " " << p.describe();
    }
  }
}

// A range and the mask that says the same; another number of threads, and so of keys a task.
TYPED_TEST(ColumnsOf, MasksAndThreadsChangeNoBits) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, 1);
  while (!plan.done() && !this->HasFailure()) {
    const Problem p = plan.next();
    if (packed(p)) continue;
    Tensors<T> in(p);
    const Problem masked = as_one_mask(p);
    for (Target target : available_targets()) {
      const Columns<Sum<T>> one(p.shape, 64), other(p.shape, 64), shared(p.shape, 64);
      AttentionOptions options = p.options(), as_mask = masked.options();
      options.target = as_mask.target = target, options.threads = 1;
      ask(in, one, options);
      ask(in, other, as_mask);
      EXPECT_EQ(one.bits(), other.bits()) << p.describe();
      options.threads = 5;
      ask(in, shared, options);
      EXPECT_EQ(one.bits(), shared.bits()) << p.describe();
    }
  }
}

// A key that is not a number shows in all keys of the rows that see it, and nowhere else.
TYPED_TEST(ColumnsOf, HiddenKeysStayHidden) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, 1);
  int shown = 0, clean = 0;
  for (unsigned seed = 0; !plan.done() && !this->HasFailure(); ++seed) {
    const Problem p = plan.next();
    if (p.shape.kv_len == 0 || p.shape.batch == 0) continue;
    Tensors<T> in(p);
    const std::int64_t bad = Random(seed).between(0, p.shape.kv_len - 1), bin = packed(p) ? 0 : 16;
    for (std::int64_t h = 0; h < p.shape.kv_heads; ++h)
      in.k.view(0, h, bad, 0) = T(std::numeric_limits<float>::quiet_NaN());
    Columns<double> wanted(p.shape, bin);
    for (double& x : wanted.received_values) x = 0;
    for (double& x : wanted.map_values) x = 0;
    for (std::int64_t h = 0; h < p.shape.heads; ++h)
      for (std::int64_t i = 0; i < p.shape.q_len; ++i) {
        const Stand stand(p, 0, i);
        if (!sees(p, stand, {0, h, i}, bad)) continue;
        for (std::int64_t j = 0; j < p.shape.kv_len; ++j) {
          if (!sees(p, stand, {0, h, i}, j)) continue;
          wanted.received()(0, h, j) = 1;
          if (bin > 0) wanted.map()(0, h, i / bin, j / bin) = 1;
        }
      }
    for (Target target : available_targets()) {
      const Columns<Sum<T>> got(p.shape, bin);
      AttentionOptions options = p.options();
      options.target = target;
      ask(in, got, options);
      for (std::size_t at = 0; at + 1 < got.received_values.size(); ++at) {
        EXPECT_EQ(std::isnan(got.received_values[at]), wanted.received_values[at] == 1) << p.describe();
        ++(wanted.received_values[at] == 1 ? shown : clean);
      }
      for (std::size_t at = 0; at + 1 < got.map_values.size(); ++at)
        EXPECT_EQ(std::isnan(got.map_values[at]), wanted.map_values[at] == 1) << p.describe();
    }
  }
  EXPECT_GT(std::min(shown, clean), 1000);
}

// q, k and v of some sequences.
template <class T>
struct Batch {
  static constexpr std::int64_t kLength = 700, kHeads = 2;
  Tensor<T> q{{3, kHeads, kLength, 24}}, k{{3, 1, kLength, 24}}, v{{3, 1, kLength, 8}};

  Batch() {
    Random random(11);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, 2);
  }
  // Entry b, or all, with keys up to an end.
  std::unique_ptr<Columns<T>> columns(std::int64_t bin, const AttentionOptions& options, std::int64_t b = -1,
                                      std::int64_t keys = kLength) {
    const auto part = [&](const View4<T>& x, std::int64_t length) {
      return View4<T>(x.data() + std::max<std::int64_t>(b, 0) * x.stride(0),
                      {b < 0 ? 3 : 1, x.extent(1), length, x.extent(3)}, x.strides());
    };
    const AttentionShape shape{
        .batch = b < 0 ? 3 : 1, .heads = kHeads, .kv_heads = 1, .q_len = kLength, .kv_len = keys};
    auto columns = std::make_unique<Columns<T>>(shape, bin);
    ask(part(q.view, kLength), part(k.view, keys), part(v.view, keys), columns->request, options);
    return columns;
  }
};

template <class T>
class ColumnBits : public ::testing::Test {};
using SumTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ColumnBits, SumTypes);

TYPED_TEST(ColumnBits, BatchPaddingThreadsAndTargets) {
  using T = TypeParam;
  Batch<T> batch;
  constexpr std::int64_t kLength = Batch<T>::kLength;
  const std::vector<std::int64_t> lengths{kLength, 333, 0};
  for (std::int64_t bin : {16, 64, 256}) {
    std::uint64_t of_fma = 0;
    for (Target target : available_targets()) {
      const AttentionOptions options{
          .causal = true, .alignment = Alignment::top_left(), .lengths = lengths, .target = target};
      const auto together = batch.columns(bin, options);
      AttentionOptions threads = options;
      threads.threads = 7;
      EXPECT_EQ(batch.columns(bin, threads)->bits(), together->bits());
      if (!has_own_bits(target, kTypeOf<T>) && of_fma != 0) {
        EXPECT_EQ(of_fma, together->bits()) << target_name(target);
      }
      if (!has_own_bits(target, kTypeOf<T>)) of_fma = together->bits();
      for (std::int64_t b : {0, 1}) {
        const std::int64_t keys = lengths[static_cast<std::size_t>(b)];
        const auto alone =
            batch.columns(bin, {.causal = true, .alignment = Alignment::top_left(), .target = target}, b, keys);
        for (std::int64_t h = 0; h < Batch<T>::kHeads; ++h) {
          for (std::int64_t j = 0; j < kLength; ++j)
            EXPECT_EQ(together->received()(b, h, j), j < keys ? alone->received()(0, h, j) : 0);
          for (std::int64_t r = 0; r < alone->map().extent(2); ++r)
            for (std::int64_t c = 0; c < together->map().extent(3); ++c)
              EXPECT_EQ(together->map()(b, h, r, c), c < alone->map().extent(3) ? alone->map()(0, h, r, c) : 0);
        }
      }
      for (std::int64_t j = 0; j < kLength; ++j) EXPECT_EQ(together->received()(2, 1, j), 0);
    }
  }
}

// Scratch of a call that asks for both distributions' columns.
std::size_t scratch_of(std::int64_t length, std::int64_t bin) {
  const AttentionShape shape{
      .heads = 2, .kv_heads = 2, .q_len = length, .kv_len = length, .head_dim = 64, .value_dim = 64};
  float* const none = nullptr;
  const std::int64_t bins = (length + bin - 1) / bin;
  StatisticsRequest<float> request;
  request.bin = bin;
  for (RowStatistics<float>* to : {&request.plain, &request.norm_weighted}) {
    to->received = {none, {1, 2, length}};
    to->map = {none, {1, 2, bins, bins}};
  }
  return attention_scratch_bytes(shape, {.threads = 4}, false, request);
}

TEST(ColumnMemory, IsLinearInLength) {
  constexpr std::int64_t kLength = 1 << 16;
  for (std::int64_t bin : {16, 512}) {
    const std::size_t once = scratch_of(kLength, bin), twice = scratch_of(2 * kLength, bin);
    EXPECT_LE(twice, 2 * once);
    EXPECT_LE(once, std::size_t{kLength} * 2 * 3 * sizeof(float) + (4u << 20)) << "row_max, row_sum, logarithms";
  }
}

}  // namespace
}  // namespace multihead::testing
