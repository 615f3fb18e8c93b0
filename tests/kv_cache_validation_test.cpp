// SPDX-License-Identifier: Apache-2.0
// Every rule of a KvCache: refused by name, and the cache is as it was.
#include <gtest/gtest.h>

#include "kv_cache_model.hpp"
#include "multihead/kv_cache.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

KvCacheSpec plain_spec() {
  KvCacheSpec spec;
  spec.layers = 2, spec.kv_heads = 2, spec.head_dim = 4, spec.value_dim = 3, spec.pages = 4, spec.page_len = 32;
  return spec;
}

const std::vector<float> kSomeScales(2 * 2 * 4, 0.5f), kBadScales(2 * 2 * 4, 0.0f);

struct SpecCall {
  KvCacheSpec spec = plain_spec();
};
std::vector<Case<SpecCall>> spec_cases() {
  std::vector<Case<SpecCall>> cases;
  const auto add = [&](const char* name, const std::function<void(KvCacheSpec&)>& change, Words words,
                       ErrorCode code = kOption) {
    cases.push_back({name, [change](SpecCall& c) { change(c.spec); }, code, std::move(words)});
  };
  using Spec = KvCacheSpec;
  add("storage", [](Spec& s) { s.storage = static_cast<KvStorage>(4); }, {"storage is 4", "int8"});
  add("scales", [](Spec& s) { s.scales = static_cast<KvScales>(-1); }, {"scales is -1", "per_channel"});
  add("layers", [](Spec& s) { s.layers = 0; }, {"layers is 0", "1 to"});
  add("kv_heads", [](Spec& s) { s.kv_heads = -1; }, {"kv_heads is -1"});
  add("head_dim", [](Spec& s) { s.head_dim = 1025; }, {"head_dim is 1025", "1 to 1024"});
  add("value_dim", [](Spec& s) { s.value_dim = 0; }, {"value_dim is 0", "1 to 1024"});
  add("pages", [](Spec& s) { s.pages = std::int64_t{1} << 31; }, {"pages is 2147483648"});
  add("no_pages", [](Spec& s) { s.pages = 0; }, {"pages is 0"});
  add("page_len", [](Spec& s) { s.page_len = 48; }, {"page_len is 48", "multiple of 32"});
  add("page_len_0", [](Spec& s) { s.page_len = 0; }, {"page_len is 0"});
  add("positions", [](Spec& s) { s.pages = 1 << 30, s.page_len = 1 << 20; }, {"pages x page_len", "2^48"});
  add("window", [](Spec& s) { s.window = -1; }, {"window is -1"});
  add("first", [](Spec& s) { s.first = 4; }, {"first is 4 without a window"});
  add("first_negative", [](Spec& s) { s.window = 3, s.first = -1; }, {"first is -1"});
  add("scales_given",
      [](Spec& s) {
        s.k_scales = {kSomeScales.data(), {2, 2, 4}};
      },
      {"scales must then be per_channel"});
  add("not_int8", [](Spec& s) { s.scales = KvScales::per_channel; }, {"storage must then be int8"});
  const auto int8 = [](Spec& s) {
    s.storage = KvStorage::int8, s.scales = KvScales::per_channel;
    s.k_scales = {kSomeScales.data(), {2, 2, 4}}, s.v_scales = {kSomeScales.data(), {2, 2, 3}};
  };
  add("missing", [=](Spec& s) { int8(s), s.v_scales = {}; }, {"v_scales is missing"});
  add(
      "layers_of_scales",
      [=](Spec& s) {
        int8(s), s.k_scales = {kSomeScales.data(), {1, 2, 4}};
      },
      {"k_scales has layers 1", "the cache has 2"}, kShape);
  add(
      "width_of_scales",
      [=](Spec& s) {
        int8(s), s.v_scales = {kSomeScales.data(), {2, 2, 4}};
      },
      {"v_scales has width 4", "the cache has 3"}, kShape);
  add("zero_scale",
      [=](Spec& s) {
        int8(s), s.v_scales = {kBadScales.data(), {2, 2, 3}};
      },
      {"v_scales has 0", "positive and finite"});
  add(
      "memory", [](Spec& s) { s.layers = s.kv_heads = 1 << 30; }, {"beyond the address space"},
      ErrorCode::out_of_memory);
  return cases;
}

class KvCacheSpecRule : public ::testing::TestWithParam<Case<SpecCall>> {};
TEST_P(KvCacheSpecRule, IsRefused) {
  SpecCall call;
  GetParam().change(call);
  expect_error("KvCache", GetParam().code, GetParam().words, [&] { KvCache cache(call.spec); });
}
INSTANTIATE_TEST_SUITE_P(All, KvCacheSpecRule, ::testing::ValuesIn(spec_cases()), name_of);

// A cache of two sequences, and all that can be seen of it.
struct Filled {
  KvCache cache;
  std::vector<KvSequence> names;

