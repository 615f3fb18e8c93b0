// SPDX-License-Identifier: Apache-2.0
// float32 on target amx, three bfloat16 parts a number and six products: no worse than a chain of multiply-adds, and
// what parts cannot take, by rows that see it and no others, as multiply-adds have it. These run where amx does, which
// is everywhere in a build with MULTIHEAD_EMULATED_TARGETS.
#include <gtest/gtest.h>

#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kHeads = 2, kQueries = 100, kKeys = 300, kWidth = 40, kValueWidth = 24;

bool runs_amx() {
  const std::vector<Target> found = available_targets();
  return std::find(found.begin(), found.end(), Target::amx) != found.end();
}

struct Problem {
  Tensor<float> q{{1, kHeads, kQueries, kWidth}}, k{{1, kHeads, kKeys, kWidth}}, v{{1, kHeads, kKeys, kValueWidth}};
  AttentionOptions options;

  explicit Problem(double scale = 1) {
    Random random(31);
    for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random, scale);
  }
  // Row i sees the keys up to i + kKeys - kQueries.
  void make_causal() {
    options.causal = true;
    options.alignment = Alignment::bottom_right();
  }
  static std::int64_t last_key(std::int64_t row) { return row + kKeys - kQueries; }
};

struct Result {
  Tensor<float> out{{1, kHeads, kQueries, kValueWidth}};
  std::vector<float> lse = std::vector<float>(kHeads * kQueries);

  Result(const Problem& p, Target target) {
    AttentionOptions options = p.options;
    options.target = target;
    attention(View4<const float>(p.q.view), View4<const float>(p.k.view), View4<const float>(p.v.view), out.view,
              View3<float>(lse.data(), {1, kHeads, kQueries}), options);
  }
  std::vector<float> row(std::int64_t h, std::int64_t i) const {
    std::vector<float> all{lse[static_cast<std::size_t>(h * kQueries + i)]};
    for (std::int64_t c = 0; c < kValueWidth; ++c) all.push_back(out.view(0, h, i, c));
    return all;
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return true;
}

// Rows whose bits are those of another result.
std::int64_t rows_alike(const Result& a, const Result& b, std::int64_t head) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < kQueries; ++i) count += same_bits(a.row(head, i), b.row(head, i));
  return count;
}

// The root of the mean square error against long double.
double error_of(const Problem& p, Target target) {
  const Result result(p, target);
  double squares = 0;
  for (std::int64_t h = 0; h < kHeads; ++h)
    for (std::int64_t i = 0; i < kQueries; ++i) {
      std::vector<long double> w;
      for (std::int64_t j = 0; j < kKeys; ++j) {
        long double dot = 0;
        for (std::int64_t c = 0; c < kWidth; ++c)
          dot += static_cast<long double>(p.q.view(0, h, i, c)) * static_cast<long double>(p.k.view(0, h, j, c));
        w.push_back(dot / std::sqrt(static_cast<long double>(kWidth)));
      }
      const long double most = *std::max_element(w.begin(), w.end());
      long double sum = 0;
      for (long double& x : w) sum += x = std::exp(x - most);
      for (std::int64_t c = 0; c < kValueWidth; ++c) {
        long double truth = 0;
        for (std::int64_t j = 0; j < kKeys; ++j)
          truth += w[static_cast<std::size_t>(j)] * static_cast<long double>(p.v.view(0, h, j, c));
        const double away = distance(result.out.view(0, h, i, c), truth / sum);
        squares += away * away;
      }
    }
  return std::sqrt(squares / static_cast<double>(kHeads * kQueries * kValueWidth));
}

class Parts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!runs_amx()) GTEST_SKIP() << "target amx cannot run here";
  }
};

TEST_F(Parts, AreNoWorseThanMultiplyAdds) {
  for (double scale : {1.0, 10.0, 100.0}) {
    const Problem p(scale);
    EXPECT_LE(error_of(p, Target::amx), error_of(p, Target::avx2)) << scale;
  }
}

// Elements that parts cannot take, or in which they would lose digits.
constexpr float kSpecial[] = {0x1p60f,  -0x1p127f,  std::numeric_limits<float>::infinity(),
                              0x1p-90f, -0x1p-140f, std::numeric_limits<float>::quiet_NaN()};

TEST_F(Parts, LeaveOtherRowsAlone) {
  for (float special : kSpecial)
    for (Tensor<float> Problem::*operand : {&Problem::k, &Problem::v}) {
      Problem plain, changed;
      plain.make_causal(), changed.make_causal();
      constexpr std::int64_t kKey = 250;
      (changed.*operand).view(0, 1, kKey, 5) = special;
      const Result before(plain, Target::amx), after(changed, Target::amx);
      EXPECT_EQ(rows_alike(before, after, 0), kQueries) << special;
      for (std::int64_t i = 0; i < kQueries; ++i)
        EXPECT_TRUE(Problem::last_key(i) >= kKey || same_bits(before.row(1, i), after.row(1, i)))
            << special << " in row " << i;
    }
  for (float special : kSpecial) {
    Problem changed;
    changed.q.view(0, 1, 70, 5) = special;
    const Result before(Problem(), Target::amx), after(changed, Target::amx);
    EXPECT_EQ(rows_alike(before, after, 0), kQueries) << special;
    EXPECT_GE(rows_alike(before, after, 1), kQueries - 1) << special;
  }
}

