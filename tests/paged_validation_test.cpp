// SPDX-License-Identifier: Apache-2.0
// Every rule of paged_attention(), and of the entry that all attention over cached keys shares.
#include <gtest/gtest.h>

#include <limits>

#include "multihead/paged_attention.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kSequences = 2, kPages = 5, kPageLen = 4, kColumns = 3;

struct PagedCall {
  AttentionOptions options = {};
  Layout q{0, {kSequences, 4, 3, 4}}, k_pages{1, {kPages, kPageLen, 2, 4}}, v_pages{2, {kPages, kPageLen, 2, 5}};
  Layout out{3, {kSequences, 4, 3, 5}}, lse{4, {kSequences, 4, 3}};
  std::vector<std::int32_t> table{4, 0, 2, 1, 3, -7};  // the last page is of no valid position
  std::array<std::int64_t, 2> table_extents{kSequences, kColumns}, table_strides{kColumns, 1};
  bool table_null = false, asks_lse = true;
  std::vector<std::int64_t> lengths{11, 8};

  template <class T>
  void run(std::vector<T>& arena) const {
    PagedKeys<T> keys;
    keys.k_pages = k_pages.view<const T, 4>(arena), keys.v_pages = v_pages.view<const T, 4>(arena);
    keys.block_table = {table_null ? nullptr : table.data(), table_extents, table_strides};
    keys.lengths = lengths;
    paged_attention(q.view<const T, 4>(arena), keys, out.view<T, 4>(arena), lse_of(arena), options);
  }
  template <class T>
  View3<float> lse_of(std::vector<T>& arena) const {
    if constexpr (std::is_same_v<T, float>)
      return asks_lse ? lse.view<float, 3>(arena) : View3<float>{};
    else
      return {};
  }
};

using P = PagedCall;
using Cases = std::vector<Case<P>>;

constexpr std::int64_t two[] = {1, 2}, one[] = {1}, negative[] = {3, -1}, far_off[] = {1, kHuge << 20};
constexpr std::int64_t good_bounds[] = {0, 1, 3}, late[] = {1, 2, 3}, falling[] = {0, 4, 3}, short_of[] = {0, 1, 2},
                       few[] = {0, 3};
constexpr std::int64_t ids[6] = {};
constexpr double three[] = {1, 2, 3};
constexpr std::uint8_t bytes[64] = {};

Cases layouts() {
  const std::vector<Operand<P>> inputs{{"q", &P::q}, {"k_pages", &P::k_pages}, {"v_pages", &P::v_pages}};
  std::vector<Operand<P>> all = inputs;
  all.emplace_back("out", &P::out);
  Cases cases{longer(&P::q, 0, "q has batch", "the number of sequences is"),
              longer(&P::k_pages, 3, "q has head_dim 4, the cache has", "the cache has"),
              longer(&P::v_pages, 0, "v_pages has pages", "k_pages has"),
              longer(&P::v_pages, 1, "v_pages has page_len", "k_pages has"),
              longer(&P::v_pages, 2, "v_pages has kv_heads", "k_pages has"),
              longer(&P::out, 0, "out has batch", "q has"),
              longer(&P::out, 1, "out has heads", "q has"),
              longer(&P::out, 2, "out has q_len", "q has"),
              longer(&P::out, 3, "out has value_dim", "the cache has")};
  cases[0].change = [](P& c) { c.q = Layout(0, {3, 4, 3, 4}), c.out = Layout(3, {3, 4, 3, 5}), c.asks_lse = false; };
  cases[1] = {"head_dim",
              [](P& c) {
                c.k_pages = Layout(1, {kPages, kPageLen, 2, 3});
              },
              kShape,
              {"q has head_dim 4", "the cache has 3", "must be equal"}};
  add_view_rules<P>(cases, all, false);
  add_last_axis_rules<P>(cases, all);
  add_overlap_rules<P>(cases, {"out", &P::out}, inputs);
  return cases;
}

Cases of_lse() {
  Cases cases = {longer(&P::lse, 0, "lse has batch", "q has"), longer(&P::lse, 1, "lse has heads", "q has"),
                 longer(&P::lse, 2, "lse has q_len", "q has")};
  add_view_rules<P>(cases, {{"lse", &P::lse}}, false);
  add_overlap_rules<P>(cases, {"lse", &P::lse},
                       {{"q", &P::q}, {"k_pages", &P::k_pages}, {"v_pages", &P::v_pages}, {"out", &P::out}});
  return cases;
}

