// SPDX-License-Identifier: Apache-2.0
// self_attention and multi_head_attention: against the definition, and bit for bit against each other.
#include "multihead/layer.hpp"

#include <gtest/gtest.h>

#include <cfenv>
#include <thread>

#include "layer_problem.hpp"
#include "multihead/reference.hpp"

namespace multihead::testing {
namespace {

constexpr LayerExtents kChapter{2, 3, 6, 6, 3, 2}, kUsual{50, 33, 24, 40, 17, 4};

// Widths that are free, one row, several blocks of input channels on either side, several row chunks and key blocks.
std::vector<LayerExtents> many_extents() {
  return {kChapter,
          kUsual,
          {1, 5, 4, 6, 7, 2},
          {130, 64, 64, 64, 64, 1},
          {7, 700, 12, 20, 100, 2},
          {9, 16, 24, 600, 50, 3},
          {quick_share() ? 150 : 1000, 20, 16, 8, 12, 2}};
}

template <class T>
class Layer : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Layer, Types);

TYPED_TEST(Layer, MultiHeadAgainstTheDefinition) {
  for (const LayerExtents& e : many_extents()) {
    const Inputs<TypeParam> in(e);
    const Plain<TypeParam> plain(in);
    const Plain<long double> truth(in);
    for (Target target : available_targets())
      EXPECT_LE(excess(in.run({.target = target}), plain, truth), 0) << target_name(target) << " " << e.n;
  }
}

TEST(Layer, ReferenceIsTheDefinition) {
  for (const LayerExtents& e : many_extents()) {
    const Inputs<double> in(e);
    Matrix<double> output(e.n, e.out_dim);
    multi_head_attention_reference(in.X, in.Wq, in.Wk, in.Wv, in.Wo, e.heads, output);
    EXPECT_LE(excess(output, Plain<double>(in), Plain<long double>(in)), 0) << e.n;
  }
}

// A product's element as it is documented: blocks of 256 input channels, each one chain from zero, added in order.
template <class T>
Matrix<T> product_in_order(const Matrix<T>& a, const Matrix<T>& b, Target target) {
  Matrix<T> c(a.rows(), b.columns());
  for (std::int64_t i = 0; i < c.rows(); ++i)
    for (std::int64_t j = 0; j < c.columns(); ++j)
      for (std::int64_t first = 0; first < a.columns(); first += 256) {
        T chain = 0;
        for (std::int64_t k = first; k < std::min<std::int64_t>(first + 256, a.columns()); ++k)
          chain = target == Target::baseline ? a(i, k) * b(k, j) + chain : std::fma(a(i, k), b(k, j), chain);
        c(i, j) = first == 0 ? chain : c(i, j) + chain;
      }
  return c;
}

// multi_head_attention is self_attention on the column slices, concatenated, times Wo: no bit differs.
TYPED_TEST(Layer, MultiHeadIsItsHeads) {
  for (const LayerExtents& e : many_extents()) {
    const Inputs<TypeParam> in(e);
    const std::int64_t width = e.v_width / e.heads;
    for (Target target : available_targets()) {
      Matrix<TypeParam> concat(e.n, e.v_width);
      for (int h = 0; h < e.heads; ++h) {
        const Matrix<TypeParam> head = in.run_head(h, {.target = target}).output;
        for (std::int64_t i = 0; i < e.n; ++i)
          for (std::int64_t c = 0; c < width; ++c) concat(i, h * width + c) = head(i, c);
      }
      const Matrix<TypeParam> wanted = product_in_order(concat, in.Wo, target);
      EXPECT_EQ(bits(in.run({.target = target})), bits(wanted)) << target_name(target) << " " << e.n;
    }
  }
}

// One row sees itself with weight 1: its output is X Wv, in the documented order.
TYPED_TEST(Layer, OneRowIsItsValue) {
  const Inputs<TypeParam> in({1, 700, 10, 21, 3, 1});
  for (Target target : available_targets()) {
    const SelfAttention<TypeParam> got = in.run_head(0, {.target = target});
    EXPECT_EQ(bits(got.output), bits(product_in_order(in.X, in.Wv, target)));
    EXPECT_EQ(got.weights, (Matrix<TypeParam>{{1}}));
  }
}

// The chapter's shape, worked on paper: no query, so both rows weigh both values alike.
TYPED_TEST(Layer, ChapterShapeByHand) {
  const Matrix<TypeParam> X{{1, 0, 1}, {0, 1, 1}}, zero(3, 6);
  const Matrix<TypeParam> Wv{{1, 2, 3, 4, 5, 6}, {3, 2, 1, 0, -1, -2}, {0, 0, 2, 0, 0, 4}};
  const Matrix<TypeParam> Wo{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (Target target : available_targets()) {
    Matrix<TypeParam> output(2, 3), mean(2, 2);
    multi_head_attention(X, zero, Wv, Wv, Wo, 2, output, {.target = target}, {.per_head = {}, .mean = mean});
    EXPECT_EQ(output, (Matrix<TypeParam>{{4, 4, 10}, {4, 4, 10}}));
    EXPECT_EQ(mean, (Matrix<TypeParam>{{0.5, 0.5}, {0.5, 0.5}}));
  }
}

TYPED_TEST(Layer, WeightsOfEachHeadAndTheirMean) {
  const Inputs<TypeParam> in({150, 33, 24, 40, 17, 4});
  const std::int64_t n = in.e.n;
  const double epsilon = std::numeric_limits<TypeParam>::epsilon();
  for (Target target : available_targets()) {
    std::vector<TypeParam> space(static_cast<std::size_t>(4 * n * n), 77), before(static_cast<std::size_t>(n * n), 77);
    const View3<TypeParam> per_head(space.data(), {4, n, n}, {n, 1, 4 * n});  // a layout of the caller's
    const MatrixView<TypeParam> mean(before, {n, n});
    Matrix<TypeParam> output(n, in.e.out_dim);
    multi_head_attention(in.X, in.Wq, in.Wk, in.Wv, in.Wo, 4, output, {.target = target}, {per_head, mean});
    EXPECT_EQ(bits(output), bits(in.run({.target = target}))) << "asking for weights changed the output";
    for (int h = 0; h < 4; ++h) {
      const MatrixView<const TypeParam> weights(&per_head(h, 0, 0), {n, n}, {1, 4 * n});
      EXPECT_EQ(bits(weights), bits(in.run_head(h, {.target = target}).weights)) << h;
      for (std::int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) sum += weights(i, j);
        EXPECT_NEAR(sum, 1, 16 * epsilon);  // 1 / sum, 2^x and the sum's chains: a few roundings, relative
      }
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double wanted = 0;
        for (int h = 0; h < 4; ++h) wanted += per_head(h, i, j) / 4.0;
        EXPECT_NEAR(mean(i, j), wanted, 4 * epsilon * wanted);  // a rounding for each head
      }
    Matrix<TypeParam> mean_alone(n, n);
    multi_head_attention(in.X, in.Wq, in.Wk, in.Wv, in.Wo, 4, output, {.target = target}, {{}, mean_alone});
    EXPECT_EQ(bits(mean_alone), bits<TypeParam>(mean));
  }
}

// Loops that a caller may bring.
void forwards(void*, std::int64_t count, ParallelFor::Task task, void* argument) {
  for (std::int64_t index = 0; index < count; ++index) task(argument, index);
}
void backwards(void*, std::int64_t count, ParallelFor::Task task, void* argument) {
  for (std::int64_t index = count; index-- > 0;) task(argument, index);
}
void own_threads(void*, std::int64_t count, ParallelFor::Task task, void* argument) {
  std::vector<std::thread> threads;
  for (std::int64_t index = 0; index < count; ++index) threads.emplace_back(task, argument, index);
  for (std::thread& thread : threads) thread.join();
}

TYPED_TEST(Layer, ThreadsAndLoopsChangeNoBit) {
  const std::int64_t n = quick_share() ? 110 : 400;  // 400: two row chunks of a product
  const Inputs<TypeParam> in({n, 33, 24, 40, 100, 4});
  const auto run = [&](const LayerOptions& options) {
    Matrix<TypeParam> output(n, 100), mean(n, n);
    multi_head_attention(in.X, in.Wq, in.Wk, in.Wv, in.Wo, 4, output, options, {{}, mean});
    return std::pair{bits(output), bits(mean)};
  };
  for (Target target : available_targets()) {
    const auto wanted = run({.target = target});
    for (int threads : {1, 2, 3, 4, 5}) {
      EXPECT_EQ(run({.threads = threads, .target = target}), wanted) << threads;
      for (const auto& loop : {forwards, backwards, own_threads})
        EXPECT_EQ(run({.threads = threads, .parallel_for = {loop, nullptr}, .target = target}), wanted) << threads;
      const SelfAttention<TypeParam> one = in.run_head(1, {.target = target});
      const SelfAttention<TypeParam> many = in.run_head(1, {.threads = threads, .target = target});
      EXPECT_EQ(bits(many.output), bits(one.output)) << threads;
      EXPECT_EQ(bits(many.weights), bits(one.weights)) << threads;
    }
  }
}

// The chapter's numbers in every form a programmer may hold them in.
TEST(Layer, ContainersAreAcceptedAsTheyAre) {
  const Inputs<double> in(kChapter);
  const std::uint64_t wanted = bits(in.run({}));
  const auto rows = [](const Matrix<double>& m) {
    Rows<double> all;
    for (std::int64_t i = 0; i < m.rows(); ++i)
      all.emplace_back(m.values().begin() + i * m.columns(), m.values().begin() + (i + 1) * m.columns());
    return all;
  };
  EXPECT_EQ(bits(multi_head_attention(rows(in.X), rows(in.Wq), rows(in.Wk), rows(in.Wv), rows(in.Wo), 2)), wanted);
  EXPECT_EQ(bits(self_attention(rows(in.X), rows(in.Wq), rows(in.Wk), rows(in.Wv)).output),
            bits(self_attention(in.X, in.Wq, in.Wk, in.Wv).output));

  const std::vector<double> flat(in.X.values().begin(), in.X.values().end());
  EXPECT_EQ(bits(multi_head_attention({flat, {2, 3}}, in.Wq, in.Wk, in.Wv, in.Wo, 2)), wanted);
  EXPECT_EQ(bits(multi_head_attention({std::span(flat), {2, 3}}, in.Wq, in.Wk, in.Wv, in.Wo, 2)), wanted);

  double array[2][3];
  std::array<std::array<double, 3>, 2> arrays;
  std::vector<std::array<double, 3>> vector(2);
  for (std::size_t i = 0; i < 6; ++i) array[i / 3][i % 3] = arrays[i / 3][i % 3] = vector[i / 3][i % 3] = flat[i];
  EXPECT_EQ(bits(multi_head_attention(array, in.Wq, in.Wk, in.Wv, in.Wo, 2)), wanted);
  EXPECT_EQ(bits(multi_head_attention(arrays, in.Wq, in.Wk, in.Wv, in.Wo, 2)), wanted);
  EXPECT_EQ(bits(multi_head_attention(vector, in.Wq, in.Wk, in.Wv, in.Wo, 2)), wanted);
  EXPECT_EQ(bits(multi_head_attention(std::as_const(vector), in.Wq, in.Wk, in.Wv, in.Wo, 2)), wanted);
  double out[2][3];
  multi_head_attention(array, in.Wq, in.Wk, in.Wv, in.Wo, 2, out);
  EXPECT_EQ(bits(MatrixView<const double>(out)), wanted);
}

// The same elements with room between the rows, rows in descending order, or the axes exchanged.
template <class T>
struct Spread {
  std::vector<T> values;
  MatrixView<T> view;
  Spread(const Matrix<T>& m, bool transposed)
      : values(static_cast<std::size_t>((m.rows() + 3) * (m.columns() + 3)), T(77)),
        view(transposed ? MatrixView<T>(values.data(), {m.rows(), m.columns()}, {1, m.rows() + 2})
                        : MatrixView<T>(values.data() + std::max<std::int64_t>(m.rows() - 1, 0) * (m.columns() + 3),
                                        {m.rows(), m.columns()}, {-(m.columns() + 3), 1})) {
    for (std::int64_t i = 0; i < m.rows(); ++i)
      for (std::int64_t j = 0; j < m.columns(); ++j) view(i, j) = m(i, j);
  }
  operator MatrixView<const T>() const { return view; }
};

TYPED_TEST(Layer, StridesAndTransposedWeightsChangeNoBit) {
  for (const LayerExtents& e : many_extents()) {
    if (e.n > 200) continue;
    const Inputs<TypeParam> in(e);
    for (Target target : available_targets())
      for (bool transposed : {false, true}) {
        const Spread<TypeParam> X(in.X, false), Wq(in.Wq, transposed), Wk(in.Wk, transposed), Wv(in.Wv, transposed),
            Wo(in.Wo, transposed);
        Spread<TypeParam> output(Matrix<TypeParam>(e.n, e.out_dim), false);
        multi_head_attention(X, Wq, Wk, Wv, Wo, e.heads, output.view, {.target = target});
        EXPECT_EQ(bits<TypeParam>(output.view), bits(in.run({.target = target}))) << target_name(target) << " " << e.n;
        for (std::int64_t i = 0; i < e.n; ++i)
          for (std::int64_t j = 0; j < e.out_dim; ++j) output.view(i, j) = 77;
        EXPECT_EQ(output.values, std::vector<TypeParam>(output.values.size(), 77)) << "written between the rows";
      }
  }
}

TYPED_TEST(Layer, NothingIsLegal) {
  for (Target target : available_targets()) {
    const Inputs<TypeParam> no_rows({0, 5, 4, 6, 7, 2}), no_channels({3, 0, 4, 6, 7, 2}), no_output({3, 5, 4, 6, 0, 2});
    EXPECT_EQ(no_rows.run({.target = target}), Matrix<TypeParam>(0, 7));
    EXPECT_EQ(no_rows.run_head(0, {.target = target}).weights, Matrix<TypeParam>(0, 0));
    EXPECT_EQ(no_channels.run({.target = target}), Matrix<TypeParam>(3, 7));
    EXPECT_EQ(no_output.run({.target = target}), Matrix<TypeParam>(3, 0));
    multi_head_attention(no_rows.X, no_rows.Wq, no_rows.Wk, no_rows.Wv, no_rows.Wo, 2, {nullptr, {0, 7}});
  }
}

// At every alignment the bytes that were asked for are enough and no byte behind them is touched; one fewer is refused.
TYPED_TEST(Layer, ScratchIsEnoughAndNotMore) {
  for (const LayerExtents& e : {kChapter, kUsual})
    for (int threads : {1, 3})
      for (bool weights : {false, true}) {
        const Inputs<TypeParam> in(e);
        LayerOptions options{.threads = threads};
        const std::size_t bytes = multi_head_attention_scratch_bytes(sizeof(TypeParam), e.n, e.model_dim, e.qk_width,
                                                                     e.v_width, e.out_dim, e.heads, options, weights);
        Matrix<TypeParam> output(e.n, e.out_dim), mean(e.n, e.n);
        const auto run = [&] {
          const HeadWeights<TypeParam> asked{{}, weights ? mean : MatrixView<TypeParam>()};
          multi_head_attention(in.X, in.Wq, in.Wk, in.Wv, in.Wo, e.heads, output, options, asked);
          return bits(output);
        };
        const std::uint64_t wanted = run();
        std::vector<std::byte> memory(bytes + 128, std::byte{0xA5});
        for (std::size_t offset = 0; offset < 64; ++offset) {
          options.scratch = {memory.data() + offset, bytes};
          EXPECT_EQ(run(), wanted) << offset;
          EXPECT_EQ(
              std::count(memory.begin() + static_cast<std::ptrdiff_t>(offset + bytes), memory.end(), std::byte{0xA5}),
              128 - static_cast<std::ptrdiff_t>(offset));
        }
        options.scratch = {memory.data(), bytes - 1};
        try {
          run();
          ADD_FAILURE() << "one byte fewer was accepted";
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::out_of_memory) << error.what();
        }
        // The projections alone take 2 n (qk_width + v_width) elements; what comes on top does not grow with n.
        EXPECT_GE(bytes, sizeof(TypeParam) * static_cast<std::size_t>(2 * e.n * (e.qk_width + e.v_width)));
      }
}

