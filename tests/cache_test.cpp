// SPDX-License-Identifier: Apache-2.0
// write_cache(): every place of the cache against its definition, all types and layouts; every rule of its arguments.
#include "multihead/cache.hpp"

#include <gtest/gtest.h>

#include "problem.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

template <class T>
using Bits =
    std::conditional_t<sizeof(T) == 8, std::uint64_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;

// Every element of a buffer is a bit pattern of its own, NaNs among them.
template <class T>
std::vector<T> patterns(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<T> values(count);
  for (T& value : values) value = std::bit_cast<T>(static_cast<Bits<T>>(random.bits()));
  return values;
}

template <class T>
std::vector<Bits<T>> bits_of(const std::vector<T>& values) {
  std::vector<Bits<T>> bits;
  for (const T& value : values) bits.push_back(std::bit_cast<Bits<T>>(value));
  return bits;
}

// Extents (batch, heads, length, width) in one of the orders that memory may have, with room between elements.
std::array<std::int64_t, 4> strides_of(const std::array<std::int64_t, 4>& extents, int layout) {
  const auto [b, h, n, c] = extents;
  switch (layout) {
    case 0:
      return {h * n * c, n * c, c, 1};
    case 1:
      return {n * h * c, c, h * c, 1};  // heads inside positions
    case 2:
      return {h * c * n, c * n, 1, n};  // positions fastest: keys stored transposed
    default:
      return {2 * h * n * c, 2 * n * c, -2 * c, 2};  // positions backwards, every other element
  }
}

constexpr int kLayouts = 4;

template <class T>
View4<T> laid_out(T* data, std::int64_t size, const std::array<std::int64_t, 4>& extents, int layout) {
  const std::array<std::int64_t, 4> strides = strides_of(extents, layout);
  const std::int64_t first = layout == 3 ? 2 * (extents[2] - 1) * extents[3] : 0;
  EXPECT_LE(2 * extents[0] * extents[1] * extents[2] * extents[3], size);
  return {data + std::max<std::int64_t>(first, 0), extents, strides};
}

template <class T>
class Cache : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(Cache, Types);

TYPED_TEST(Cache, EveryElementIsThatOfTheDefinition) {
  using T = TypeParam;
  constexpr std::int64_t kBatch = 3, kHeads = 2, kCapacity = 5, kSize = 1000;
  Random random(11);
  int wrapped = 0;
  for (int round = 0; round < 400; ++round) {
    const CacheWrite mode = round % 2 ? CacheWrite::linear : CacheWrite::circular;
    const std::int64_t length = random.between(0, kCapacity), width = random.pick<std::int64_t>({0, 1, 3, 8});
    std::vector<std::int64_t> begins;
    for (std::int64_t b = 0; b < kBatch; ++b) {
      const std::int64_t room = mode == CacheWrite::linear ? kCapacity - length : kCapacity - (length > 0 ? 1 : 0);
      begins.push_back(random.between(0, room));
      wrapped += begins.back() + length > kCapacity;
    }
    std::vector<T> memory = patterns<T>(kSize, 2 * static_cast<std::uint64_t>(round)), expected = memory;
    std::vector<T> source = patterns<T>(kSize, 2 * static_cast<std::uint64_t>(round) + 1);
    const std::array<std::int64_t, 4> whole{kBatch, kHeads, kCapacity, width}, part{kBatch, kHeads, length, width};
    const int layout = static_cast<int>(random.between(0, kLayouts - 1));
    const View4<T> cache = laid_out(memory.data(), kSize, whole, layout);
    const View4<T> wanted = laid_out(expected.data(), kSize, whole, layout);
    const View4<const T> update =
        laid_out(source.data(), kSize, part, static_cast<int>(random.between(0, kLayouts - 1)));
    for (std::int64_t b = 0; b < kBatch; ++b)
      for (std::int64_t h = 0; h < kHeads; ++h)
        for (std::int64_t i = 0; i < length; ++i)
          for (std::int64_t c = 0; c < width; ++c)
            wanted(b, h, (begins[static_cast<std::size_t>(b)] + i) % kCapacity, c) = update(b, h, i, c);
    write_cache(cache, update, begins, mode);
    ASSERT_EQ(bits_of(memory), bits_of(expected)) << "round " << round << " layout " << layout;
  }
  EXPECT_GT(wrapped, 50);
}

