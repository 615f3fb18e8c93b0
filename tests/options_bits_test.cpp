// SPDX-License-Identifier: Apache-2.0
// Same bits over every option: one call and its sequences one by one, ranges and the masks that say the same, layouts,
// threads, targets, storage.
#include <gtest/gtest.h>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

template <class T>
class OptionBits : public ::testing::Test {
 protected:
  // function(problem, inputs, target) for problems in which each pair of options meets, on every target.
  template <class Function>
  void each_problem(const Function& function) {
    Plan plan(kTypeOf<T>, quick_share() ? 1 : 3);
    while (!plan.done() && !this->HasFailure()) {
      const Problem p = plan.next();
      Tensors<T> in(p);
      for (Target target : available_targets()) function(p, in, target);
    }
  }
};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(OptionBits, Types);
template <class T>
class StoredBits : public OptionBits<T> {};
using StoredTypes = ::testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(StoredBits, StoredTypes);

AttentionOptions on(Target target, const Problem& p) {
  AttentionOptions options = p.options();
  options.target = target;
  return options;
}

TYPED_TEST(OptionBits, FmaTargetsAgree) {
  using T = TypeParam;
  std::uint64_t last = 0, seed = 0;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (has_own_bits(target, kTypeOf<T>)) return;
    const std::uint64_t bits = Answer<T>(in, on(target, p)).bits();
    EXPECT_TRUE(seed != p.seed || bits == last) << target_name(target) << " " << p.describe();
    last = bits, seed = p.seed;
  });
}

TYPED_TEST(OptionBits, ThreadsAndTheCallersLoop) {
  using T = TypeParam;
  const auto backwards = [](void*, std::int64_t count, ParallelFor::Task task, void* argument) {
    while (count-- > 0) task(argument, count);
  };
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    AttentionOptions options = on(target, p);
    options.threads = 1;
    const std::uint64_t one = Answer<T>(in, options).bits();
    for (int threads : {2, 5}) {
      options.threads = threads;
      EXPECT_EQ(Answer<T>(in, options).bits(), one) << threads << " threads " << p.describe();
    }
    options.parallel_for = {backwards, nullptr};
    EXPECT_EQ(Answer<T>(in, options).bits(), one) << "the caller's loop " << p.describe();
  });
}

// Packed, in segments, in a batch or padded: each sequence has the bits it has alone, without the keys past its length.
TYPED_TEST(OptionBits, SequencesOneByOne) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    const Answer<T> together(in, on(target, undropped(p)));
    for (const Part& part : sequences_of(p)) {
      const Problem own = part_of(p, part);
      const Answer<T> alone(in, part, on(target, own));
      EXPECT_EQ(alone.bits(), together.bits(part))
          << target_name(target) << " row " << part.q_begin << " of " << part.b << " " << p.describe();
    }
  });
}

// Some rows alone, their offset named: a prefill in chunks, a step of decoding.
TYPED_TEST(OptionBits, ChunksOfQueries) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    const Answer<T> together(in, on(target, undropped(p)));
    Random random(p.seed);
    for (Part part : sequences_of(p)) {
      part.q_begin = random.between(part.q_begin, part.q_end - 1);
      part.q_end = random.chance(50) ? part.q_begin + 1 : random.between(part.q_begin + 1, part.q_end);
      const Problem own = part_of(p, part);
      const Answer<T> alone(in, part, on(target, own));
      EXPECT_EQ(alone.bits(), together.bits(part))
          << target_name(target) << " row " << part.q_begin << " of " << part.b << " " << p.describe();
    }
  });
}

