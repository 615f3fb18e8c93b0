// SPDX-License-Identifier: Apache-2.0
// Rotary embedding: frequencies to half a unit in the last place, tables, both pairings, the relative property,
// refusals.
#include "multihead/rotary.hpp"

#include <gtest/gtest.h>

#include "multihead/layouts.hpp"
#include "problem.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr auto kSplit = RotaryPairing::half_split, kNeighbours = RotaryPairing::interleaved;

// In long double, whose 64 bits (113 on arm64) are enough to tell a rounding of a double.
std::vector<long double> true_frequencies(std::int64_t rotary_dim, const RotaryOptions& o) {
  std::vector<long double> all;
  for (std::int64_t t = 0; t < rotary_dim / 2; ++t) {
    long double f = std::pow(static_cast<long double>(o.theta),
                             -2 * static_cast<long double>(t) / static_cast<long double>(rotary_dim));
    const RotaryScaling& s = o.scaling;
    if (s.type == "linear") f /= s.factor;
    if (s.type == "llama3") {
      const long double original = static_cast<long double>(s.original_max_position_embeddings);
      const long double wave = 2 * std::acos(-1.0L) / f;
      const long double share = (original / wave - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      if (wave > original / s.low_freq_factor)
        f /= s.factor;
      else if (wave >= original / s.high_freq_factor)
        f = (1 - share) * f / s.factor + share * f;
    }
    all.push_back(f);
  }
  return all;
}

double worst_ulps(std::int64_t rotary_dim, const RotaryOptions& options) {
  std::vector<double> got(static_cast<std::size_t>(rotary_dim / 2));
  rotary_frequencies(rotary_dim, options, got);
  const std::vector<long double> truth = true_frequencies(rotary_dim, options);
  long double worst = 0;
  for (std::size_t t = 0; t < got.size(); ++t) {
    const long double ulp = std::ldexp(1.0L, std::ilogb(truth[t]) - 52);
    worst = std::max(worst, std::fabs(got[t] - truth[t]) / ulp);
  }
  return static_cast<double>(worst);
}

TEST(Rotary, FrequenciesAreRoundedOnce) {
  for (std::int64_t rotary_dim : {2, 4, 6, 10, 32, 64, 80, 96, 128, 250, 256, 1024})
    for (double theta : {1.0, 2.0, 100.0, 10000.0, 160000.0, 500000.0, 1e6, 1e7, 12345.678, 1e30})
      EXPECT_LE(worst_ulps(rotary_dim, {.theta = theta}), 0.51) << rotary_dim << " " << theta;
}

TEST(Rotary, ScaledFrequencies) {
  for (std::int64_t rotary_dim : {16, 64, 128}) {
    EXPECT_LE(worst_ulps(rotary_dim, {.scaling = {.type = "linear", .factor = 3}}), 1.01);
    for (double theta : {10000.0, 500000.0}) {
      // The blend's share comes from a difference of like numbers: a few units more.
      const RotaryScaling scaling{"llama3", 8, 1, 4, 8192};
      EXPECT_LE(worst_ulps(rotary_dim, {.theta = theta, .scaling = scaling}), 8) << rotary_dim << " " << theta;
    }
  }
}

// Llama 3.1's own options.
TEST(Rotary, LlamaScalingKeepsShortWavesAndSlowsLongOnes) {
  std::vector<double> plain(64), scaled(64);
  rotary_frequencies(128, {.theta = 500000}, plain);
  rotary_frequencies(128, {.theta = 500000, .scaling = {"llama3", 8, 1, 4, 8192}}, scaled);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_EQ(scaled[20], plain[20]);
  EXPECT_EQ(scaled[63], plain[63] / 8);
  int blended = 0;
  for (std::size_t t = 0; t < 64; ++t) blended += scaled[t] != plain[t] && scaled[t] != plain[t] / 8;
  EXPECT_GT(blended, 2);
}

template <class T>
class RotaryTyped : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(RotaryTyped, Types);

// Error of a table's element: sin's and cos's own, one rounding, and the angle's two.
TYPED_TEST(RotaryTyped, TablesAgainstTheDefinition) {
  using T = TypeParam;
  const std::vector<std::int64_t> positions{0, 1, 2, 63, 1000, 4095, 131071, 1 << 20};
  for (std::int64_t rotary_dim : {2, 10, 64, 128}) {
    const RotaryOptions options{.theta = 10000};
    const auto rows = static_cast<std::int64_t>(positions.size());
    Matrix<T> cos(rows, rotary_dim / 2), sin(rows, rotary_dim / 2);
    rotary_tables(positions, rotary_dim, options, cos, sin);
    const std::vector<long double> f = true_frequencies(rotary_dim, options);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t t = 0; t < rotary_dim / 2; ++t) {
        const long double angle =
            static_cast<long double>(positions[static_cast<std::size_t>(i)]) * f[static_cast<std::size_t>(t)];
        const double bound =
            static_cast<double>(std::numeric_limits<T>::epsilon() / 2.0L + 0x1p-53L + angle * 0x1p-52L);
        EXPECT_NEAR(cos(i, t), static_cast<double>(std::cos(angle)), bound)
            << positions[static_cast<std::size_t>(i)] << " " << t;
        EXPECT_NEAR(sin(i, t), static_cast<double>(std::sin(angle)), bound)
            << positions[static_cast<std::size_t>(i)] << " " << t;
      }
  }
}