Cases tables() {
  return {
      {"page_foreign", [](P& c) { c.table[1] = kPages; }, kOption, {"a page of block_table is 5", "must be 0 to 4"}},
      {"page_given_back", [](P& c) { c.table[2] = -1; }, kOption, {"a page of block_table is -1", "must be 0 to 4"}},
      {"page_of_the_second", [](P& c) { c.lengths[1] = 9; }, kOption, {"a page of block_table is -7"}},
      {"length_beyond", [](P& c) { c.lengths[0] = 13; }, kOption, {"a length is 13", "must be 0 to 12"}},
      {"length_minus", [](P& c) { c.lengths[1] = -1; }, kOption, {"a length is -1", "must be 0 to 12"}},
      {"length_far",
       [](P& c) { c.lengths[1] = std::numeric_limits<std::int64_t>::max(); },
       kOption,
       {"a length is 92233"}},
      {"lengths_count",
       [](P& c) { c.lengths.pop_back(); },
       kShape,
       {"lengths has 1", "block_table has sequences 2", "equal"}},
      {"table_rows",
       [](P& c) { c.table_extents[0] = 1, c.lengths.pop_back(); },
       kShape,
       {"q has batch 2", "sequences is 1"}},
      {"table_null", [](P& c) { c.table_null = true; }, kShape, {"block_table is null"}},
      {"table_negative", [](P& c) { c.table_extents[1] = -3; }, kShape, {"block_table has extent -3"}},
      {"table_stride",
       [](P& c) {
         c.table_strides = {1, 2};
       },
       kShape,
       {"block_table has stride 2", "must be 1"}},
      {"page_len_0", [](P& c) { c.k_pages.extents[1] = c.v_pages.extents[1] = 0; }, kOption, {"page_len is 0"}},
      {"kv_heads_0", [](P& c) { c.k_pages.extents[2] = c.v_pages.extents[2] = 0; }, kOption, {"kv_heads is 0"}},
      {"heads_3_of_2",
       [](P& c) {
         c.q = Layout(0, {2, 3, 3, 4}), c.out = Layout(3, {2, 3, 3, 5}), c.asks_lse = false;
       },
       kShape,
       {"heads is 3", "kv_heads is 2", "multiple"}},
      {"head_dim_0", [](P& c) { c.k_pages.extents[3] = 0; }, kOption, {"head_dim is 0", "1 to 1024"}},
      {"value_dim_1025", [](P& c) { c.v_pages.extents[3] = 1025; }, kOption, {"value_dim is 1025", "1 to 1024"}},
  };
}

// What the cache decides, what is listed for each sequence, and what attention() refuses too.
Cases options() {
  const auto packed = [](std::span<const std::int64_t> bounds) {
    return [=](P& c) {
      c.q = Layout(0, {1, 4, 3, 4}), c.out = Layout(3, {1, 4, 3, 5}), c.asks_lse = false;
      c.options.cu_seqlens_q = bounds;
    };
  };
  return {
      {"lengths", [](P& c) { c.options.lengths = two; }, kOption, {"lengths are given", "the cache decides"}},
      {"cu_seqlens_k", [](P& c) { c.options.cu_seqlens_k = good_bounds; }, kOption, {"cu_seqlens_k are given"}},
      {"segments",
       [](P& c) {
         c.options.q_segments = {ids, {2, 3}};
       },
       kOption,
       {"segments are given"}},
      {"kv_segments",
       [](P& c) {
         c.options.kv_segments = {ids, {2, 3}};
       },
       kOption,
       {"segments are given"}},
      {"cu_seqlens_late", packed(late), kOption, {"cu_seqlens_q begins with 1", "must begin with 0"}},
      {"cu_seqlens_falling", packed(falling), kOption, {"cu_seqlens_q falls from 4 to 3"}},
      {"cu_seqlens_short", packed(short_of), kOption, {"cu_seqlens_q ends at 2", "q_len is 3"}},
      {"cu_seqlens_few", packed(few), kShape, {"cu_seqlens_q has 2", "3"}},
      {"cu_seqlens_batch", [](P& c) { c.options.cu_seqlens_q = good_bounds; }, kOption, {"batch is 2", "must be 1"}},
      {"prefixes_alone", [](P& c) { c.options.prefixes = two; }, kOption, {"prefixes are given without causal"}},
      {"prefixes_count", [](P& c) { c.options.causal = true, c.options.prefixes = one; }, kShape, {"prefixes has 1"}},
      {"prefix_minus",
       [](P& c) { c.options.causal = true, c.options.prefixes = negative; },
       kOption,
       {"a prefix is -1", "0 to 8"}},
      {"offsets_count", [](P& c) { c.options.alignment = Alignment::at(one); }, kShape, {"query offsets has 1"}},
      {"offset_far",
       [](P& c) { c.options.alignment = Alignment::at(kHuge << 20); },
       kOption,
       {"query offset is 11529215"}},
      {"offsets_far",
       [](P& c) { c.options.alignment = Alignment::at(far_off); },
       kOption,
       {"query offset is 11529215"}},
      {"alibi_count", [](P& c) { c.options.alibi_slopes = three; }, kShape, {"alibi_slopes has 3", "heads is 4"}},
      {"scale", [](P& c) { c.options.scale = std::numeric_limits<double>::infinity(); }, kOption, {"scale", "finite"}},
      {"mask_keys",
       [](P& c) {
         c.options.keep_mask = MatrixView<const std::uint8_t>(bytes, {3, 10});
       },
       kShape,
       {"keep_mask has kv_len 10", "have 11"}},
  };
}

