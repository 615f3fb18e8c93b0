// SPDX-License-Identifier: Apache-2.0
// mh_kv_cache: what C++ gives, bit for bit; what only C can get wrong.
#include <gtest/gtest.h>

#include "c_face.hpp"
#include "multihead/kv_cache.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

using c_face::require;
using c_face::tensor_of;

struct CCache {
  mh_kv_cache* handle = nullptr;
  explicit CCache(const mh_kv_cache_spec& spec) { require(mh_kv_cache_create(&spec, &handle)); }
  ~CCache() { mh_kv_cache_destroy(handle); }
  CCache(const CCache&) = delete;
};

mh_kv_cache_spec c_spec(mh_kv_storage storage) {
  mh_kv_cache_spec spec;
  mh_kv_cache_spec_init(&spec, sizeof spec);
  spec.storage = storage;
  spec.layers = 2, spec.kv_heads = 2, spec.head_dim = 5, spec.value_dim = 3, spec.pages = 9, spec.page_len = 32;
  return spec;
}

template <class T>
void expect_the_same(mh_kv_storage c_storage, KvStorage storage) {
  KvCacheSpec spec;
  spec.storage = storage;
  spec.layers = 2, spec.kv_heads = 2, spec.head_dim = 5, spec.value_dim = 3, spec.pages = 9, spec.page_len = 32;
  KvCache cache(spec);
  CCache c(c_spec(c_storage));
  KvSequence names[2] = {cache.add(), cache.add()};
  mh_kv_sequence c_names[2];
  for (mh_kv_sequence& name : c_names) require(mh_kv_cache_add(c.handle, &name));
  Random random(1);
  Tensor<T> k({1, 2, 61, 5}), v({1, 2, 61, 3}), q({2, 4, 1, 5}), out({2, 4, 1, 3}), c_out({2, 4, 1, 3});
  k.fill_normal(random);
  v.fill_normal(random);
  q.fill_normal(random);
  const std::vector<std::int64_t> bounds{0, 40, 61};
  const mh_tensor c_k = tensor_of(k.view), c_v = tensor_of(v.view), c_q = tensor_of(q.view),
                  c_result = tensor_of(c_out.view), c_bounds = tensor_of(std::span<const std::int64_t>(bounds));
  cache.append(1, names, k.view, v.view, bounds);
  require(mh_kv_cache_append(c.handle, 1, c_names, 2, &c_k, &c_v, &c_bounds));
  std::vector<float> lse(8), c_lse(8);
  const View3<float> lse_view(lse.data(), {2, 4, 1});
  const mh_tensor c_lse_tensor = tensor_of(View3<float>(c_lse.data(), {2, 4, 1}));
  attention(q.view, cache, 1, names, out.view, lse_view);
  require(mh_kv_cache_attention(c.handle, 1, c_names, 2, &c_q, &c_result, &c_lse_tensor, nullptr));
  EXPECT_EQ(hash_bits(c_out.view), hash_bits(out.view));
  EXPECT_EQ(c_lse, lse);
  std::int64_t number = -1, end = -1;
  require(mh_kv_cache_fork(c.handle, c_names[0], 33, &c_names[1]));
  require(mh_kv_cache_truncate(c.handle, c_names[1], 32));
  require(mh_kv_cache_length(c.handle, c_names[1], 1, &number));
  EXPECT_EQ(number, 32);
  require(mh_kv_cache_free_pages(c.handle, &number));
  EXPECT_EQ(number, 6);
  require(mh_kv_cache_remove(c.handle, c_names[1]));
  require(mh_kv_cache_sequences(c.handle, &number));
  EXPECT_EQ(number, 2);
  require(mh_kv_cache_given_back(c.handle, c_names[0], &number, &end));
  EXPECT_EQ(number + end, 0);
  if (storage == KvStorage::int8) return;
  Tensor<T> k_read({1, 2, 40, 5}), v_read({1, 2, 40, 3});
  const mh_tensor k_part = tensor_of(View3<T>(k_read.values.data(), {2, 40, 5}));
  const mh_tensor v_part = tensor_of(View3<T>(v_read.values.data(), {2, 40, 3}));
  require(mh_kv_cache_read(c.handle, 1, c_names[0], 0, &k_part, &v_part));
  EXPECT_EQ(hash_bits(k_read.view), hash_bits(View4<T>(k.values.data(), {1, 2, 40, 5}, k.view.strides())));
}

