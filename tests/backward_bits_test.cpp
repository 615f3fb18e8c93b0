// SPDX-License-Identifier: Apache-2.0
// Same bits of gradients for any threads, target of a family, scratch and company; nothing hidden leaks; memory.
#include <gtest/gtest.h>

#include <optional>

#include "allocations.hpp"
#include "backward_oracle.hpp"

namespace multihead::testing {
namespace {

AttentionOptions with_dropout(const Problem& p) {
  AttentionOptions options = p.options();
  if (p.seed % 2 == 0) options.dropout = {0.3, p.seed, 5};
  return options;
}

std::array<std::int64_t, 4> bias_of(const Problem& p) {
  return bias_gradient_extents(p, static_cast<unsigned>(p.seed / 5));
}

template <class T>
std::uint64_t bits_of(const Pass<T>& pass, const AttentionOptions& options) {
  Gradients<T> got(pass.p, bias_of(pass.p));
  attention_backward(pass.forward(), got.asked(), options);
  return got.bits();
}

template <class T>
class BackwardBits : public ::testing::Test {
 protected:
  // function(pass, options) for problems in which each pair of options meets.
  template <class Function>
  void each_problem(const Function& function) {
    Plan plan(kTypeOf<T>, 1);
    while (!plan.done() && !this->HasFailure()) {
      const Problem p = plan.next();
      Pass<T> pass(p);
      const AttentionOptions options = with_dropout(p);
      pass.attend(options);
      function(pass, options);
    }
  }
};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(BackwardBits, Types);

TYPED_TEST(BackwardBits, ThreadsRepetitionAndTheCallersLoop) {
  const auto backwards = [](void*, std::int64_t count, ParallelFor::Task task, void* argument) {
    while (count-- > 0) task(argument, count);
  };
  this->each_problem([&](const Pass<TypeParam>& pass, AttentionOptions options) {
    options.threads = 1;
    const std::uint64_t one = bits_of(pass, options);
    for (int threads : {1, 2, 3, 5}) {
      options.threads = threads;
      EXPECT_EQ(bits_of(pass, options), one) << threads << " threads " << pass.p.describe();
    }
    options.parallel_for = {backwards, nullptr};
    EXPECT_EQ(bits_of(pass, options), one) << "backwards " << pass.p.describe();
  });
}

// Many tasks that share rows, and gradients of a bias that are summed over each set of axes.
TEST(BackwardBits, ThreadsThatShareEverySum) {
  Problem p;
  p.shape = {Type::float32, 3, 4, 2, 200, 500, 16, 16};
  p.plain.causal = true, p.plain.alignment = Alignment::bottom_right();
  p.bias.rank = 4, p.bias.extents = {3, 4, 200, 500}, p.bias.strides = {400000, 100000, 500, 1};
  p.bias.values.resize(1200000);
  p.bias.store(Type::float32);
  Pass<float> pass(p);
  AttentionOptions options = p.options();
  pass.attend(options);
  for (unsigned which = 0; which < 16; ++which) {
    std::uint64_t one = 0;
    for (int threads : {1, 2, 3, 4}) {
      options.threads = threads;
      Gradients<float> got(p, bias_gradient_extents(p, which));
      attention_backward(pass.forward(), got.asked(), options);
      if (threads == 1) one = got.bits();
      EXPECT_EQ(got.bits(), one) << which << " with " << threads << " threads";
    }
  }
}

TYPED_TEST(BackwardBits, FmaTargetsAgree) {
  this->each_problem([&](const Pass<TypeParam>& pass, AttentionOptions options) {
    std::set<std::uint64_t> all;
    for (Target target : available_targets()) {
      options.target = target;
      if (target != Target::baseline && !rounds_factors(target, kTypeOf<TypeParam>)) all.insert(bits_of(pass, options));
    }
    EXPECT_LE(all.size(), 1u) << pass.p.describe();
  });
}

// Each gradient alone has the bits that it has among all.
TYPED_TEST(BackwardBits, WhatElseIsAskedForChangesNothing) {
  this->each_problem([&](const Pass<TypeParam>& pass, const AttentionOptions& options) {
    Gradients<TypeParam> all(pass.p, bias_of(pass.p));
    attention_backward(pass.forward(), all.asked(), options);
    Gradients<TypeParam> alone(pass.p, bias_of(pass.p));
    const AttentionGradients<TypeParam> asked = alone.asked();
    const auto run = [&](const AttentionGradients<TypeParam>& one) {
      attention_backward(pass.forward(), one, options);
    };
    AttentionGradients<TypeParam> q, k, v, bias, slopes, table, sinks, scale;
    q.q = asked.q, k.k = asked.k, v.v = asked.v, bias.bias = asked.bias, slopes.alibi_slopes = asked.alibi_slopes;
    table.relative_bias = asked.relative_bias, sinks.sinks = asked.sinks, scale.scale = asked.scale;
    for (const auto* one : {&q, &k, &v, &bias, &slopes, &table, &sinks, &scale}) run(*one);
    EXPECT_EQ(alone.bits(), all.bits()) << pass.p.describe();
    run({});
  });
}

TYPED_TEST(BackwardBits, ScratchOfTheAskedSizeIsEnoughAndNothingIsAllocated) {
  this->each_problem([&](const Pass<TypeParam>& pass, AttentionOptions options) {
    const std::uint64_t kept = bits_of(pass, options);
    const std::size_t bytes = attention_backward_scratch_bytes(pass.p.shape, options);
    std::vector<std::byte> memory(bytes + 1, std::byte{0xA5});
    options.scratch = {memory.data() + 1, bytes};
    options.threads = 1;
    Gradients<TypeParam> got(pass.p, bias_of(pass.p));
    const std::int64_t before = allocations;
    attention_backward(pass.forward(), got.asked(), options);
    EXPECT_EQ(allocations, before) << pass.p.describe();
    EXPECT_EQ(got.bits(), kept) << pass.p.describe();
  });
}

// The bits themselves, as in golden_test.cpp, with the forward pass that the target has; pairs: those of avx512bf16
// where it has its own.
template <class T>
void expect_golden(std::uint64_t fma, std::uint64_t baseline, std::uint64_t amx,
                   std::optional<std::uint64_t> pairs = {}) {
  Problem p;
  p.shape = {kTypeOf<T>, 2, 4, 2, 131, 203, 37, 53};
  p.plain.causal = true, p.plain.alignment = Alignment::bottom_right(), p.plain.softcap = 3;
  p.alibi_slopes = {0.5, 0.25, 0.125, 0.0625}, p.sinks = {-1, 0, 1, 2};
  p.seed = 2027;
  AttentionOptions options = p.options();
  options.dropout = {0.25, 11, 3};
  Pass<T> pass(p);
  for (Target target : available_targets()) {
    options.target = target;
    pass.attend(options);
    const std::uint64_t got = bits_of(pass, options);
    const std::uint64_t wanted = target == Target::baseline     ? baseline
                                 : target == Target::amx        ? amx
                                 : target == Target::avx512bf16 ? pairs.value_or(fma)
                                                                : fma;
    EXPECT_EQ(got, wanted) << target_name(target) << ": 0x" << std::hex << got;
  }
}

TEST(Golden, GradientsHaveTheseBits) {
  expect_golden<float>(0xb4c142dcc50b613a, 0x8e8e4bce6bcd2b2c, 0x7cc3e724e21507b2);
  expect_golden<double>(0x3eedc713077588ba, 0x10bb1d747ddd738e, 0x3eedc713077588ba);
  expect_golden<BFloat16>(0x852cfd15f753b654, 0xc84fa20154cd7386, 0x952dc42360feaab9, 0x0d2281c9e0217359);
  expect_golden<Float16>(0xaaa789f3511a7398, 0xd7aeb6cd1eaa0bab, 0xf817f14724f12adf);
}

TEST(Backward, TooLittleScratchIsRefused) {
  Problem p;
  p.shape = {Type::float32, 1, 1, 1, 9, 9, 8, 8};
  Pass<float> pass(p);
  pass.attend({});
  Gradients<float> got(p, {});
  std::byte memory[100];
  AttentionOptions options;
  options.scratch = memory;
  try {
    attention_backward(pass.forward(), got.asked(), options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  }
}

// Twice the length, twice the memory, with all that grows with it.
TEST(Backward, ScratchIsLinearInLength) {
  const auto bytes = [](Type type, std::int64_t length) {
    AttentionOptions options{.causal = true, .threads = 2};
    return static_cast<double>(attention_backward_scratch_bytes({type, 1, 2, 2, length, length, 64, 64}, options));
  };
  for (Type type : {Type::float32, Type::bfloat16}) {
    const double base = bytes(type, 1024), grown = bytes(type, 65536), doubled = bytes(type, 131072);
    EXPECT_LE(doubled - base, 2.1 * (grown - base));
    EXPECT_LE(doubled, 131072.0 * 2 * (type == Type::float32 ? 8 : 64 * 4 + 8) + 2e6);
  }
}

}  // namespace
}  // namespace multihead::testing
