// SPDX-License-Identifier: Apache-2.0
// What the schedule of cached attention does: decodes few queries, splits long sequences, reads shared prefixes once,
// never looks at what is hidden, allocates nothing.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>

#include "allocations.hpp"
#include "cached_pages.hpp"
#include "kernels/decode_task.hpp"

namespace multihead::testing {
namespace {

// Keys and values of some sequences of one length, which may share their first positions, plain and cached.
struct Cached {
  Random random{5};
  std::int64_t count, length, heads, kv_heads, head_dim = 32, value_dim = 24;
  Tensor<float> k, v;
  CachedPages pages;

  Cached(std::int64_t sequences, std::int64_t positions, std::int64_t all_heads, std::int64_t of_keys,
         std::int64_t shared = 0)
      : count(sequences),
        length(positions),
        heads(all_heads),
        kv_heads(of_keys),
        k({count, kv_heads, length, head_dim}),
        v({count, kv_heads, length, value_dim}),
        pages({.page_len = 64, .kv_heads = kv_heads, .head_dim = head_dim, .value_dim = value_dim},
              count * (length / 64 + 2), random) {
    k.fill_normal(random), v.fill_normal(random);
    for (std::int64_t s = 0; s < count; ++s) {
      const bool like = s > 0 && shared > 0;
      pages.add(length, like ? 0 : -1, shared);
      for (std::int64_t h = 0; h < kv_heads; ++h)
        for (std::int64_t p = 0; p < length; ++p) {
          if (like && p < shared) {
            std::copy_n(&k.view(0, h, p, 0), head_dim, &k.view(s, h, p, 0));
            std::copy_n(&v.view(0, h, p, 0), value_dim, &v.view(s, h, p, 0));
          }
          write(s, h, p);
        }
    }
  }
  void write(std::int64_t s, std::int64_t h, std::int64_t p) {
    pages.write(s, h, p, &k.view(s, h, p, 0), &v.view(s, h, p, 0));
  }