TEST(CKvCache, GivesWhatCppGives) {
  expect_the_same<float>(MH_KV_FLOAT32, KvStorage::float32);
  expect_the_same<BFloat16>(MH_KV_BFLOAT16, KvStorage::bfloat16);
  expect_the_same<Float16>(MH_KV_FLOAT16, KvStorage::float16);
  expect_the_same<float>(MH_KV_INT8, KvStorage::int8);
}

void expect_status(mh_status got, mh_status wanted, const std::string& word) {
  EXPECT_EQ(got, wanted) << mh_last_error_message();
  EXPECT_NE(std::string(mh_last_error_message()).find(word), std::string::npos) << mh_last_error_message();
}

TEST(CKvCache, RefusesWhatOnlyCCanGetWrong) {
  const mh_kv_cache_spec good = c_spec(MH_KV_FLOAT32);
  CCache c(good);
  mh_kv_cache* made = nullptr;
  mh_kv_cache_spec spec = good;
  spec.reserved = 1;
  expect_status(mh_kv_cache_create(&spec, &made), MH_BAD_ARGUMENT, "reserved");
  spec = good, spec.storage = 4;
  expect_status(mh_kv_cache_create(&spec, &made), MH_BAD_ARGUMENT, "storage is 4");
  spec = good, spec.scales = -1;
  expect_status(mh_kv_cache_create(&spec, &made), MH_BAD_ARGUMENT, "scales is -1");
  spec = good, spec.struct_size = 8;
  expect_status(mh_kv_cache_create(&spec, &made), MH_BAD_ARGUMENT, "struct_size 8");
  spec = good, spec.window = -2;
  expect_status(mh_kv_cache_create(&spec, &made), MH_BAD_OPTION, "window is -2");
  expect_status(mh_kv_cache_create(nullptr, &made), MH_BAD_ARGUMENT, "spec is NULL");
  expect_status(mh_kv_cache_create(&good, nullptr), MH_BAD_ARGUMENT, "cache is NULL");
  EXPECT_EQ(made, nullptr);
  mh_kv_cache_destroy(nullptr);
  mh_kv_sequence name = 0;
  expect_status(mh_kv_cache_add(nullptr, &name), MH_BAD_ARGUMENT, "cache is NULL");
  expect_status(mh_kv_cache_add(c.handle, nullptr), MH_BAD_ARGUMENT, "sequence is NULL");
  expect_status(mh_kv_cache_remove(c.handle, 0), MH_BAD_OPTION, "none of this cache");
  require(mh_kv_cache_add(c.handle, &name));
  expect_status(mh_kv_cache_fork(c.handle, name, -2, &name), MH_BAD_OPTION, "length is -2");
  std::vector<double> wide(30);
  std::vector<float> rows(30);
  const mh_tensor k = tensor_of(View4<float>(rows.data(), {1, 2, 3, 5})),
                  v = tensor_of(View4<float>(rows.data(), {1, 2, 3, 3}));
  const mh_tensor wide_k = tensor_of(View4<double>(wide.data(), {1, 2, 3, 5}));
  expect_status(mh_kv_cache_append(c.handle, 0, &name, 1, &wide_k, &v, nullptr), MH_BAD_TYPE, "k has type float64");
  expect_status(mh_kv_cache_append(c.handle, 0, &name, 1, &k, &wide_k, nullptr), MH_BAD_TYPE, "v has type float64");
  expect_status(mh_kv_cache_append(c.handle, 0, nullptr, 1, &k, &v, nullptr), MH_BAD_ARGUMENT, "sequences is NULL");
  expect_status(mh_kv_cache_append(c.handle, 0, &name, 1, nullptr, &v, nullptr), MH_BAD_ARGUMENT, "k is missing");
}

}  // namespace
}  // namespace multihead::testing
