// SPDX-License-Identifier: Apache-2.0
// The C face of paged attention gives what C++ gives, bit for bit, and what only C can get wrong of it is refused.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>

#include "c_face.hpp"
#include "multihead/paged_attention.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

// Two sequences of 5 and 2 positions in pages of 3; two heads over one kv head.
template <class T>
struct Paged {
  std::vector<T> q = drawn(1, 2 * 2 * 2 * 4), k = drawn(2, 4 * 3 * 4), v = drawn(3, 4 * 3 * 3), out;
  std::vector<float> lse;
  std::vector<std::int32_t> table{2, 0, 3, -1};
  std::vector<std::int64_t> lengths{5, 2};

  static std::vector<T> drawn(std::uint64_t seed, std::size_t count) {
    Random random(seed);
    std::vector<T> values;
    for (std::size_t i = 0; i < count; ++i) values.push_back(static_cast<T>(static_cast<float>(random.normal())));
    return values;
  }
  View4<const T> queries() const { return {q.data(), {2, 2, 2, 4}}; }
  View4<const T> k_pages() const { return {k.data(), {4, 3, 1, 4}}; }
  View4<const T> v_pages() const { return {v.data(), {4, 3, 1, 3}}; }
  MatrixView<const std::int32_t> block_table() const { return {table.data(), {2, 2}}; }
  View4<T> output() {
    out.assign(2 * 2 * 2 * 3, T(7.0f));
    return {out.data(), {2, 2, 2, 3}};
  }
  View3<float> sums() {
    lse.assign(2 * 2 * 2, 7);
    return {lse.data(), {2, 2, 2}};
  }
};

template <class T>
class CPaged : public ::testing::Test {};
using Types = ::testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(CPaged, Types);

TYPED_TEST(CPaged, HasTheBitsOfCpp) {
  using T = TypeParam;
  Paged<T> x;
  const PagedKeys<T> keys{x.k_pages(), x.v_pages(), x.block_table(), x.lengths};
  const View4<T> out = x.output();
  const View3<float> lse = x.sums();
  paged_attention(x.queries(), keys, out, lse, {.causal = true});
  const std::uint64_t wanted = hash_bits(lse, hash_bits(out));
  const mh_tensor q = c_face::tensor_of(x.queries()), k = c_face::tensor_of(x.k_pages()),
                  v = c_face::tensor_of(x.v_pages()),
                  lengths = c_face::tensor_of(View<const std::int64_t, 1>(x.lengths.data(), {2}));
  mh_tensor table =
      c_face::tensor_of(View<const std::uint32_t, 2>(reinterpret_cast<const std::uint32_t*>(x.table.data()), {2, 2}));
  table.type = MH_INT32;
  const View4<T> c_out = x.output();
  const View3<float> c_lse = x.sums();
  const mh_tensor out_tensor = c_face::tensor_of(c_out), lse_tensor = c_face::tensor_of(c_lse);
  mh_paged_keys paged;
  mh_paged_keys_init(&paged, sizeof paged);
  paged.k_pages = &k, paged.v_pages = &v, paged.block_table = &table, paged.lengths = &lengths;
  mh_attention_options options;
  mh_attention_options_init(&options, sizeof options);
  options.causal = 1;
  ASSERT_EQ(mh_paged_attention(&q, &paged, &out_tensor, &lse_tensor, &options), MH_OK) << mh_last_error_message();
  EXPECT_EQ(hash_bits(c_lse, hash_bits(c_out)), wanted);
}

TEST(CPaged, RefusesWhatOnlyCCanGetWrong) {
  Paged<float> x;
  const mh_tensor q = c_face::tensor_of(x.queries()), k = c_face::tensor_of(x.k_pages()),
                  v = c_face::tensor_of(x.v_pages()),
                  lengths = c_face::tensor_of(View<const std::int64_t, 1>(x.lengths.data(), {2})),
                  out = c_face::tensor_of(x.output());
  mh_tensor table =
      c_face::tensor_of(View<const std::uint32_t, 2>(reinterpret_cast<const std::uint32_t*>(x.table.data()), {2, 2}));
  struct Refusal {
    mh_status status;
    const char* says;
    std::function<void(mh_paged_keys&)> change;
  };
  const Refusal refusals[] = {
      {MH_BAD_TYPE, "block_table has type uint32; it must be int32", [](mh_paged_keys&) {}},
      {MH_BAD_ARGUMENT, "k_pages", [](mh_paged_keys& keys) { keys.k_pages = nullptr; }},
      {MH_BAD_ARGUMENT, "v_pages", [](mh_paged_keys& keys) { keys.v_pages = nullptr; }},
      {MH_BAD_ARGUMENT, "block_table", [](mh_paged_keys& keys) { keys.block_table = nullptr; }},
      {MH_BAD_ARGUMENT, "mh_paged_keys.reserved is 1", [](mh_paged_keys& keys) { keys.reserved = 1; }},
      {MH_BAD_ARGUMENT, "struct_size", [](mh_paged_keys& keys) { keys.struct_size = 3; }},
  };
  for (const Refusal& refusal : refusals) {
    mh_paged_keys paged;
    mh_paged_keys_init(&paged, sizeof paged);
    paged.k_pages = &k, paged.v_pages = &v, paged.block_table = &table, paged.lengths = &lengths;
    refusal.change(paged);
    EXPECT_EQ(mh_paged_attention(&q, &paged, &out, nullptr, nullptr), refusal.status) << refusal.says;
    EXPECT_NE(std::string(mh_last_error_message()).find(refusal.says), std::string::npos) << mh_last_error_message();
  }
  EXPECT_EQ(mh_paged_attention(&q, nullptr, &out, nullptr, nullptr), MH_BAD_ARGUMENT);
  for (float value : x.out) EXPECT_EQ(value, 7);
}

}  // namespace
}  // namespace multihead::testing
