// SPDX-License-Identifier: Apache-2.0
// attention() over a KvCache: the bits of attention() over the same rows, whatever the pages; its rules.
#include <gtest/gtest.h>

#include "kv_cache_model.hpp"
#include "multihead/kv_cache.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

template <class T>
constexpr KvStorage kStorageOf = KvStorage::float32;
template <>
constexpr KvStorage kStorageOf<BFloat16> = KvStorage::bfloat16;
template <>
constexpr KvStorage kStorageOf<Float16> = KvStorage::float16;

// A cache whose sequences have grown, forked and been cut at random.
template <class T>
struct Grown {
  Random random;
  KvCache cache;
  std::vector<KvSequence> names;

  Grown(const KvCacheSpec& spec, std::uint64_t seed) : random(seed), cache(spec) {
    names.push_back(cache.add());
    for (int i = 0; i < 12; ++i) {
      grow(names[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(names.size()) - 1))],
           random.chance(50) ? random.between(1, 5) : random.between(20, 90));
      if (random.chance(40)) fork();
    }
  }
  void grow(KvSequence name, std::int64_t tokens) {
    const KvCacheSpec& spec = cache.spec();
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      Tensor<T> k({1, spec.kv_heads, tokens, spec.head_dim}), v({1, spec.kv_heads, tokens, *spec.value_dim});
      k.fill_normal(random);
      v.fill_normal(random);
      cache.append(layer, {&name, 1}, k.view, v.view);
    }
  }
  void fork() {
    const KvSequence source = names.back();
    const std::int64_t length = cache.length(source), begin = cache.given_back(source).end;
    names.push_back(begin > 0 ? cache.fork(source) : cache.fork(source, random.between(length / 2, length)));
  }
};

KvCacheSpec spec_of(KvStorage storage, std::int64_t head_dim, std::int64_t value_dim) {
  KvCacheSpec spec;
  spec.storage = storage;
  spec.layers = 2, spec.kv_heads = 2, spec.head_dim = head_dim, spec.value_dim = value_dim;
  spec.pages = 100, spec.page_len = 32;
  return spec;
}

AttentionOptions draw_options(Random& random, std::span<const double> by_head) {
  AttentionOptions options;
  options.causal = true;
  if (random.chance(30)) options.window.left = random.between(0, 100);
  if (options.window.left >= 0 && random.chance(50)) options.window.first = random.between(0, 5);
  if (random.chance(30)) options.softcap = 3;
  if (random.chance(30)) options.alibi_slopes = by_head;
  if (random.chance(30)) options.sinks = by_head;
  options.threads = random.chance(30) ? 2 : 1;
  return options;
}

template <class T>
class KvCacheAttention : public ::testing::Test {};
using Types = ::testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(KvCacheAttention, Types);

