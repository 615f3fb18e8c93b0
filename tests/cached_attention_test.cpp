// SPDX-License-Identifier: Apache-2.0
// Attention over cached keys has the bits of attention() on the same rows, whatever the schedule: chunks and single
// tokens, ragged batches with strangers, shared prefixes, pages strewn at random, threads.
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "cached_pages.hpp"

namespace multihead::testing {
namespace {

// A number for a place, the same wherever the place stands in a tensor.
double drawn(std::uint64_t seed, std::int64_t head, std::int64_t row, std::int64_t key) {
  Random random(seed * 1000003 + static_cast<std::uint64_t>(head * 7919 + row * 104729 + key));
  return random.normal();
}

// Sequences, what is computed with them, and how.
template <class T>
struct Story {
  std::uint64_t seed;
  Random random;
  std::int64_t heads, kv_heads, head_dim, value_dim;
  AttentionOptions options;
  std::vector<double> slopes, sinks;
  bool biased = false, masked = false;
  std::vector<float> table;
  struct Sequence {
    std::unique_ptr<Tensor<T>> q, k, v, out;
    std::vector<float> lse;  // (heads, length)
    std::int64_t length, name;
  };
  std::vector<Sequence> sequences;
  std::optional<CachedPages> pages;

  Story(std::uint64_t number, Target target) : seed(number), random(number) {
    const std::int64_t group = random.pick({1, 1, 2, 4, 8});
    kv_heads = random.between(1, 3), heads = kv_heads * group;
    head_dim = random.pick({16, 24, 33, 64, 7}), value_dim = random.pick({16, 40, 5, 64});
    options.target = target;
    draw_options();
    draw_pages();
    draw_sequences();
  }

  void draw_options() {
    options.causal = true;
    options.alignment = Alignment::bottom_right();
    if (random.chance(20)) options.softcap = 5;
    if (random.chance(30)) options.window.left = random.between(0, 200);
    if (options.window.left >= 0 && random.chance(50)) options.window.first = random.between(1, 150);
    for (std::int64_t h = 0; h < heads; ++h) slopes.push_back(random.uniform() / 8), sinks.push_back(random.normal());
    if (random.chance(25)) options.alibi_slopes = slopes;
    if (random.chance(25)) options.sinks = sinks;
    biased = random.chance(15), masked = random.chance(15);
    if (random.chance(10)) {
      for (std::int64_t i = 0; i < 8 * heads; ++i) table.push_back(static_cast<float>(random.normal()));
      options.relative_bias = RelativeBias(MatrixView<const float>(table.data(), {8, heads}), false, 40);
    }
  }

  void draw_pages() {
    PageLayout layout{.element = kElementOf<T>, .blocked = random.chance(70)};
    layout.page_len = layout.blocked ? random.pick({32, 64, 128, 160, 512}) : random.pick({1, 7, 16, 50, 128, 600});
    layout.kv_heads = kv_heads, layout.head_dim = head_dim, layout.value_dim = value_dim;
    pages.emplace(layout, 5 * (900 / layout.page_len + 1), random);
  }

  void draw_sequences() {
    const std::int64_t count = random.between(1, 5);
    for (std::int64_t s = 0; s < count; ++s) {
      Sequence next;
      next.length = random.between(1, random.pick({60, 60, 60, 60, 300, 500, 900}));
      const bool forked = s > 0 && random.chance(60);
      const std::int64_t page_len = pages->layout.page_len;
      const std::int64_t like = forked ? random.between(0, s - 1) : -1;
      const Sequence* const other = forked ? &sequences[static_cast<std::size_t>(like)] : nullptr;
      const std::int64_t shared =
          forked ? std::min(next.length, other->length) * random.between(1, 4) / 4 / page_len * page_len : 0;
      const auto tensor = [&](std::int64_t h, std::int64_t width) {
        auto made = std::make_unique<Tensor<T>>(std::array{std::int64_t{1}, h, next.length, width});
        made->each([&](T& x) { x = static_cast<T>(static_cast<float>(random.normal() * 1.5)); });
        return made;
      };
      next.q = tensor(heads, head_dim), next.k = tensor(kv_heads, head_dim), next.v = tensor(kv_heads, value_dim);
      next.out = tensor(heads, value_dim);
      next.name = pages->add(next.length, like, shared);
      for (std::int64_t h = 0; h < kv_heads; ++h)
        for (std::int64_t p = 0; p < next.length; ++p) {
          if (p < shared) {
            std::copy_n(&other->k->view(0, h, p, 0), head_dim, &next.k->view(0, h, p, 0));
            std::copy_n(&other->v->view(0, h, p, 0), value_dim, &next.v->view(0, h, p, 0));
          } else {
            pages->write(next.name, h, p, &next.k->view(0, h, p, 0), &next.v->view(0, h, p, 0));
          }
        }
      sequences.push_back(std::move(next));
    }
  }