// One vector by the definition, in T with the documented order of roundings.
template <class T>
std::vector<T> turned(std::vector<T> x, std::span<const T> cos, std::span<const T> sin, RotaryPairing pairing,
                      bool fma) {
  const std::size_t half = cos.size();
  for (std::size_t t = 0; t < half; ++t) {
    T& a = x[pairing == kSplit ? t : 2 * t];
    T& b = x[pairing == kSplit ? t + half : 2 * t + 1];
    const T b_sin = b * sin[t], a_sin = a * sin[t];
    const T a_cos = a * cos[t], b_cos = b * cos[t];
    const T turned_a = fma ? std::fma(a, cos[t], -b_sin) : a_cos + -b_sin;
    b = fma ? std::fma(b, cos[t], a_sin) : b_cos + a_sin;
    a = turned_a;
  }
  return x;
}

TYPED_TEST(RotaryTyped, EmbeddingIsTheDefinitionBits) {
  using T = TypeParam;
  int in_place = 0, partial = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const std::int64_t head_dim = random.between(1, 70), half = random.between(0, head_dim / 2),
                       rows = random.between(1, 9);
    Tensor<T> x({random.between(1, 2), random.between(1, 3), random.between(1, 5), head_dim}, random.chance(50),
                random.between(0, 3));
    Tensor<T> y(x.view.extents(), random.chance(50), random.between(0, 3));
    x.fill_normal(random);
    Matrix<T> cos(rows, half), sin(rows, half);  // not cos and sin of anything: used as they are given
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t t = 0; t < half; ++t)
        cos(i, t) = static_cast<T>(random.normal()), sin(i, t) = static_cast<T>(random.normal());
    const std::int64_t batch = x.view.extent(0), length = x.view.extent(2);
    std::vector<std::int64_t> positions;
    for (std::int64_t i = 0; i < batch * length; ++i) positions.push_back(random.between(0, rows - 1));
    const MatrixView<const std::int64_t> places(positions.data(), {batch, length});
    const RotaryPairing pairing = random.chance(50) ? kSplit : kNeighbours;
    const bool into_itself = random.chance(40);
    in_place += into_itself, partial += 2 * half < head_dim;
    for (Target target : available_targets()) {
      const std::vector<T> before = x.values;
      const View4<T> to = into_itself ? x.view : y.view;
      rotary_embedding(View4<const T>(x.view), cos, sin, places, pairing, to, target);
      const std::vector<T> after = x.values;
      x.values = before;
      for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t h = 0; h < x.view.extent(1); ++h)
          for (std::int64_t i = 0; i < length; ++i) {
            std::vector<T> row;
            for (std::int64_t c = 0; c < head_dim; ++c) row.push_back(x.view(b, h, i, c));
            const auto line = [&](const Matrix<T>& m) {
              return std::span<const T>(m.data() + places(b, i) * half, static_cast<std::size_t>(half));
            };
            const std::vector<T> wanted = turned<T>(row, line(cos), line(sin), pairing, target != Target::baseline);
            x.values = after;
            for (std::int64_t c = 0; c < head_dim; ++c)
              EXPECT_EQ(to(b, h, i, c), wanted[static_cast<std::size_t>(c)]) << seed;
            x.values = before;
          }
      if (!into_itself) {
        EXPECT_EQ(after, before);
      }
    }
  }
  EXPECT_GE(in_place, 20);
  EXPECT_GE(partial, 20);
}

