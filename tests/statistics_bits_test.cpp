// SPDX-License-Identifier: Apache-2.0
// Statistics change no bit of what else is asked for, and their own bits depend on the row alone: not on target,
// threads, batch, padding, packing, or which way a mask is said.
#include <gtest/gtest.h>

#include "allocations.hpp"
#include "statistics_problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
class StatisticsBits : public ::testing::Test {
 protected:
  // function(problem, inputs, target) for problems in which each pair of options meets, on every target.
  template <class Function>
  void each_problem(const Function& function) {
    Plan plan(kTypeOf<T>, 1);
    for (int left = quick_share() ? 30 : 100000; left > 0 && !plan.done() && !this->HasFailure(); --left) {
      const Problem p = plan.next();
      Tensors<T> in(p);
      for (Target target : available_targets()) function(p, in, target);
    }
  }
};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(StatisticsBits, Types);

AttentionOptions on(Target target, const Problem& p) {
  AttentionOptions options = p.options();
  options.target = target;
  return options;
}

TYPED_TEST(StatisticsBits, NothingElseChanges) {
  using T = TypeParam;
  using Real = Sum<T>;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    const AttentionOptions options = on(target, p);
    const Answer<T> plain(in, options);
    const StatisticsAnswer<T> alone(p, in, options), beside(p, in, options, true);
    EXPECT_EQ(alone.bits_of_attention(), plain.bits()) << target_name(target) << " " << p.describe();
    EXPECT_EQ(beside.bits_of_attention(), plain.bits()) << target_name(target) << " " << p.describe();
    EXPECT_EQ(beside.bits(), alone.bits()) << target_name(target) << " " << p.describe();
    std::vector<Real> weights(beside.weights_values.size());
    WeightsRequest<Real> request;
    request.per_head = {weights.data(), beside.weights.extents()};
    attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), plain.out.view,
              plain.lse, request, options);
    EXPECT_EQ(hash_bits(request.per_head), hash_bits(beside.weights)) << p.describe();
  });
}

// Half of the statistics, drawn, without the others.
TYPED_TEST(StatisticsBits, WithoutTheOthers) {
  using T = TypeParam;
  using Real = Sum<T>;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    const StatisticsAnswer<T> all(p, in, on(target, p));
    StatisticsAnswer<T> some(p, in, on(target, p));
    Random random(p.seed + static_cast<std::uint64_t>(target));
    RowStatistics<Real> wanted = some.room.to;
    const auto drop = [&](auto& view) {
      if (random.chance(60)) view = {};
    };
    drop(wanted.visible), drop(wanted.entropy), drop(wanted.sum_squares), drop(wanted.distance);
    drop(wanted.offset_mass), drop(wanted.key_mass), drop(wanted.class_mass), drop(wanted.duplicate_mass);
    drop(wanted.induction_mass), drop(wanted.top_keys), drop(wanted.top_weights);
    for (auto& values : some.room.values) std::fill(values.begin(), values.end(), Real(77));
    std::fill(some.room.keys.begin(), some.room.keys.end(), 77);
    attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), some.out.view, some.lse,
              {}, request_of(p, some.lists, wanted), on(target, p));
    std::vector<std::uint64_t> of_all;
    all.room.each([&](const char*, const auto& view) { of_all.push_back(hash_bits(view)); });
    std::size_t next = 0;
    some.room.each([&](const char* name, const auto& view) {
      bool asked = false;
      StatisticsRoom<Real>::each_of(wanted,
                                    [&](const char*, const auto& other) { asked |= other.data() == view.data(); });
      if (asked) {
        EXPECT_EQ(hash_bits(view), of_all[next]) << name << " " << target_name(target) << " " << p.describe();
      }
      ++next;
    });
    if (wanted.top_keys.data()) {
      EXPECT_EQ(some.room.keys, all.room.keys) << p.describe();
    }
  });
}

TYPED_TEST(StatisticsBits, FmaTargetsAgree) {
  using T = TypeParam;
  std::uint64_t last = 0, seed = 0;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (has_own_bits(target, kTypeOf<T>)) return;
    const std::uint64_t bits = StatisticsAnswer<T>(p, in, on(target, p)).bits();
    EXPECT_TRUE(seed != p.seed || bits == last) << target_name(target) << " " << p.describe();
    last = bits, seed = p.seed;
  });
}