// More values than a worker keeps turned round, some of them not finite, read by heads that share them: the row has the
// bits that it has alone, where none are kept.
TYPED_TEST(OptionBits, BlocksOfValuesThatAWorkerKeeps) {
  using T = TypeParam;
  for (const std::int64_t width : {1024, 40})
    for (const bool causal : {false, true}) {
      Problem p;
      p.shape = {kTypeOf<T>, 1, 4, 2, 100, 700, 8, width};
      p.plain.causal = causal, p.plain.alignment = Alignment::bottom_right();
      Tensors<T> in(p);
      using Real = Sum<T>;
      in.v.view(0, 1, 650, 3) = static_cast<T>(std::numeric_limits<Real>::quiet_NaN());
      in.v.view(0, 0, 10, width - 1) = static_cast<T>(std::numeric_limits<Real>::infinity());
      for (Target target : available_targets()) {
        const Answer<T> together(in, on(target, p));
        for (const std::int64_t row : {0, 47, 60, 99}) {
          const Part part{0, row, row + 1, 0, 700};
          EXPECT_EQ(Answer<T>(in, part, on(target, part_of(p, part))).bits(), together.bits(part))
              << target_name(target) << " row " << row << ", value_dim " << width;
        }
      }
    }
}

// Causal, window, lengths, prefixes, two masks and -inf in a bias, against one boolean mask that says the same.
TYPED_TEST(OptionBits, RangesAndTheirMask) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (!p.cu_seqlens_q.empty() || !p.q_segments.empty()) return;  // SequencesOneByOne
    const Problem masked = as_one_mask(p);
    EXPECT_EQ(Answer<T>(in, on(target, masked)).bits(), Answer<T>(in, on(target, p)).bits())
        << target_name(target) << " " << p.describe();
  });
}

TYPED_TEST(OptionBits, DropMaskIsTheKeepMaskNegated) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (!p.keep_mask.rank && !p.drop_mask.rank) return;
    Problem other = p;
    std::swap(other.keep_mask, other.drop_mask);
    Random random(p.seed);
    for (Spread* mask : {&other.keep_mask, &other.drop_mask}) {
      for (double& value : mask->values) value = 1 - value;
      mask->store_mask(random);
    }
    EXPECT_EQ(Answer<T>(in, on(target, other)).bits(), Answer<T>(in, on(target, p)).bits())
        << target_name(target) << " " << p.describe();
  });
}

// Masks and biases written out in full, bool as bytes and the other way round, biases in the type of the sums.
TYPED_TEST(OptionBits, BroadcastIsExpanded) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    Problem full = p;
    Random random(p.seed);
    for (Spread* mask : {&full.keep_mask, &full.drop_mask})
      if (mask->rank) *mask = expanded(*mask, p.shape), mask->store_mask(random);
    if (full.bias.rank) full.bias = expanded(full.bias, p.shape), full.bias.store(kTypeOf<Sum<T>>);
    EXPECT_EQ(Answer<T>(in, on(target, full)).bits(), Answer<T>(in, on(target, p)).bits())
        << target_name(target) << " " << p.describe();
  });
}

TYPED_TEST(OptionBits, LayoutsOfTheInputs) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (!p.heads_inside && !p.padding) return;
    Tensors<T> in_order(p, true);
    EXPECT_EQ(Answer<T>(in, on(target, p)).bits(), Answer<T>(in_order, on(target, p)).bits())
        << target_name(target) << " " << p.describe();
  });
}

// Where pairs are not multiplied BFloat16 and Float16 are storage: the float call on the same values, rounded once.
TYPED_TEST(StoredBits, StorageRoundsOnce) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (multiplies_pairs(target, kTypeOf<T>)) return;
    Tensors<float> wide(p);
    for (auto [to, from] : {std::pair{&wide.q, &in.q}, {&wide.k, &in.k}, {&wide.v, &in.v}})
      for (std::size_t at = 0; at < from->values.size(); ++at)
        to->values[at] = static_cast<float>(widen(from->values[at]));
    Answer<float> summed(wide, on(target, p));
    Answer<T> stored(in, on(target, p));
    auto next = summed.out.values.begin();
    std::int64_t unlike = 0;
    stored.out.each([&](T& x) {
      const T rounded = static_cast<T>(static_cast<Sum<T>>(*next++));
      unlike += std::memcmp(&x, &rounded, sizeof(T)) != 0;
    });
    EXPECT_EQ(unlike, 0) << target_name(target) << " " << p.describe();
    EXPECT_EQ(hash_bits(stored.lse), hash_bits(View3<float>(summed.lse))) << p.describe();
  });
}

}  // namespace
}  // namespace multihead::testing