// A row's bits are its own, whichever rows are in the call beside it and wherever the call begins.
TEST_F(Parts, RowsAreTheirOwn) {
  Problem p;
  p.make_causal();
  for (std::int64_t i = 0; i < std::ssize(kSpecial); ++i) {
    p.k.view(0, 0, 205 + 10 * i, i) = kSpecial[i];
    p.v.view(0, 0, 209 + 10 * i, i) = kSpecial[i];
    p.q.view(0, 0, 8 + 17 * i, i) = kSpecial[i];
  }
  const Result whole(p, Target::amx);
  for (std::int64_t i = 0; i < kQueries; ++i) {
    float lse = 0;
    Tensor<float> out({1, 1, 1, kValueWidth});
    const std::int64_t keys = Problem::last_key(i) + 1;
    attention(View4<const float>(&p.q.view(0, 0, i, 0), {1, 1, 1, kWidth}),
              View4<const float>(&p.k.view(0, 0, 0, 0), {1, 1, keys, kWidth}),
              View4<const float>(&p.v.view(0, 0, 0, 0), {1, 1, keys, kValueWidth}), out.view,
              View3<float>(&lse, {1, 1, 1}), {.target = Target::amx});
    std::vector<float> alone{lse};
    for (std::int64_t c = 0; c < kValueWidth; ++c) alone.push_back(out.view(0, 0, 0, c));
    EXPECT_TRUE(same_bits(whole.row(0, i), alone)) << i;
  }
}

// Where every score and every block of values is for multiply-adds, all bits are theirs; nearly none are before.
TEST_F(Parts, GiveWayToMultiplyAdds) {
  Problem p;
  const auto alike = [&] { return rows_alike(Result(p, Target::amx), Result(p, Target::avx2), 0); };
  EXPECT_LE(alike(), kQueries / 10);
  for (std::int64_t block = 0; block < kKeys; block += 128) p.v.view(0, 0, block + 3, 7) = 0x1p-100f;
  EXPECT_LE(alike(), kQueries / 10);
  for (std::int64_t i = 0; i < kQueries; ++i) p.q.view(0, 0, i, 11) = 0x1p60f;
  for (std::int64_t j = 0; j < kKeys; ++j) p.k.view(0, 0, j, 11) = 0;
  EXPECT_EQ(alike(), kQueries);

  Problem keys;
  keys.options.scale = 0x1p-60;
  for (std::int64_t j = 0; j < kKeys; ++j) keys.k.view(0, 0, j, 11) = 0x1p60f;
  for (std::int64_t block = 0; block < kKeys; block += 128) keys.v.view(0, 0, block + 3, 7) = 0x1p100f;
  EXPECT_EQ(rows_alike(Result(keys, Target::amx), Result(keys, Target::avx2), 0), kQueries);

  Problem scaled;
  scaled.options.scale = 0x1p40;
  for (std::int64_t block = 0; block < kKeys; block += 128) scaled.v.view(0, 0, block + 3, 7) = 0x1p100f;
  EXPECT_EQ(rows_alike(Result(scaled, Target::amx), Result(scaled, Target::avx2), 0), kQueries);
}

// Calls of many tasks take several row blocks through stretches of the keys, as many as a worker keeps: here 256 of
// 300. Rows do not show it.
TEST_F(Parts, StretchesOfKeysLeaveNoTrace) {
  constexpr std::int64_t kManyHeads = 11, kWide = 512;
  Tensor<float> q({1, kManyHeads, kQueries, kWide}), k({1, kManyHeads, kKeys, kWide}),
      v({1, kManyHeads, kKeys, kValueWidth}), whole({1, kManyHeads, kQueries, kValueWidth}),
      alone({1, 1, kQueries, kValueWidth});
  Random random(37);
  for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random, 1);
  v.view(0, 2, 7, 3) = v.view(0, 3, 270, 3) = 0x1p100f;
  k.view(0, 4, 290, 5) = std::numeric_limits<float>::infinity();
  for (bool causal : {false, true}) {
    AttentionOptions options{.causal = causal, .threads = causal ? 2 : 1, .target = Target::amx};
    if (causal) options.alignment = Alignment::bottom_right();
    attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), whole.view, options);
    for (std::int64_t h = 0; h < kManyHeads; h += causal ? 5 : 2) {
      attention(View4<const float>(&q.view(0, h, 0, 0), {1, 1, kQueries, kWide}),
                View4<const float>(&k.view(0, h, 0, 0), {1, 1, kKeys, kWide}),
                View4<const float>(&v.view(0, h, 0, 0), {1, 1, kKeys, kValueWidth}), alone.view, options);
      for (std::int64_t i = 0; i < kQueries; ++i)
        for (std::int64_t c = 0; c < kValueWidth; ++c)
          ASSERT_TRUE(same_bits({whole.view(0, h, i, c)}, {alone.view(0, 0, i, c)})) << h << ", " << i << ", " << c;
    }
  }
}

}  // namespace
}  // namespace multihead::testing