TYPED_TEST(StatisticsBits, ThreadsAndTheCallersLoop) {
  using T = TypeParam;
  const auto backwards = [](void*, std::int64_t count, ParallelFor::Task task, void* argument) {
    while (count-- > 0) task(argument, count);
  };
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    AttentionOptions options = on(target, p);
    options.threads = 1;
    const std::uint64_t one = StatisticsAnswer<T>(p, in, options).bits();
    options.threads = 3;
    EXPECT_EQ(StatisticsAnswer<T>(p, in, options).bits(), one) << p.describe();
    options.parallel_for = {backwards, nullptr};
    EXPECT_EQ(StatisticsAnswer<T>(p, in, options).bits(), one) << "the caller's loop " << p.describe();
  });
}

// Packed, in segments, in a batch or padded, and some of its rows with their offset named: as it is alone.
TYPED_TEST(StatisticsBits, SequencesAndChunksAlone) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    const StatisticsAnswer<T> together(p, in, on(target, p));
    Random random(p.seed);
    for (Part part : sequences_of(p)) {
      if (random.chance(50)) part.q_begin = random.between(part.q_begin, part.q_end - 1);
      if (random.chance(50)) part.q_end = random.between(part.q_begin + 1, part.q_end);
      const Problem own = part_of(p, part);
      const StatisticsAnswer<T> alone(p, in, part, on(target, own));
      EXPECT_EQ(hash_statistics(alone.room, {0, 0, part.q_end - part.q_begin, 0, 0}),
                hash_statistics(together.room, part))
          << target_name(target) << " row " << part.q_begin << " of " << part.b << " " << p.describe();
    }
  });
}

TYPED_TEST(StatisticsBits, RangesAndTheirMask) {
  using T = TypeParam;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (!p.cu_seqlens_q.empty() || !p.q_segments.empty()) return;  // SequencesAndChunksAlone
    const Problem masked = as_one_mask(p);
    EXPECT_EQ(StatisticsAnswer<T>(p, in, on(target, masked)).bits(), StatisticsAnswer<T>(p, in, on(target, p)).bits())
        << target_name(target) << " " << p.describe();
  });
}

// Where pairs are not multiplied BFloat16 and Float16 are storage: the float call on the same values.
TYPED_TEST(StatisticsBits, StorageIsWidened) {
  using T = TypeParam;
  if (std::is_same_v<T, Sum<T>>) return;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    if (multiplies_pairs(target, kTypeOf<T>)) return;
    Tensors<Sum<T>> wide(p);
    for (auto [to, from] : {std::pair{&wide.q, &in.q}, {&wide.k, &in.k}, {&wide.v, &in.v}})
      for (std::size_t at = 0; at < from->values.size(); ++at) to->values[at] = widen(from->values[at]);
    EXPECT_EQ(StatisticsAnswer<T>(p, in, on(target, p)).bits(), StatisticsAnswer<Sum<T>>(p, wide, on(target, p)).bits())
        << target_name(target) << " " << p.describe();
  });
}

// The caller's scratch of the size that the question gives is enough, one byte less is refused; without it a thread
// allocates nothing after its first call.
TYPED_TEST(StatisticsBits, ScratchAndAllocations) {
  using T = TypeParam;
  using Real = Sum<T>;
  this->each_problem([&](const Problem& p, Tensors<T>& in, Target target) {
    AttentionOptions options = on(target, p);
    const StatisticsAnswer<T> answer(p, in, options);
    const StatisticsRequest<Real> request = request_of(p, answer.lists, answer.room.to);
    const auto call = [&] {
      attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), answer.out.view,
                answer.lse, {}, request, options);
    };
    const std::uint64_t bits = answer.bits();
    AttentionShape shape = p.shape;
    std::vector<std::byte> scratch(attention_scratch_bytes(shape, options, false, request));
    options.scratch = scratch;
    call();
    EXPECT_EQ(answer.bits(), bits) << p.describe();
    EXPECT_GE(attention_scratch_bytes(shape, options, true, request), scratch.size());
    if (scratch.size() > 128) {
      options.scratch = std::span(scratch).first(scratch.size() - 127);
      EXPECT_THROW(call(), Error);
    }
    if (p.plain.threads > 1) return;
    options.scratch = {};
    call();
    const std::int64_t before = allocations;
    call();
    EXPECT_EQ(allocations, before) << p.describe();
  });
}

}  // namespace
}  // namespace multihead::testing
