// SPDX-License-Identifier: Apache-2.0
// A sequence in a file and back, bit for bit; another cache's and malformed files refused, and the cache as it was.
#include "multihead/kv_cache_files.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "multihead/safetensors.hpp"
#include "problem.hpp"
#include "refusals.hpp"
#include "safetensors_file.hpp"

namespace multihead::testing {
namespace {

KvCacheSpec spec_of(KvStorage storage) {
  KvCacheSpec spec;
  spec.storage = storage;
  spec.layers = 2, spec.kv_heads = 2, spec.head_dim = 5, spec.value_dim = 3, spec.pages = 12, spec.page_len = 32;
  return spec;
}

template <class T>
void grow(KvCache& cache, KvSequence name, std::int64_t tokens, Random& random, std::int64_t layers = 2) {
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    Tensor<T> k({1, 2, tokens, 5}), v({1, 2, tokens, 3});
    k.fill_normal(random);
    v.fill_normal(random);
    cache.append(layer, {&name, 1}, k.view, v.view);
  }
}

class KvCacheFiles : public InFolder {
 protected:
  std::filesystem::path path(const char* name) const { return folder_ / name; }

  // Saved, loaded into another cache and saved again: the same bytes, lengths and gap.
  void expect_round_trip(const KvCache& from, KvSequence name, KvCache& to) const {
    save_sequence(path("a.safetensors"), from, name);
    const std::int64_t sequences = to.sequences();
    const KvSequence loaded = load_sequence(path("a.safetensors"), to);
    EXPECT_EQ(to.sequences(), sequences + 1);
    for (std::int64_t layer = 0; layer < 2; ++layer) EXPECT_EQ(to.length(loaded, layer), from.length(name, layer));
    EXPECT_EQ(to.given_back(loaded).begin, from.given_back(name).begin);
    EXPECT_EQ(to.given_back(loaded).end, from.given_back(name).end);
    save_sequence(path("b.safetensors"), to, loaded);
    EXPECT_EQ(get(path("a.safetensors")), get(path("b.safetensors")));
  }
  void refused(KvCache& cache, ErrorCode code, const Words& words) const {
    const std::int64_t sequences = cache.sequences(), pages = cache.free_pages();
    expect_error("load_sequence", code, words, [&] { load_sequence(path("a.safetensors"), cache); });
    EXPECT_EQ(cache.sequences(), sequences);
    EXPECT_EQ(cache.free_pages(), pages);
  }