Cases running() {
  Cases cases{foreign_target<P>()};
  add_thread_rules(cases);
  return cases;
}

struct AtPaged : ::testing::TestWithParam<Case<P>> {};
TEST_P(AtPaged, Refused) {
  const auto door = [](const P& call, auto& arena) { call.run(arena); };
  expect_refused<float>("paged_attention", GetParam(), P(), door);
}
INSTANTIATE_TEST_SUITE_P(Layouts, AtPaged, ::testing::ValuesIn(layouts()), name_of);
INSTANTIATE_TEST_SUITE_P(Lse, AtPaged, ::testing::ValuesIn(of_lse()), name_of);
INSTANTIATE_TEST_SUITE_P(Tables, AtPaged, ::testing::ValuesIn(tables()), name_of);
INSTANTIATE_TEST_SUITE_P(Options, AtPaged, ::testing::ValuesIn(options()), name_of);
INSTANTIATE_TEST_SUITE_P(Running, AtPaged, ::testing::ValuesIn(running()), name_of);

struct AtPagedHalves : ::testing::TestWithParam<Case<P>> {};
TEST_P(AtPagedHalves, Refused) {
  const auto door = [](const P& call, auto& arena) { call.run(arena); };
  expect_refused<BFloat16>("paged_attention", GetParam(), P(), door);
  expect_refused<Float16>("paged_attention", GetParam(), P(), door);
}
INSTANTIATE_TEST_SUITE_P(Tables, AtPagedHalves, ::testing::ValuesIn(tables()), name_of);

// What comes close to a rule and breaks none.
TEST(PagedValidation, LegalAtTheEdge) {
  std::vector<float> arena(kArena, 0.5f);
  const auto runs = [&](auto change) {
    P call;
    change(call), call.run(arena);
  };
  EXPECT_NO_THROW(runs([](P& c) { c.lengths = {12, 8}; }));
  EXPECT_NO_THROW(runs([](P& c) { c.lengths = {0, 0}, c.table.assign(6, -1); }));
  EXPECT_NO_THROW(runs([](P& c) { c.lengths = {0, 1}; }));            // fewer keys than queries
  EXPECT_NO_THROW(runs([](P& c) { c.table = {0, 0, 0, 0, 0, 0}; }));  // a page may be anyone's
  EXPECT_NO_THROW(runs([](P& c) { c.options.threads = 65536; }));
  EXPECT_NO_THROW(runs([](P& c) { c.options.causal = true, c.options.alignment = Alignment::at(two); }));
  EXPECT_NO_THROW(runs([](P& c) { c.options.causal = true, c.options.prefixes = two; }));
  EXPECT_NO_THROW(runs([](P& c) {
    c.q = Layout(0, {0, 4, 3, 4}), c.out = Layout(3, {0, 4, 3, 5}), c.lse = Layout(4, {0, 4, 3});
    c.table_extents[0] = 0, c.table_null = true, c.lengths.clear();
  }));
  EXPECT_NO_THROW(runs([](P& c) {
    c.q = Layout(0, {1, 4, 3, 4}), c.out = Layout(3, {1, 4, 3, 5}), c.lse = Layout(4, {1, 4, 3});
    c.options.cu_seqlens_q = good_bounds;
  }));
}

}  // namespace
}  // namespace multihead::testing
