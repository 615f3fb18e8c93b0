// SPDX-License-Identifier: Apache-2.0
// Same bits: a row's output depends on its own query, on the keys and values it sees and their positions, and on the
// options, and on nothing else.
#include <gtest/gtest.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <memory>

#include "multihead/attention.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kLength = 300, kHeads = 4, kKvHeads = 2, kHeadDim = 40, kValueDim = 24;

// q, k and v of a batch of sequences, and attention over any part of them.
template <class T>
struct Sequences {
  Tensor<T> q, k, v;

  explicit Sequences(std::int64_t batch, std::int64_t length = kLength)
      : q({batch, kHeads, length, kHeadDim}),
        k({batch, kKvHeads, length, kHeadDim}),
        v({batch, kKvHeads, length, kValueDim}) {
    Random random(7);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, 2);
  }
};

// Sequences [first, first + count) and rows [begin, end) of a tensor.
template <class T>
View4<T> part(const View4<T>& x, std::int64_t first, std::int64_t count, std::int64_t begin, std::int64_t end) {
  return View4<T>(&x(first, 0, begin, 0), {count, x.extent(1), end - begin, x.extent(3)}, x.strides());
}

template <class T>
std::unique_ptr<Tensor<T>> attend(View4<T> q, View4<T> k, View4<T> v, const AttentionOptions& options) {
  auto out = std::make_unique<Tensor<T>>(std::array{q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  attention(View4<const T>(q), View4<const T>(k), View4<const T>(v), out->view, options);
  return out;
}

template <class T>
void expect_same_bits(View4<T> got, View4<T> wanted, const std::string& what) {
  ASSERT_EQ(got.extents(), wanted.extents()) << what;
  EXPECT_EQ(hash_bits<T>(got), hash_bits<T>(wanted)) << what;
}

template <class T>
class Bits : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Bits, Types);

TYPED_TEST(Bits, BatchSizeAndPlaceInTheBatch) {
  Sequences<TypeParam> s(3);
  for (Target target : available_targets()) {
    const AttentionOptions options{.causal = true, .target = target};
    const auto together = attend(s.q.view, s.k.view, s.v.view, options);
    for (std::int64_t b = 0; b < 3; ++b) {
      const auto alone = attend(part(s.q.view, b, 1, 0, kLength), part(s.k.view, b, 1, 0, kLength),
                                part(s.v.view, b, 1, 0, kLength), options);
      expect_same_bits(alone->view, part(together->view, b, 1, 0, kLength), "sequence " + std::to_string(b));
    }
  }
}

TYPED_TEST(Bits, RightPadding) {
  Sequences<TypeParam> s(1);
  const std::vector<std::int64_t> lengths{171};
  // What stands in the padding must not matter either.
  for (std::int64_t j = 171; j < kLength; ++j)
    for (std::int64_t h = 0; h < kKvHeads; ++h)
      s.k.view(0, h, j, 0) = s.v.view(0, h, j, 1) = std::numeric_limits<TypeParam>::quiet_NaN();
  for (Target target : available_targets())
    for (auto [causal, alignment] :
         {std::pair{false, Alignment()}, {true, Alignment::top_left()}, {true, Alignment::bottom_right()}}) {
      const auto padded = attend(part(s.q.view, 0, 1, 0, 171), s.k.view, s.v.view,
                                 {.causal = causal, .alignment = alignment, .lengths = lengths, .target = target});
      const auto cut = attend(part(s.q.view, 0, 1, 0, 171), part(s.k.view, 0, 1, 0, 171), part(s.v.view, 0, 1, 0, 171),
                              {.causal = causal, .alignment = alignment, .target = target});
      expect_same_bits(padded->view, cut->view, "padded");
    }
}

TYPED_TEST(Bits, ChunksOfQueriesAndOneQueryAlone) {
  Sequences<TypeParam> s(1);
  for (Target target : available_targets()) {
    const auto whole = attend(s.q.view, s.k.view, s.v.view, {.causal = true, .target = target});
    for (std::int64_t chunk : {1, 7, 48, 100})
      for (std::int64_t begin = 0; begin < kLength; begin += chunk == 1 ? 13 : chunk) {
        const std::int64_t end = std::min(begin + chunk, kLength);
        const auto some = attend(part(s.q.view, 0, 1, begin, end), s.k.view, s.v.view,
                                 {.causal = true, .alignment = Alignment::at(begin), .target = target});
        expect_same_bits(some->view, part(whole->view, 0, 1, begin, end), "rows from " + std::to_string(begin));
        // Keys that come later are not even there yet: a prefill in chunks.
        const auto early =
            attend(part(s.q.view, 0, 1, begin, end), part(s.k.view, 0, 1, 0, end), part(s.v.view, 0, 1, 0, end),
                   {.causal = true, .alignment = Alignment::bottom_right(), .target = target});
        expect_same_bits(early->view, some->view, "chunk from " + std::to_string(begin));
      }
  }
}

TYPED_TEST(Bits, ThreadCountAndRepetition) {
  Sequences<TypeParam> s(2);
  for (Target target : available_targets()) {
    for (bool causal : {true, false}) {  // without, the last of few tasks are run in pieces
      const auto one = attend(s.q.view, s.k.view, s.v.view, {.causal = causal, .target = target});
      for (int threads : {1, 2, 3, 8}) {
        const auto many =
            attend(s.q.view, s.k.view, s.v.view, {.causal = causal, .threads = threads, .target = target});
        expect_same_bits(many->view, one->view, std::to_string(threads) + " threads");
      }
    }
  }
}

// A range that hides nothing, and one that hides what is not there, say the same.
TYPED_TEST(Bits, RangesThatSayTheSame) {
  Sequences<TypeParam> s(1);
  const std::vector<std::int64_t> lengths{kLength};
  for (Target target : available_targets()) {
    const auto plain = attend(s.q.view, s.k.view, s.v.view, {.target = target});
    const auto far =
        attend(s.q.view, s.k.view, s.v.view, {.causal = true, .alignment = Alignment::at(kLength), .target = target});
    const auto full = attend(s.q.view, s.k.view, s.v.view, {.lengths = lengths, .target = target});
    expect_same_bits(far->view, plain->view, "an offset beyond the keys");
    expect_same_bits(full->view, plain->view, "full lengths");
  }
}

// A caller's flush-to-zero and rounding modes neither change the result nor are lost.
TYPED_TEST(Bits, FloatingPointModeOfTheCaller) {
#if defined(__x86_64__)
  Sequences<TypeParam> s(1, 20);
  for (Target target : available_targets()) {
    s.v.each([](TypeParam& x) { x *= std::numeric_limits<TypeParam>::min(); });
    const auto usual = attend(s.q.view, s.k.view, s.v.view, {.target = target});
    const unsigned saved = _mm_getcsr();
    const unsigned unusual = 0x1F80 | 0x8040 | 0x6000;  // flush, subnormals are zero, towards zero
    _mm_setcsr(unusual);
    const auto flushed = attend(s.q.view, s.k.view, s.v.view, {.target = target});
    const unsigned after = _mm_getcsr() & ~0x3Fu;
    _mm_setcsr(saved);
    EXPECT_EQ(after, unusual);
    expect_same_bits(flushed->view, usual->view, "flush to zero");
  }
#else
  GTEST_SKIP() << "sets the x86-64 control register";
#endif
}

}  // namespace
}  // namespace multihead::testing