template <class T>
struct Turned {
  Tensor<T> x;
  Turned(std::int64_t head_dim, std::int64_t position, const RotaryOptions& o, std::uint64_t seed)
      : x({1, 1, 1, head_dim}) {
    Random random(seed);
    x.fill_normal(random);
    const std::int64_t width = o.rotary_dim.value_or(head_dim);
    Matrix<T> cos(1, width / 2), sin(1, width / 2);
    rotary_tables({&position, 1}, width, o, cos, sin);
    const std::int64_t first = 0;
    rotary_embedding(View4<const T>(x.view), cos, sin, {&first, {1, 1}}, o.pairing, x.view);
  }
};

// <R_i q, R_j k> depends on i - j alone: to the roundings of the two rotations and the tables.
TYPED_TEST(RotaryTyped, ScoresDependOnDistanceAlone) {
  using T = TypeParam;
  for (RotaryPairing pairing : {kSplit, kNeighbours})
    for (std::int64_t head_dim : {8, 64, 128})
      for (std::int64_t distance : {0, 1, 7, 300}) {
        const RotaryOptions options{.pairing = pairing, .rotary_dim = head_dim - 4};
        std::vector<long double> scores;
        long double magnitude = 0;
        for (std::int64_t i : {distance, distance + 1, distance + 50, distance + 3000}) {
          Turned<T> q(head_dim, i, options, 1), k(head_dim, i - distance, options, 2);
          long double score = 0;
          magnitude = 0;
          for (std::int64_t c = 0; c < head_dim; ++c) {
            const long double term = static_cast<long double>(q.x.view(0, 0, 0, c)) * k.x.view(0, 0, 0, c);
            score += term, magnitude += std::fabs(term);
          }
          scores.push_back(score);
        }
        // Each rotated channel is within two roundings of the pair's length, which is at most sqrt(2) times its
        // magnitude here; angles up to 3300 carry 2^-52 of themselves.
        const double bound = static_cast<double>(
            magnitude * (8 * static_cast<long double>(std::numeric_limits<T>::epsilon()) + 2 * 3300 * 0x1p-52L));
        for (long double score : scores) EXPECT_NEAR(static_cast<double>(score), static_cast<double>(scores[0]), bound);
        EXPECT_GT(magnitude, 0);
      }
}

// Channels in the other order and the other pairing: the same rotated channels in the other order, bit for bit.
TYPED_TEST(RotaryTyped, PairingsAreAPermutationApartBits) {
  using T = TypeParam;
  for (std::int64_t head_dim : {2, 6, 16, 34, 66})
    for (std::int64_t width : {head_dim, head_dim / 4 * 2}) {
      const std::int64_t half = width / 2, position = 3;
      Matrix<T> cos(4, half), sin(4, half);
      if (half > 0) rotary_tables(std::vector<std::int64_t>{0, 1, 2, 3}, width, {}, cos, sin);
      Tensor<T> split({1, 2, 1, head_dim}), neighbours({1, 2, 1, head_dim});
      Random random(7);
      neighbours.fill_normal(random);
      for (std::int64_t c = 0; c < 2 * head_dim; ++c) {
        const std::int64_t from = interleaved_from_half_split(c, head_dim, width);
        EXPECT_EQ(half_split_from_interleaved(from, head_dim, width), c);
        split.values[static_cast<std::size_t>(c)] = neighbours.values[static_cast<std::size_t>(from)];
      }
      const MatrixView<const std::int64_t> places(&position, {1, 1});
      rotary_embedding(View4<const T>(split.view), cos, sin, places, kSplit, split.view);
      rotary_embedding(View4<const T>(neighbours.view), cos, sin, places, kNeighbours, neighbours.view);
      for (std::int64_t c = 0; c < 2 * head_dim; ++c)
        EXPECT_EQ(split.values[static_cast<std::size_t>(c)],
                  neighbours.values[static_cast<std::size_t>(interleaved_from_half_split(c, head_dim, width))]);
    }
}