  // What attention() gives each of them in one call.
  void attend_at_once() {
    for (Sequence& s : sequences) {
      s.lse.assign(static_cast<std::size_t>(heads * s.length), 0);
      const Terms terms(*this, {{s.name, 0, s.length}}, s.length, s.length);
      attention(View4<const T>(s.q->view), View4<const T>(s.k->view), View4<const T>(s.v->view), s.out->view,
                View3<float>(s.lse.data(), {1, heads, s.length}), terms.options);
    }
  }

  // Rows of a sequence.
  struct Run {
    std::int64_t name, begin, end;
  };

  // The options with biases and masks of the rows of a call.
  struct Terms {
    AttentionOptions options;
    std::vector<float> bias;
    std::vector<std::uint8_t> mask;

    Terms(const Story& story, const std::vector<Run>& runs, std::int64_t rows, std::int64_t keys)
        : options(story.options) {
      if (story.biased) bias.assign(static_cast<std::size_t>(story.heads * rows * keys), NAN);
      if (story.masked) mask.assign(static_cast<std::size_t>(rows * keys), 1);
      std::int64_t at = 0;
      for (const Run& run : runs)
        for (std::int64_t i = run.begin; i < run.end; ++i, ++at)
          for (std::int64_t j = 0; j < keys && j < run.end; ++j) {
            const auto seed = static_cast<std::uint64_t>(run.name);
            for (std::int64_t h = 0; story.biased && h < story.heads; ++h)
              bias[static_cast<std::size_t>((h * rows + at) * keys + j)] = static_cast<float>(drawn(seed, h, i, j));
            if (story.masked) mask[static_cast<std::size_t>(at * keys + j)] = drawn(seed + 99, 0, i, j) < 1;
          }
      if (story.biased) options.bias = View3<const float>(bias.data(), {story.heads, rows, keys});
      if (story.masked) options.keep_mask = MatrixView<const std::uint8_t>(mask.data(), {rows, keys});
    }
  };