  explicit Filled(const KvCacheSpec& spec) : cache(spec), names{cache.add(), cache.add()} {
    std::vector<float> rows(2 * 2 * 40 * 4, 0.5f);
    for (std::int64_t layer = 0; layer < 2; ++layer)
      cache.append(layer, names, View4<const float>(rows.data(), {2, 2, 40, 4}), {rows.data(), {2, 2, 40, 3}});
  }
  std::vector<std::int64_t> seen() const {
    std::vector<std::int64_t> all{cache.free_pages(), cache.sequences()};
    for (const KvSequence name : names)
      for (std::int64_t layer = 0; layer < 2; ++layer) {
        std::vector<float> k(2 * 40 * 4), v(2 * 40 * 3);
        const View3<float> k_view(k.data(), {2, 40, 4}), v_view(v.data(), {2, 40, 3});
        cache.read(layer, name, 0, k_view, v_view);
        for (const std::int64_t number : {cache.length(name, layer), static_cast<std::int64_t>(hash_bits(k_view)),
                                          static_cast<std::int64_t>(hash_bits(v_view))})
          all.push_back(number);
      }
    return all;
  }
};

struct AppendCall {
  std::int64_t layer = 0;
  std::vector<int> which{0, 1};  // of Filled's names; 2: none
  std::array<std::int64_t, 4> k{2, 2, 3, 4}, v{2, 2, 3, 3};
  std::int64_t last_stride = 1;
  std::vector<std::int64_t> cu_seqlens;
  float value = 0.25f;
  bool null = false;
};

std::vector<Case<AppendCall>> append_cases() {
  std::vector<Case<AppendCall>> cases;
  const auto add = [&](const char* name, std::function<void(AppendCall&)> change, Words words,
                       ErrorCode code = kOption) {
    cases.push_back({name, std::move(change), code, std::move(words)});
  };
  using Call = AppendCall;
  add("layer", [](Call& c) { c.layer = 2; }, {"layer is 2", "0 to 1"});
  add("layer_negative", [](Call& c) { c.layer = -1; }, {"layer is -1"});
  add("foreign", [](Call& c) { c.which = {0, 2}; }, {"none of this cache"});
  add("twice", [](Call& c) { c.which = {1, 1}; }, {"named twice"});
  add(
      "batch", [](Call& c) { c.which = {0}; }, {"k has batch 2", "sequences are 1"}, kShape);
  add(
      "kv_heads", [](Call& c) { c.k[1] = 3; }, {"k has kv_heads 3", "the cache has 2"}, kShape);
  add(
      "v_kv_heads", [](Call& c) { c.v[1] = 1; }, {"v has kv_heads 1"}, kShape);
  add(
      "head_dim", [](Call& c) { c.k[3] = 5; }, {"k has head_dim 5", "the cache has 4"}, kShape);
  add(
      "value_dim", [](Call& c) { c.v[3] = 4; }, {"v has value_dim 4", "the cache has 3"}, kShape);
  add(
      "tokens", [](Call& c) { c.v[2] = 2; }, {"v has tokens 2", "k has 3"}, kShape);
  add(
      "v_batch", [](Call& c) { c.v[0] = 1; }, {"v has batch 1", "k has 2"}, kShape);
  add(
      "negative", [](Call& c) { c.k[2] = -1; }, {"k has extent -1"}, kShape);
  add(
      "stride", [](Call& c) { c.last_stride = 2; }, {"k has stride 2", "must be 1"}, kShape);
  add(
      "null", [](Call& c) { c.null = true; }, {"k is null"}, kShape);
  add(
      "pages", [](Call& c) { c.k[2] = c.v[2] = 30; }, {"2 pages are wanted", "0 are free"}, ErrorCode::out_of_memory);
  add("nan", [](Call& c) { c.value = kNan; }, {"k has nan at (0, 0, 0, 0)", "finite"});
  add("infinity", [](Call& c) { c.value = std::numeric_limits<float>::infinity(); }, {"k has inf", "finite"});
  const auto ragged = [](Call& c, std::vector<std::int64_t> bounds) {
    c.k = {1, 2, 3, 4}, c.v = {1, 2, 3, 3}, c.cu_seqlens = std::move(bounds);
  };
  add(
      "cu_batch",
      [=](Call& c) {
        ragged(c, {0, 1, 3}), c.k[0] = c.v[0] = 2;
      },
      {"k has batch 2", "it is 1"}, kShape);
  add(
      "cu_count",
      [=](Call& c) {
        ragged(c, {0, 3});
      },
      {"cu_seqlens has 2", "sequences + 1 are 3"}, kShape);
  add("cu_begin", [=](Call& c) { ragged(c, {1, 1, 3}); }, {"cu_seqlens begins with 1"});
  add("cu_falls", [=](Call& c) { ragged(c, {0, 4, 3}); }, {"falls from 4 to 3"});
  add(
      "cu_end",
      [=](Call& c) {
        ragged(c, {0, 1, 2});
      },
      {"cu_seqlens ends at 2", "tokens 3"}, kShape);
  return cases;
}