// What a thread keeps from call to call serves large and small calls of both types in any order.
TEST(Layer, KeptScratchServesEveryCall) {
  const Inputs<float> small(kChapter), large({130, 64, 64, 64, 64, 2});
  const Inputs<double> other(kUsual);
  const std::uint64_t wanted[] = {bits(small.run({})), bits(large.run({})), bits(other.run({}))};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(bits(small.run({.threads = 1 + i})), wanted[0]);
    EXPECT_EQ(bits(other.run({.threads = 3 - i})), wanted[2]);
    EXPECT_EQ(bits(large.run({.threads = 1 + i})), wanted[1]);
  }
}

// Where a caller has set another rounding: head_dim 3 and 12, whose 1 / sqrt is not exact.
TYPED_TEST(Layer, RoundingModeOfTheCaller) {
  for (std::int64_t head_dim : {3, 12}) {
    const Inputs<TypeParam> in({20, 9, 2 * head_dim, 8, 5, 2});
    for (Target target : available_targets()) {
      const std::uint64_t wanted = bits(in.run({.target = target})), head = bits(in.run_head(0, {}).weights);
      for (int mode : {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO}) {
        std::fesetround(mode);
        const std::uint64_t got = bits(in.run({.target = target})), got_head = bits(in.run_head(0, {}).weights);
        EXPECT_EQ(std::fegetround(), mode);
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(got, wanted) << target_name(target) << " " << mode;
        EXPECT_EQ(got_head, head) << target_name(target) << " " << mode;
      }
    }
  }
}

}  // namespace
}  // namespace multihead::testing