TYPED_TEST(Cache, EmptyExtentsWriteNothing) {
  using T = TypeParam;
  std::vector<T> memory = patterns<T>(40, 3);
  const std::vector<T> before = memory, source = patterns<T>(40, 4);
  const auto write = [&](std::array<std::int64_t, 4> cache, std::array<std::int64_t, 4> update,
                         const std::vector<std::int64_t>& begins) {
    write_cache(View4<T>(memory.data(), cache), View4<const T>(source.data(), update), begins, CacheWrite::linear);
    EXPECT_EQ(bits_of(memory), bits_of(before));
  };
  write({0, 2, 4, 5}, {0, 2, 1, 5}, {});
  write({1, 0, 4, 5}, {1, 0, 1, 5}, {3});
  write({2, 1, 4, 5}, {2, 1, 0, 5}, {4, 0});  // one past the end, where nothing is written
  write({1, 2, 0, 5}, {1, 2, 0, 5}, {0});
  write({1, 2, 4, 0}, {1, 2, 2, 0}, {1});
  write_cache(View4<T>({}, {1, 1, 2, 0}), View4<const T>({}, {1, 1, 2, 0}), std::vector<std::int64_t>{1},
              CacheWrite::circular);
}

struct CacheCall {
  Layout cache{0, {2, 3, 5, 4}}, update{1, {2, 3, 2, 4}};
  std::vector<std::int64_t> begins{0, 3};
  CacheWrite mode = CacheWrite::linear;

  template <class T>
  void run(std::vector<T>& arena) const {
    write_cache(cache.view<T, 4>(arena), update.view<const T, 4>(arena), begins, mode);
  }
};
using C = CacheCall;

std::vector<Case<C>> rules() {
  std::vector<Case<C>> cases{
      longer(&C::update, 0, "update has batch", "cache has"),
      longer(&C::update, 1, "update has heads", "cache has"),
      longer(&C::update, 3, "update has width", "cache has"),
      {"length_over_capacity",
       [](C& c) {
         c.update = Layout(1, {2, 3, 6, 4});
       },
       kShape,
       {"update has length 6, cache has capacity 5", "hold them all"}},
      {"begins_short", [](C& c) { c.begins = {0}; }, kShape, {"begins has 1, batch is 2", "must be equal"}},
      {"begins_long",
       [](C& c) {
         c.begins = {0, 1, 2};
       },
       kShape,
       {"begins has 3, batch is 2", "must be equal"}},
      {"begin_negative", [](C& c) { c.begins[1] = -1; }, kOption, {"begins[1] is -1; it must be 0 to 4"}},
      {"begin_at_end", [](C& c) { c.begins[0] = 5; }, kOption, {"begins[0] is 5; it must be 0 to 4"}},
      {"begin_at_end_circular",
       [](C& c) { c.begins[0] = 5, c.mode = CacheWrite::circular; },
       kOption,
       {"begins[0] is 5; it must be 0 to 4"}},
      {"begin_past_end_without_length",
       [](C& c) {
         c.update = Layout(1, {2, 3, 0, 4}), c.begins[0] = 6;
       },
       kOption,
       {"begins[0] is 6; it must be 0 to 5"}},
      {"linear_past_end",
       [](C& c) { c.begins[1] = 4; },
       kOption,
       {"begins[1] is 4, length is 2, capacity is 5", "linear write may not pass the end"}},
      {"mode",
       [](C& c) { c.mode = static_cast<CacheWrite>(7); },
       kOption,
       {"mode is 7; it must be linear or circular"}},
  };
  add_view_rules<C>(cases, {{"cache", &C::cache}, {"update", &C::update}}, false);
  add_overlap_rules<C>(cases, {"cache", &C::cache}, {{"update", &C::update}});
  return cases;
}

class CacheRules : public ::testing::TestWithParam<Case<C>> {};
INSTANTIATE_TEST_SUITE_P(All, CacheRules, ::testing::ValuesIn(rules()), name_of);

TEST_P(CacheRules, IsRefusedAndNothingIsWritten) {
  expect_refused<float>("write_cache", GetParam(), C(), [](const C& c, auto& arena) { c.run(arena); });
  expect_refused<double>("write_cache", GetParam(), C(), [](const C& c, auto& arena) { c.run(arena); });
}

}  // namespace
}  // namespace multihead::testing