// ---- what is refused ----

struct RotaryCall {
  RotaryPairing pairing = kSplit;
  std::optional<Target> target = {};
  std::vector<std::int64_t> places{0, 1, 2, 3, 4, 1};
  std::int64_t place_columns = 3, place_rows = 2;
  Layout x{0, {2, 4, 3, 10}}, cos{1, {5, 4}}, sin{2, {5, 4}}, y{3, {2, 4, 3, 10}};

  template <class T>
  void run(std::vector<T>& arena) const {
    rotary_embedding(x.view<const T, 4>(arena), cos.view<const T, 2>(arena), sin.view<const T, 2>(arena),
                     {places.data(), {place_rows, place_columns}}, pairing, y.view<T, 4>(arena), target);
  }
};
using R = RotaryCall;

std::vector<Case<R>> refusals() {
  std::vector<Case<R>> cases{
      longer(&R::y, 0, "y has batch", "x has"),
      longer(&R::y, 1, "y has heads", "x has"),
      longer(&R::y, 2, "y has length", "x has"),
      longer(&R::y, 3, "y has head_dim", "x has"),
      longer(&R::sin, 0, "sin has rows", "cos has"),
      longer(&R::sin, 1, "sin has columns", "cos has"),
      {"columns", [](R& c) { c.cos.extents[1] = c.sin.extents[1] = 6; }, kOption, {"columns of cos is 6", "0 to 5"}},
      {"position_minus", [](R& c) { c.places[5] = -1; }, kOption, {"a position is -1", "0 to 4"}},
      {"position_far", [](R& c) { c.places[5] = 5; }, kOption, {"a position is 5", "0 to 4"}},
      {"places_length", [](R& c) { c.place_columns = 2; }, kShape, {"positions has length 2", "x has 3"}},
      {"places_batch", [](R& c) { c.place_rows = 1; }, kShape, {"positions has batch 1", "x has 2"}},
      {"pairing", [](R& c) { c.pairing = static_cast<RotaryPairing>(9); }, kOption, {"neither half_split nor"}},
      {"target", [](R& c) { c.target = missing_target(); }, ErrorCode::unsupported, {"cannot run on this machine"}},
      {"shifted", [](R& c) { c.y.place = c.x.place + 10; }, kShape, {"y overlaps x", "must be apart"}},
  };
  add_view_rules<R>(cases, {{"x", &R::x}, {"cos", &R::cos}, {"sin", &R::sin}, {"y", &R::y}}, false);
  add_last_axis_rules<R>(cases, {{"x", &R::x}, {"cos", &R::cos}, {"sin", &R::sin}, {"y", &R::y}});
  add_overlap_rules<R>(cases, {"y", &R::y}, {{"x", &R::x}, {"cos", &R::cos}, {"sin", &R::sin}});
  return cases;
}

struct AtRotaryEmbedding : ::testing::TestWithParam<Case<R>> {};
TEST_P(AtRotaryEmbedding, Refused) {
  const auto door = [](const R& c, auto& arena) { c.run(arena); };
  expect_refused<float>("rotary_embedding", GetParam(), R(), door);
  expect_refused<double>("rotary_embedding", GetParam(), R(), door);
}
INSTANTIATE_TEST_SUITE_P(Rules, AtRotaryEmbedding, ::testing::ValuesIn(refusals()), name_of);