// Ragged queries of all sequences in one call, and each sequence's by itself over its rows in one tensor.
template <class T>
void expect_bits_of_attention(Grown<T>& grown, const AttentionOptions& drawn) {
  const KvCacheSpec& spec = grown.cache.spec();
  constexpr std::int64_t kHeads = 4;
  std::vector<std::int64_t> bounds{0};
  for (const KvSequence name : grown.names)
    bounds.push_back(bounds.back() +
                     std::min(grown.cache.length(name), grown.random.template pick<std::int64_t>({1, 1, 3, 40})));
  Tensor<T> q({1, kHeads, bounds.back(), spec.head_dim}, true), out({1, kHeads, bounds.back(), *spec.value_dim});
  std::vector<float> lse(static_cast<std::size_t>(kHeads * bounds.back()));
  const View3<float> lse_view(lse.data(), {1, kHeads, bounds.back()});
  q.fill_normal(grown.random);
  AttentionOptions options = drawn;
  options.cu_seqlens_q = bounds;
  attention(q.view, grown.cache, 1, grown.names, out.view, lse_view, options);
  for (std::size_t s = 0; s < grown.names.size(); ++s) {
    const std::int64_t length = grown.cache.length(grown.names[s], 1), rows = bounds[s + 1] - bounds[s];
    Tensor<T> k({1, spec.kv_heads, length, spec.head_dim}), v({1, spec.kv_heads, length, *spec.value_dim});
    grown.cache.read(1, grown.names[s], 0, View3<T>(&k.view(0, 0, 0, 0), {spec.kv_heads, length, spec.head_dim}),
                     View3<T>(&v.view(0, 0, 0, 0), {spec.kv_heads, length, *spec.value_dim}));
    Tensor<T> alone({1, kHeads, rows, *spec.value_dim});
    std::vector<float> alone_lse(static_cast<std::size_t>(kHeads * rows));
    AttentionOptions plain = drawn;
    plain.alignment = Alignment::bottom_right();
    const View4<const T> queries(&q.view(0, 0, bounds[s], 0), {1, kHeads, rows, spec.head_dim}, q.view.strides());
    attention(queries, View4<const T>(k.view), View4<const T>(v.view), alone.view,
              View3<float>(alone_lse.data(), {1, kHeads, rows}), plain);
    const View4<T> part(&out.view(0, 0, bounds[s], 0), {1, kHeads, rows, *spec.value_dim}, out.view.strides());
    ASSERT_EQ(hash_bits(part), hash_bits(alone.view)) << "sequence " << s << " of " << length << ", " << rows;
    const View3<float> part_lse(&lse_view(0, 0, bounds[s]), {1, kHeads, rows}, lse_view.strides());
    ASSERT_EQ(hash_bits(part_lse), hash_bits(View3<float>(alone_lse.data(), {1, kHeads, rows})));
  }
}

TYPED_TEST(KvCacheAttention, HasTheBitsOfAttentionOverTheSameRows) {
  const std::vector<double> by_head{0.5, -0.25, 1, 0};
  for (const Target target : available_targets())
    for (std::uint64_t seed = 0; seed < (quick_share() ? 2 : 10); ++seed) {
      Grown<TypeParam> grown(spec_of(kStorageOf<TypeParam>, seed % 2 ? 16 : 5, seed % 3 ? 8 : 7), seed);
      AttentionOptions options = draw_options(grown.random, by_head);
      options.target = target;
      expect_bits_of_attention(grown, options);
      if (this->HasFailure()) FAIL() << target_name(target) << ", seed " << seed;
    }
}

// One query a sequence, and a chunk of them: the same rows, whatever the page.
TYPED_TEST(KvCacheAttention, Int8HasTheSameBitsInEveryCallAndPage) {
  using T = TypeParam;
  const std::vector<float> scales(2 * 2 * 16, 0.03f);
  for (const bool by_channel : {false, true}) {
    std::vector<std::uint64_t> hashes;
    for (const std::int64_t page_len : {32, 96, 512}) {
      KvCacheSpec spec = spec_of(KvStorage::int8, 16, 8);
      spec.page_len = page_len;
      if (by_channel) {
        spec.scales = KvScales::per_channel;
        spec.k_scales = {scales.data(), {2, 2, 16}};
        spec.v_scales = {scales.data(), {2, 2, 8}};
      }
      Grown<T> grown(spec, 5);
      const KvSequence name = grown.names.front();
      const std::int64_t length = grown.cache.length(name), rows = std::min<std::int64_t>(length, 50);
      Random random(9);
      Tensor<T> q({1, 4, rows, 16}), chunk({1, 4, rows, 8}), one({1, 4, 1, 8});
      q.fill_normal(random);
      AttentionOptions options;
      options.causal = true;
      attention(q.view, grown.cache, 1, {&name, 1}, chunk.view, {}, options);
      hashes.push_back(hash_bits(chunk.view));
      for (std::int64_t i = rows - 1; i >= 0; --i) {
        attention(View4<const T>(&q.view(0, 0, i, 0), {1, 4, 1, 16}, q.view.strides()), grown.cache, 1, {&name, 1},
                  one.view);
        const View4<T> row(&chunk.view(0, 0, i, 0), {1, 4, 1, 8}, chunk.view.strides());
        ASSERT_EQ(hash_bits(one.view), hash_bits(row)) << "row " << i << " of " << rows;
        grown.cache.truncate(name, grown.cache.length(name) - 1);
      }
    }
    EXPECT_EQ(hashes, std::vector<std::uint64_t>(3, hashes[0]));
  }
}