  // Rows of some sequences over what is cached of each so far.
  void attend(const std::vector<Run>& runs, int threads) {
    CachedPages::Chosen chosen{&*pages, {}, {}};
    std::vector<std::int64_t> starts{0};
    std::int64_t longest = 0;
    bool alike = true;
    for (const Run& run : runs) {
      chosen.sequences.push_back(run.name), chosen.lengths.push_back(run.end);
      starts.push_back(starts.back() + run.end - run.begin);
      longest = std::max(longest, run.end);
      alike &= run.end - run.begin == runs[0].end - runs[0].begin;
    }
    const bool ragged = !alike || biased || masked || random.chance(50);
    const std::int64_t rows = starts.back(), each = runs[0].end - runs[0].begin;
    const auto count = static_cast<std::int64_t>(runs.size());
    const std::array<std::int64_t, 4> extents{ragged ? 1 : count, heads, ragged ? rows : each, 0};
    const auto with = [&](std::int64_t width) { return std::array{extents[0], heads, extents[2], width}; };
    Tensor<T> q(with(head_dim), random.chance(50)), out(with(value_dim), random.chance(50), random.between(0, 2));
    std::vector<float> lse(static_cast<std::size_t>(count * heads * std::max(rows, each)), 0.0f);
    const View3<float> lse_view(lse.data(), {extents[0], heads, extents[2]});
    const auto place = [&](std::size_t s, std::int64_t i) {
      return ragged ? std::pair{std::int64_t{0}, starts[s] + i} : std::pair{static_cast<std::int64_t>(s), i};
    };
    const auto each_row = [&](const auto& function) {
      for (std::size_t s = 0; s < runs.size(); ++s)
        for (std::int64_t h = 0; h < heads; ++h)
          for (std::int64_t i = 0; i < runs[s].end - runs[s].begin; ++i) {
            const auto [b, row] = place(s, i);
            function(sequences[static_cast<std::size_t>(runs[s].name)], h, runs[s].begin + i, b, row);
          }
    };
    each_row([&](Sequence& s, std::int64_t h, std::int64_t i, std::int64_t b, std::int64_t row) {
      std::copy_n(&s.q->view(0, h, i, 0), head_dim, &q.view(b, h, row, 0));
    });
    Terms terms(*this, runs, rows, longest);
    terms.options.threads = threads;
    if (ragged) terms.options.cu_seqlens_q = starts;
    if (random.chance(50)) terms.options.alignment = {};
    cached_attention<T>("attention", {View4<const T>(q.view), out.view, lse_view}, CachedPages::keys(chosen),
                        terms.options);
    each_row([&](Sequence& s, std::int64_t h, std::int64_t i, std::int64_t b, std::int64_t row) {
      const auto bits = [&](const T* from) { return hash_bits(View<const T, 1>(from, {value_dim})); };
      EXPECT_EQ(bits(&out.view(b, h, row, 0)), bits(&s.out->view(0, h, i, 0)))
          << describe() << "sequence " << s.name << " head " << h << " row " << i << " of " << s.length;
      EXPECT_EQ(lse_view(b, h, row), s.lse[static_cast<std::size_t>(h * s.length + i)]) << describe();
    });
  }

  // All rows of all sequences, in calls of random sequences and numbers of rows.
  void unfold() {
    std::vector<std::int64_t> done(sequences.size(), 0);
    while (!::testing::Test::HasFailure()) {
      std::vector<Run> runs;
      for (Sequence& s : sequences) {
        std::int64_t& begin = done[static_cast<std::size_t>(s.name)];
        if (begin == s.length || random.chance(20)) continue;
        const std::int64_t most = random.chance(50) ? random.between(1, 3) : random.between(1, 150);
        const std::int64_t end = std::min(s.length, begin + (s.length > 100 && begin == 0 ? s.length - 20 : most));
        runs.push_back({s.name, begin, end});
        begin = end;
      }
      if (runs.empty() && std::equal(done.begin(), done.end(), sequences.begin(), sequences.end(),
                                     [](std::int64_t rows, const Sequence& s) { return rows == s.length; }))
        return;
      if (!runs.empty()) attend(runs, static_cast<int>(random.between(1, 6)));
    }
  }

  std::string describe() const {
    const PageLayout& l = pages->layout;
    return "seed " + std::to_string(seed) + ", target " + std::string(target_name(*options.target)) + ", heads " +
           std::to_string(heads) + " of " + std::to_string(kv_heads) + ", head_dim " + std::to_string(head_dim) +
           ", value_dim " + std::to_string(value_dim) + ", " + (l.blocked ? "blocked" : "rows") + " pages of " +
           std::to_string(l.page_len) + ", window " + std::to_string(options.window.left) + " first " +
           std::to_string(options.window.first) + (biased ? ", bias" : "") + (masked ? ", mask" : "") +
           (table.empty() ? "" : ", relative bias") + "\n";
  }
};

template <class T>
class CachedBits : public ::testing::Test {};
using Types = ::testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(CachedBits, Types);

TYPED_TEST(CachedBits, AreThoseOfAttentionForAnySchedule) {
  const std::uint64_t count = quick_share() ? 6 : 40;
  for (Target target : available_targets())
    for (std::uint64_t seed = 1; seed <= count && !this->HasFailure(); ++seed) {
      Story<TypeParam> story(seed, target);
      story.attend_at_once();
      story.unfold();
    }
}

}  // namespace
}  // namespace multihead::testing