TEST(RotaryRefusals, OptionsAndPositions) {
  const auto refused = [](std::int64_t rotary_dim, const RotaryOptions& options, const Words& words) {
    std::vector<double> frequencies(static_cast<std::size_t>(std::clamp<std::int64_t>(rotary_dim / 2, 0, 600)), 77);
    expect_error("rotary_frequencies", kOption, words, [&] { rotary_frequencies(rotary_dim, options, frequencies); });
    for (double f : frequencies) EXPECT_EQ(f, 77);
    std::vector<float> cos(1, 77), sin(1, 77);
    const std::int64_t position = 0;
    expect_error("rotary_tables", kOption, words, [&] {
      rotary_tables({&position, 1}, rotary_dim, options, MatrixView<float>(cos.data(), {1, 1}),
                    MatrixView<float>(sin.data(), {1, 1}));
    });
  };
  refused(7, {}, {"rotary_dim is 7", "even"});
  refused(0, {}, {"rotary_dim is 0"});
  refused(1026, {}, {"rotary_dim is 1026", "2 to 1024"});
  refused(8, {.theta = 0.5}, {"theta is", "1 to 1e30"});
  refused(8, {.theta = NAN}, {"theta is", "1 to 1e30"});
  refused(8, {.theta = INFINITY}, {"theta is", "1 to 1e30"});
  for (const char* type : {"yarn", "longrope", "dynamic", "su", "", "Default"})
    refused(8, {.scaling = {.type = type}}, {std::string("'") + type + "' is not known", "default, linear, llama3"});
  refused(8, {.scaling = {.type = "linear", .factor = 0}}, {"factor of rotary scaling", "positive"});
  refused(8, {.scaling = {.type = "linear", .factor = NAN}}, {"factor of rotary scaling", "positive"});
  refused(8, {.scaling = {"llama3", 8, 4, 4, 8192}}, {"high_freq_factor", "larger"});
  refused(8, {.scaling = {"llama3", 8, 1, 4, 0}}, {"original_max_position_embeddings is 0"});
  refused(8, {.pairing = static_cast<RotaryPairing>(5)}, {"neither half_split nor"});

  for (std::int64_t position : {std::int64_t{-1}, (std::int64_t{1} << 20) + 1, std::int64_t{1} << 62}) {
    const std::vector<std::int64_t> positions{0, position};
    std::vector<double> cos(8, 77), sin(8, 77);
    expect_error("rotary_tables", kOption, {"a position is " + std::to_string(position)}, [&] {
      rotary_tables(positions, 8, {}, MatrixView<double>(cos.data(), {2, 4}), MatrixView<double>(sin.data(), {2, 4}));
    });
    EXPECT_EQ(cos, std::vector<double>(8, 77)) << "written";
  }
  // A factor below 1 makes waves faster: their angles leave sin's domain.
  const std::int64_t position = 1 << 20;
  std::vector<double> cos(4, 77), sin(4, 77);
  expect_error("rotary_tables", kOption, {"beyond 3294198"}, [&] {
    rotary_tables({&position, 1}, 8, {.scaling = {.type = "linear", .factor = 0.1}},
                  MatrixView<double>(cos.data(), {1, 4}), MatrixView<double>(sin.data(), {1, 4}));
  });
  expect_error("rotary_tables", kShape, {"cos has columns 3", "R / 2 is 4"}, [&] {
    rotary_tables({&position, 1}, 8, {}, MatrixView<double>(cos.data(), {1, 3}),
                  MatrixView<double>(sin.data(), {1, 4}));
  });
  expect_error("rotary_tables", kShape, {"cos overlaps sin"}, [&] {
    rotary_tables({&position, 1}, 8, {}, MatrixView<double>(cos.data(), {1, 4}),
                  MatrixView<double>(cos.data(), {1, 4}));
  });
  std::vector<double> three(3);
  expect_error("rotary_frequencies", kShape, {"inv_freq has 3", "R / 2 is 4"},
               [&] { rotary_frequencies(8, {}, three); });
}

}  // namespace
}  // namespace multihead::testing