class KvCacheAppendRule : public ::testing::TestWithParam<Case<AppendCall>> {};
TEST_P(KvCacheAppendRule, IsRefusedAndChangesNothing) {
  KvCacheSpec spec = plain_spec();
  spec.storage = KvStorage::int8;
  Filled filled(spec);
  AppendCall call;
  GetParam().change(call);
  std::vector<KvSequence> names;
  for (const int which : call.which)
    names.push_back(which < 2 ? filled.names[static_cast<std::size_t>(which)] : KvSequence{77});
  std::vector<float> rows(2000, 0.5f);
  rows[0] = call.value;
  View4<const float> k(rows.data(), call.k);
  k = View4<const float>(call.null ? nullptr : rows.data(), call.k,
                         {k.stride(0), k.stride(1), k.stride(2), call.last_stride});
  const std::vector<std::int64_t> before = filled.seen();
  expect_error("KvCache.append", GetParam().code, GetParam().words, [&] {
    filled.cache.append(call.layer, names, k, {rows.data() + 1, call.v}, call.cu_seqlens);
  });
  EXPECT_EQ(filled.seen(), before);
}
INSTANTIATE_TEST_SUITE_P(All, KvCacheAppendRule, ::testing::ValuesIn(append_cases()), name_of);

TEST(KvCacheRules, OfSequencesAndReadsAreRefused) {
  Filled filled(plain_spec());
  KvCache& cache = filled.cache;
  const KvSequence name = filled.names[0];
  const std::vector<std::int64_t> before = filled.seen();
  expect_error("KvCache.fork", kOption, {"length is 41", "0 to 40"}, [&] { cache.fork(name, 41); });
  expect_error("KvCache.truncate", kOption, {"length is -1", "0 to 40"}, [&] { cache.truncate(name, -1); });
  expect_error("KvCache.length", kOption, {"layer is 5"}, [&] { cache.length(name, 5); });
  expect_error("KvCache.skip", kOption, {"no window"}, [&] { cache.skip(name, 32); });
  std::vector<float> rows(1000);
  std::vector<BFloat16> narrow(1000);
  const View3<float> k(rows.data(), {2, 3, 4}), v(rows.data() + 500, {2, 3, 3});
  expect_error("KvCache.read", kOption, {"first is 38", "k has 3 positions", "the layer has 40"},
               [&] { cache.read(0, name, 38, k, v); });
  expect_error("KvCache.read", kOption, {"first is -1"}, [&] { cache.read(0, name, -1, k, v); });
  expect_error("KvCache.read", kShape, {"overlaps", "must be apart"}, [&] {
    cache.read(0, name, 0, k, View3<float>(rows.data() + 5, {2, 3, 3}));
  });
  expect_error("KvCache.read", kShape, {"bfloat16", "holds float32"}, [&] {
    cache.read(0, name, 0, View3<BFloat16>(narrow.data(), {2, 3, 4}), View3<BFloat16>(narrow.data() + 500, {2, 3, 3}));
  });
  expect_error("KvCache.append", kShape, {"k and v are bfloat16", "holds float32"}, [&] {
    cache.append(0, {&name, 1}, View4<const BFloat16>(narrow.data(), {1, 2, 3, 4}), {narrow.data(), {1, 2, 3, 3}});
  });
  EXPECT_EQ(filled.seen(), before);
}

TEST(KvCacheRules, OfStoredRowsAreRefused) {
  KvCacheSpec spec = plain_spec();
  spec.storage = KvStorage::int8;
  Filled filled(spec);
  const KvSequence name = filled.names[0];
  std::vector<std::int8_t> rows(100, 1);
  std::vector<float> scales(100, 1.0f);
  using Stored = ScaledRows<const std::int8_t, const float>;
  const Stored k{{rows.data(), {2, 3, 4}}, {scales.data(), {2, 3}}},
      v{{rows.data(), {2, 3, 3}}, {scales.data(), {2, 3}}};
  const std::vector<std::int64_t> before = filled.seen();
  const auto refused = [&](ErrorCode code, const Words& words, const Stored& keys) {
    expect_error("KvCache.append", code, words, [&] { filled.cache.append(0, name, keys, v); });
  };
  refused(kShape, {"k.scales has tokens 2", "k has 3"}, {k.rows, {scales.data(), {2, 2}}});
  refused(kShape, {"k has width 3", "the cache has 4"}, {v.rows, k.scales});
  refused(kShape, {"v has tokens 3", "k has 2"}, {{rows.data(), {2, 2, 4}}, {scales.data(), {2, 2}}});
  rows[99] = -128;
  refused(kOption, {"k has -128"}, {{rows.data() + 76, {2, 3, 4}}, k.scales});
  scales[99] = -1;
  refused(kOption, {"k.scales has -1", "not negative"}, {k.rows, {scales.data() + 94, {2, 3}}});
  EXPECT_EQ(filled.seen(), before);
  EXPECT_NO_THROW(filled.cache.append(0, name, k, v));
}

}  // namespace
}  // namespace multihead::testing