TEST(KvCacheSliding, SeesWhatItsWindowSees) {
  KvCacheSpec spec = spec_of(KvStorage::float32, 8, 8), whole = spec;
  spec.window = 40, spec.first = 3, spec.pages = 5;
  KvCache cache(spec), all(whole);
  const KvSequence name = cache.add(), other = all.add();
  Random random(2);
  for (int step = 0; step < 300; ++step) {
    Tensor<float> k({1, 2, 1, 8}), v({1, 2, 1, 8}), q({1, 2, 1, 8}), out({1, 2, 1, 8}), wanted({1, 2, 1, 8});
    k.fill_normal(random);
    v.fill_normal(random);
    q.fill_normal(random);
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      cache.append(layer, {&name, 1}, k.view, v.view);
      all.append(layer, {&other, 1}, k.view, v.view);
    }
    AttentionOptions options;
    options.window.left = 40, options.window.first = 3;
    attention(q.view, cache, 0, {&name, 1}, out.view, {}, options);
    attention(q.view, all, 0, {&other, 1}, wanted.view, {}, options);
    ASSERT_EQ(out.values, wanted.values) << "step " << step;
  }
  EXPECT_GE(cache.free_pages(), 1);
  EXPECT_EQ(cache.given_back(name).begin, 32);
}

// The rules that the cache adds to attention()'s own.
TEST(KvCacheAttentionRules, AreEachRefused) {
  KvCacheSpec spec = spec_of(KvStorage::float32, 8, 8);
  spec.window = 40, spec.first = 3;
  Grown<float> grown(spec, 3);
  const KvSequence name = grown.cache.add();
  for (int i = 0; i < 10; ++i) grown.grow(name, 20);
  Tensor<float> q({1, 2, 1, 8}), out({1, 2, 1, 8}), many({1, 2, 60, 8}), long_out({1, 2, 60, 8});
  Tensor<BFloat16> narrow({1, 2, 1, 8}), narrow_out({1, 2, 1, 8});
  AttentionOptions within;
  within.window.left = 40, within.window.first = 3;
  const auto refused = [&](ErrorCode code, const Words& words, const AttentionOptions& options, std::int64_t layer,
                           std::vector<KvSequence> names) {
    const std::vector<float> before = out.values;
    expect_error("attention", code, words,
                 [&] { attention(q.view, grown.cache, layer, names, out.view, {}, options); });
    EXPECT_EQ(out.values, before);
  };
  refused(kOption, {"layer is 2", "0 to 1"}, within, 2, {name});
  refused(kOption, {"sequence is 0", "none of this cache"}, within, 0, {KvSequence{}});
  refused(kOption, {"window.left is -1", "window is 40"}, {}, 0, {name});
  refused(kShape, {"must be equal"}, within, 0, {name, name});
  AttentionOptions options = within;
  options.window.left = 41;
  refused(kOption, {"window.left is 41", "window is 40"}, options, 0, {name});
  options = within;
  options.window.first = 4;
  refused(kOption, {"window.first is 4", "first 3"}, options, 0, {name});
  options = within;
  const std::vector<std::int64_t> lengths{5};
  options.lengths = lengths;
  refused(kOption, {"lengths"}, options, 0, {name});
  expect_error("attention", kOption, {"were given back", "the query at position 140"}, [&] {
    attention(many.view, grown.cache, 0, {&name, 1}, long_out.view, {}, within);
  });
  expect_error("attention", kShape, {"q is bfloat16", "float32"}, [&] {
    attention(narrow.view, grown.cache, 0, {&name, 1}, narrow_out.view, {}, within);
  });
  EXPECT_NO_THROW(attention(q.view, grown.cache, 0, {&name, 1}, out.view, {}, within));
}

}  // namespace
}  // namespace multihead::testing