  Random random{4};
};

TEST_F(KvCacheFiles, ComeBackBitForBit) {
  const auto try_type = [this]<class T>(T, KvCacheSpec spec) {
    KvCache from(spec);
    const KvSequence name = from.add();
    grow<T>(from, name, 50, random);
    grow<T>(from, name, 1, random, 1);  // layer 1 is one behind
    spec.page_len = 96;
    KvCache to(spec);
    expect_round_trip(from, name, to);
    expect_round_trip(from, from.add(), to);
  };
  try_type(float(), spec_of(KvStorage::float32));
  try_type(BFloat16(), spec_of(KvStorage::bfloat16));
  try_type(Float16(), spec_of(KvStorage::float16));
  try_type(float(), spec_of(KvStorage::int8));
  const std::vector<float> scales(20, 0.02f);
  KvCacheSpec by_channel = spec_of(KvStorage::int8);
  by_channel.scales = KvScales::per_channel;
  by_channel.k_scales = {scales.data(), {2, 2, 5}}, by_channel.v_scales = {scales.data(), {2, 2, 3}};
  try_type(float(), by_channel);
}

TEST_F(KvCacheFiles, ComeBackWithTheirGap) {
  for (const KvStorage storage : {KvStorage::float32, KvStorage::int8}) {
    KvCacheSpec spec = spec_of(storage);
    spec.window = 40, spec.first = 3;
    KvCache from(spec), to(spec);
    const KvSequence name = from.add();
    for (int i = 0; i < 30; ++i) grow<float>(from, name, 7, random);
    ASSERT_GT(from.given_back(name).end, 100);
    expect_round_trip(from, name, to);
  }
}

TEST_F(KvCacheFiles, OfAnotherCacheAreRefused) {
  KvCache from(spec_of(KvStorage::int8));
  const KvSequence name = from.add();
  grow<float>(from, name, 50, random);
  save_sequence(path("a.safetensors"), from, name);
  KvCache narrow(spec_of(KvStorage::float32));
  refused(narrow, kOption, {"storage is int8", "float32"});
  KvCacheSpec spec = spec_of(KvStorage::int8);
  spec.window = 7;
  KvCache sliding(spec);
  refused(sliding, kOption, {"window is none", "7"});
  spec = spec_of(KvStorage::int8);
  spec.pages = 1;
  KvCache small(spec);
  expect_error("KvCache.append", ErrorCode::out_of_memory, {"2 pages are wanted"},
               [&] { load_sequence(path("a.safetensors"), small); });
  EXPECT_EQ(small.sequences(), 0);
  EXPECT_EQ(small.free_pages(), 1);
  expect_error("KvCache.given_back", kOption, {"none of this cache"},
               [&] { save_sequence(path("a.safetensors"), narrow, name); });
}

// What save_sequence() wrote, with one thing changed.
TEST_F(KvCacheFiles, ThatAreMalformedAreRefused) {
  KvCacheSpec spec = spec_of(KvStorage::int8);
  spec.window = 8;
  KvCache from(spec), to(spec);
  const KvSequence name = from.add();
  grow<float>(from, name, 2, random);
  save_sequence(path("good.safetensors"), from, name);
  const auto changed = [&](const std::function<void(std::vector<StoredTensor>&, Metadata&)>& change, Words words,
                           ErrorCode code = ErrorCode::file_malformed) {
    const Safetensors file(path("good.safetensors"));
    std::vector<StoredTensor> tensors(file.tensors().begin(), file.tensors().end());
    Metadata metadata = file.metadata();
    change(tensors, metadata);
    write_safetensors(path("a.safetensors"), tensors, metadata);
    words.push_back("a.safetensors");
    refused(to, code, words);
  };
  const auto value_of = [](Metadata& metadata, const char* key) -> std::string& {
    return std::find_if(metadata.begin(), metadata.end(), [&](const auto& pair) { return pair.first == key; })->second;
  };
  const auto tensor = [](std::vector<StoredTensor>& tensors, const char* key) -> StoredTensor& {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const auto& found) { return found.name == key; });
  };
  changed([](auto&, auto& metadata) { metadata.clear(); }, {"format is missing"});
  changed([&](auto&, auto& metadata) { value_of(metadata, "format") = "other"; }, {"format is other"});
  changed([&](auto&, auto& metadata) { value_of(metadata, "layers") = "3"; }, {"layers is 3", "is 2"}, kOption);
  changed([&](auto&, auto& metadata) { value_of(metadata, "given_back_end") = "-1"; }, {"given_back_end is -1"});
  changed([&](auto&, auto& metadata) { value_of(metadata, "given_back_end") = "32x"; }, {"given_back_end is 32x"});
  changed([&](auto&, auto& metadata) { value_of(metadata, "given_back_begin") = "64"; },
          {"given_back is from 64 to 0"});
  changed([&](auto&, auto& metadata) { value_of(metadata, "given_back_end") = "32"; }, {"layers.0 has 2 positions"});
  changed([](auto& tensors, auto&) { tensors.pop_back(); }, {"it has 7 tensors", "4 a layer"});
  changed([&](auto& tensors, auto&) { tensor(tensors, "layers.1.v").name = "layers.2.v"; }, {"no tensor 'layers.1.v'"});
  changed(
      [&](auto& tensors, auto&) {
        tensor(tensors, "layers.0.k").shape = {2, 5, 2};
      },
      {"'layers.0.k' is not I8 (2, 5, 5)"});
  changed([&](auto& tensors, auto&) { tensor(tensors, "layers.0.k").dtype = "U8"; }, {"'layers.0.k' is not I8"});
  changed([&](auto& tensors, auto&) { tensor(tensors, "layers.1.v_scales").dtype = "I32"; },
          {"'layers.1.v_scales' is not F32 (2, 2)"});
  std::vector<std::byte> bytes(20, std::byte{0x80});
  changed([&](auto& tensors, auto&) { tensor(tensors, "layers.0.k").bytes = bytes; }, {"k of layer 0 has -128"});
  std::vector<std::byte> negative(16, std::byte{0xBF});
  changed([&](auto& tensors, auto&) { tensor(tensors, "layers.0.k_scales").bytes = negative; },
          {"'layers.0.k_scales' has -1", "not negative"});
  expect_error("Safetensors", ErrorCode::file_missing, {"none.safetensors"},
               [&] { load_sequence(path("none.safetensors"), to); });
  EXPECT_EQ(to.sequences(), 0);
}

}  // namespace
}  // namespace multihead::testing