  // Queries for the last rows of all sequences; what attention() and cached attention make of them. attention() gets
  // more rows before these, so that it does not decode; not with dropout, which counts rows in tensors and is not
  // decoded.
  struct Answers {
    Tensor<float> all_q, all, cached;
    View4<float> q, plain;
    std::uint64_t tasks = 0;  // of the cached call
  };
  std::unique_ptr<Answers> ask(std::int64_t rows, AttentionOptions options) {
    const auto extents = [&](std::int64_t n, std::int64_t width) { return std::array{count, heads, n, width}; };
    const std::int64_t before_these = options.dropout.probability > 0 ? 0 : kDecodeQueries;
    std::unique_ptr<Answers> answers(new Answers{Tensor<float>(extents(rows + before_these, head_dim)),
                                                 Tensor<float>(extents(rows + before_these, value_dim)),
                                                 Tensor<float>(extents(rows, value_dim)),
                                                 {},
                                                 {}});
    const auto last = [&]<class T>(const View4<T>& all) {
      return View4<T>(&all(0, 0, before_these, 0), extents(rows, all.extent(3)), all.strides());
    };
    answers->all_q.fill_normal(random);
    answers->q = last(answers->all_q.view), answers->plain = last(answers->all.view);
    options.alignment = Alignment::bottom_right();
    const View4<const float> q = answers->q;
    attention(View4<const float>(answers->all_q.view), View4<const float>(k.view), View4<const float>(v.view),
              answers->all.view, options);
    const std::uint64_t before = tasks_run(chosen_target(options.target));
    attend(q, answers->cached.view, options);
    answers->tasks = tasks_run(chosen_target(options.target)) - before;
    return answers;
  }
  void attend(View4<const float> q, View4<float> out, const AttentionOptions& options) const {
    CachedPages::Chosen chosen{&pages, {}, {}};
    for (std::int64_t s = 0; s < count; ++s) chosen.sequences.push_back(s), chosen.lengths.push_back(length);
    cached_attention<float>("attention", {q, out, {}}, CachedPages::keys(chosen), options);
  }
};

void expect_alike(Cached& cached, std::int64_t rows, const AttentionOptions& options) {
  const auto answers = cached.ask(rows, options);
  EXPECT_EQ(hash_bits(answers->cached.view), hash_bits(answers->plain))
      << rows << " rows, " << options.threads << " threads, " << target_name(chosen_target(options.target));
}

// Targets whose decode kernel takes float32.
std::vector<Target> decoding_targets() {
  std::vector<Target> found;
  for (Target target : available_targets())
    if (find_kernels(target)->decode) found.push_back(target);
  return found;
}

TEST(CachedSchedule, FewQueriesAreDecoded) {
  Cached cached(3, 200, 8, 2);
  for (Target target : decoding_targets()) {
    EXPECT_EQ(cached.ask(1, {.causal = true, .target = target})->tasks, 6u);    // a task a kv head
    EXPECT_EQ(cached.ask(12, {.causal = true, .target = target})->tasks, 6u);   // of 48 rows
    EXPECT_EQ(cached.ask(13, {.causal = true, .target = target})->tasks, 24u);  // too many: a task a head
    const std::vector<float> bias(200, 0.5f);
    const Bias terms = View<const float, 1>(bias.data(), {200});
    EXPECT_EQ(cached.ask(1, {.bias = terms, .target = target})->tasks, 24u);  // decode takes none
  }
}

TEST(CachedSchedule, ManyHeadsOfAKeyAreDecodedInChunks) {
  Cached cached(1, 900, 60, 1);
  for (Target target : decoding_targets()) {
    EXPECT_EQ(cached.ask(1, {.causal = true, .target = target})->tasks, 2u);
    EXPECT_EQ(cached.ask(12, {.causal = true, .target = target})->tasks, 15u);
    for (std::int64_t rows : {1, 12})
      for (int threads : {1, 4, 9}) expect_alike(cached, rows, {.causal = true, .threads = threads, .target = target});
  }
}

TEST(CachedSchedule, SharedPrefixesArePassedOnce) {
  Cached cached(4, 600, 2, 1, 512);
  for (Target target : decoding_targets()) {
    const auto answers = cached.ask(1, {.causal = true, .target = target});
    EXPECT_EQ(hash_bits(answers->cached.view), hash_bits(answers->plain));
    EXPECT_EQ(answers->tasks, 5u);
    expect_alike(cached, 5, {.causal = true, .target = target});
    expect_alike(cached, 7, {.causal = true, .target = target});  // 56 rows: of three sequences and of one
  }
}

TEST(CachedThreads, SplitsLeaveNoTraceInBits) {
  for (std::int64_t shared : {0, 640, 1280}) {
    Cached cached(shared > 0 ? 2 : 1, 2100, 4, 1, shared);
    const std::vector<double> sinks(4, 0.25);
    for (Target target : available_targets())
      for (int threads : {2, 3, 4})
        for (std::int64_t rows : {1, 3, 12}) {
          expect_alike(cached, rows, {.causal = true, .threads = threads, .target = target});
          expect_alike(cached, rows, {.causal = true, .sinks = sinks, .threads = threads, .target = target});
          expect_alike(cached, rows,
                       {.softcap = 3, .causal = true, .window = {.left = 1500}, .threads = threads, .target = target});
        }
  }
}

// Pages that were given back, and NaN in keys and values that no row sees.
TEST(CachedSchedule, WhatIsHiddenNeverShows) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (std::int64_t first : {0, 5, 70}) {
    Cached cached(2, 700, 4, 2);
    const auto hide = [&](std::int64_t s, std::int64_t end) {
      for (std::int64_t p = first; p < end; ++p)
        for (std::int64_t h = 0; h < 2; ++h) {
          std::fill_n(&cached.k.view(s, h, p, 0), cached.head_dim, nan);
          std::fill_n(&cached.v.view(s, h, p, 0), cached.value_dim, nan);
          cached.write(s, h, p);
        }
      for (std::int64_t page = (first + 63) / 64; (page + 1) * 64 <= end; ++page) cached.pages.give_back(s, page);
    };
    hide(0, 700 - 60 - 100), hide(1, 700 - 60 - 100);
    for (Target target : available_targets())
      for (std::int64_t rows : {1, 4, 60})
        for (int threads : {1, 3}) {
          AttentionOptions options{.causal = true, .window = {.left = 100}, .threads = threads, .target = target};
          options.window.first = first;
          expect_alike(cached, rows, options);
          for (const auto& answers = cached.ask(rows, options); float x : answers->cached.values)
            ASSERT_EQ(x, x) << "first " << first << ", rows " << rows;
        }
  }
}

TEST(CachedSchedule, DropoutCountsAsAttentionDoes) {
  Cached cached(2, 150, 4, 2);
  for (Target target : available_targets())
    for (std::int64_t rows : {2, 60})
      expect_alike(cached, rows, {.causal = true, .dropout = {.probability = 0.3, .seed = 4}, .target = target});
}

TEST(CachedSchedule, RowsThatSeeNothing) {
  Cached cached(1, 40, 4, 2);
  for (Target target : available_targets()) {
    expect_alike(cached, 44, {.causal = true, .target = target});  // the first rows precede all keys
    expect_alike(cached, 12, {.window = {.left = 0, .right = -1}, .target = target});
    const std::vector<double> sinks(4, 1.5);
    expect_alike(cached, 44, {.causal = true, .sinks = sinks, .target = target});
  }
}

TEST(CachedSchedule, AllocatesNothingAfterTheFirstCall) {
  Cached cached(3, 1500, 4, 2, 512);
  for (std::int64_t rows : {1, 70}) {
    const auto answers = cached.ask(rows, {.causal = true});
    const CachedPages::Chosen chosen{&cached.pages, {0, 1, 2}, {1500, 1500, 1500}};
    const CachedKeys keys = CachedPages::keys(chosen);
    const std::int64_t before = allocations;
    cached_attention<float>("attention", {View4<const float>(answers->q), answers->cached.view, {}}, keys,
                            {.causal = true});
    EXPECT_EQ(allocations, before) << rows;
  }
}

}  // namespace
}  // namespace multihead::testing
