// SPDX-License-Identifier: Apache-2.0
// The C face of attention, weights, merge, the questions and X to the output gives what C++ gives, bit for bit.
#include <gtest/gtest.h>

#include <thread>

#include "allocations.hpp"
#include "c_face.hpp"
#include "layer_problem.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

int problems() { return quick_share() ? 25 : 120; }

// What a call came to: its results' bits, or its error.
template <class Call>
std::string outcome(const Call& call) {
  try {
    return std::to_string(call());
  } catch (const Error& error) {
    return std::string(error_name(error.code())) + ": " + error.what();
  }
}

// Memory for weights of every kind, and the request that writes them.
template <class T>
struct AskedWeights {
  std::vector<std::int64_t> heads, rows;
  std::vector<T> per_head, mean, norm_weighted, norms;
  WeightsRequest<T> request;

  AskedWeights(const AttentionShape& s, std::uint64_t seed) {
    Random random(seed);
    const auto some = [&](std::int64_t count) {
      std::vector<std::int64_t> list;
      for (std::int64_t i = count; i-- > 0;)
        if (random.chance(60)) list.push_back(i);
      return list;
    };
    request.point = random.pick({WeightsPoint::scaled, WeightsPoint::capped, WeightsPoint::biased,
                                 WeightsPoint::normalised, WeightsPoint::normalised});
    heads = some(s.heads), rows = some(s.q_len);
    request.heads = heads, request.rows = rows;
    const std::int64_t h = heads.empty() ? s.heads : static_cast<std::int64_t>(heads.size());
    const std::int64_t r = rows.empty() ? s.q_len : static_cast<std::int64_t>(rows.size());
    const auto room = [](std::vector<T>& memory, std::int64_t count) {
      memory.assign(static_cast<std::size_t>(count) + 1, T(77));
      return memory.data();
    };
    if (random.chance(70)) request.per_head = {room(per_head, s.batch * h * r * s.kv_len), {s.batch, h, r, s.kv_len}};
    if (random.chance(70)) request.mean = {room(mean, s.batch * r * s.kv_len), {s.batch, r, s.kv_len}};
    if (request.point != WeightsPoint::normalised || random.chance(50)) return;
    request.norm_weighted = {room(norm_weighted, s.batch * r * s.kv_len), {s.batch, r, s.kv_len}};
    request.norms = {room(norms, s.batch * s.heads * s.kv_len), {s.batch, s.heads, s.kv_len}};
  }
  std::uint64_t bits(std::uint64_t hash) const {
    return hash_bits(request.norm_weighted, hash_bits(request.mean, hash_bits(request.per_head, hash)));
  }
};

template <class T>
class CApi : public ::testing::Test {};
using AllTypes = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(CApi, AllTypes);
template <class T>
class CApiOfSums : public ::testing::Test {};
using SumTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CApiOfSums, SumTypes);

TYPED_TEST(CApi, AttentionHasTheBitsOfCpp) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    const Problem p = draw_problem(static_cast<std::uint64_t>(seed) + 9000, kTypeOf<T>);
    Tensors<T> in(p);
    const auto bits = [&](bool asks, const auto& door) {
      return outcome([&] {
        Tensor<T> out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, p.heads_inside, p.padding);
        std::vector<Sum<T>> lse(static_cast<std::size_t>(p.shape.batch * p.shape.heads * p.shape.q_len) + 1, 77);
        const View3<Sum<T>> to_lse(lse.data(), {p.shape.batch, p.shape.heads, p.shape.q_len});
        const AskedWeights<Sum<T>> asked(p.shape, p.seed);
        const WeightsRequest<Sum<T>> request = asks ? asked.request : WeightsRequest<Sum<T>>{};
        door(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view,
             asks ? to_lse : View3<Sum<T>>{}, request, p.options());
        return asked.bits(hash_bits(to_lse, hash_bits(out.view)));
      });
    };
    for (bool asks : {false, true})
      EXPECT_EQ(bits(asks, [](const auto&... x) { c_face::attention<T>(x...); }),
                bits(asks, [](const auto&... x) { attention(x...); }))
          << p.describe();
  }
}

TYPED_TEST(CApi, TheQuestionsHaveTheAnswersOfCpp) {
  for (int seed = 0; seed < problems(); ++seed) {
    const Problem p = draw_problem(static_cast<std::uint64_t>(seed) + 9000, kTypeOf<TypeParam>);
    const AttentionOptions options = p.options();
    for (bool weights : {false, true})
      EXPECT_EQ(outcome([&] { return c_face::attention_scratch_bytes(p.shape, options, weights); }),
                outcome([&] { return attention_scratch_bytes(p.shape, options, weights); }));
    const mh_attention_plan got = c_face::explain(p.shape, options);
    const AttentionPlan wanted = explain(p.shape, options);
    EXPECT_EQ(got.target, c_face::number_of(wanted.target));
    EXPECT_EQ(got.kernel, wanted.kernel);
    EXPECT_EQ(got.why, wanted.why);
    EXPECT_EQ(got.score_tile, wanted.score_tile);
    EXPECT_EQ(got.terms, wanted.terms);
    EXPECT_EQ(got.row_block, wanted.row_block);
    EXPECT_EQ(got.key_block, wanted.key_block);
    EXPECT_EQ(got.tasks, wanted.tasks);
    EXPECT_EQ(got.visible_pairs, wanted.visible_pairs);
    EXPECT_EQ(got.flops, wanted.flops);
    EXPECT_EQ(got.scratch_bytes, wanted.scratch_bytes);
  }
}

TYPED_TEST(CApiOfSums, WeightsAloneAndMergeHaveTheBitsOfCpp) {
  using T = TypeParam;
  int merged = 0;
  for (int seed = 0; seed < problems(); ++seed) {
    const Problem p = draw_problem(static_cast<std::uint64_t>(seed) + 9300, kTypeOf<T>);
    Tensors<T> in(p);
    const Answer<T> a(in, p.options());
    const auto weights = [&](const auto& door) {
      return outcome([&] {
        const AskedWeights<T> asked(p.shape, p.seed);
        door(View4<const T>(in.q.view), View4<const T>(in.k.view), View3<const T>(a.lse), asked.request, p.options());
        return asked.bits(0);
      });
    };
    EXPECT_EQ(weights([](const auto&... x) { c_face::attention_weights<T>(x...); }),
              weights([](const auto&... x) { attention_weights(x...); }))
        << p.describe();

    AttentionOptions plain;
    plain.target = p.plain.target;
    const Answer<T> b(in, plain);
    const auto joined = [&](const auto& door) {
      return outcome([&] {
        Answer<T> to(in, plain);
        door(View4<const T>(a.out.view), View3<const T>(a.lse), View4<const T>(b.out.view), View3<const T>(b.lse),
             to.out.view, to.lse, p.plain.target);
        return to.bits();
      });
    };
    const std::string wanted = joined([](const auto&... x) { merge(x...); });
    merged += wanted != std::to_string(b.bits());
    EXPECT_EQ(joined([](const auto&... x) { c_face::merge<T>(x...); }), wanted) << p.describe();
  }
  EXPECT_GT(merged, problems() / 5);
}

TYPED_TEST(CApiOfSums, FromXToTheOutput) {
  using T = TypeParam;
  for (const LayerExtents& e : {LayerExtents{2, 3, 6, 6, 3, 2}, LayerExtents{0, 3, 6, 6, 3, 2},
                                LayerExtents{37, 12, 20, 30, 7, 5}, LayerExtents{130, 33, 24, 16, 20, 1}})
    for (int threads : {1, 3}) {
      const Inputs<T> in(e);
      const auto run = [&](bool asks, const auto& door) {
        Matrix<T> output(e.n, e.out_dim), mean(e.n, e.n);
        std::vector<T> per_head(static_cast<std::size_t>(e.heads * e.n * e.n) + 1);
        HeadWeights<T> weights;
        if (asks) weights = {{per_head.data(), {e.heads, e.n, e.n}}, mean};
        using V = MatrixView<const T>;
        door(V(in.X), V(in.Wq), V(in.Wk), V(in.Wv), V(in.Wo), e.heads, MatrixView<T>(output),
             LayerOptions{.threads = threads}, weights);
        return hash_bits(weights.per_head, bits<T>(output) ^ bits<T>(mean));
      };
      for (bool asks : {false, true})
        EXPECT_EQ(run(asks, [](const auto&... x) { c_face::multi_head_attention<T>(x...); }),
                  run(asks, [](const auto&... x) { multi_head_attention(x...); }));

      const SelfAttention<T> wanted = self_attention(in.X, in.Wq, in.Wk, in.Wv);
      Matrix<T> output(e.n, e.v_width), weights(e.n, e.n), alone(e.n, e.v_width);
      const LayerOptions options{.threads = threads};
      c_face::self_attention<T>(in.X, in.Wq, in.Wk, in.Wv, output, options, weights);
      c_face::self_attention<T>(in.X, in.Wq, in.Wk, in.Wv, alone, options, {});
      EXPECT_EQ(output, wanted.output);
      EXPECT_EQ(weights, wanted.weights);
      EXPECT_EQ(alone, wanted.output);
    }
}

// The scratch query is what the call takes: that much is enough, and one byte less than its aligned part is not.
TYPED_TEST(CApiOfSums, ScratchOfXToTheOutput) {
  using T = TypeParam;
  const Inputs<T> in({37, 12, 20, 30, 7, 5}), one({37, 12, 20, 30, 7, 1});
  const mh_tensor X = c_face::tensor_of(MatrixView<const T>(in.X)), Wq = c_face::tensor_of(MatrixView<const T>(in.Wq)),
                  Wk = c_face::tensor_of(MatrixView<const T>(in.Wk)),
                  Wv = c_face::tensor_of(MatrixView<const T>(in.Wv)),
                  Wo = c_face::tensor_of(MatrixView<const T>(in.Wo));
  Matrix<T> output(37, 7), own(37, 30);
  const mh_tensor to = c_face::tensor_of(MatrixView<T>(output)), to_own = c_face::tensor_of(MatrixView<T>(own));
  mh_run_options run;
  mh_run_options_init(&run, sizeof run);
  std::size_t bytes = 0;
  std::vector<std::byte> scratch;
  const auto lend = [&](std::size_t size) {
    scratch.resize(size);
    run.scratch = scratch.data(), run.scratch_bytes = size;
  };
  ASSERT_EQ(mh_multi_head_attention_scratch_bytes(&X, &Wq, &Wk, &Wv, &Wo, 5, nullptr, 0, &bytes), MH_OK);
  EXPECT_EQ(bytes, multi_head_attention_scratch_bytes(sizeof(T), 37, 12, 20, 30, 7, 5));
  const auto many = [&] { return mh_multi_head_attention(&X, &Wq, &Wk, &Wv, &Wo, 5, &to, nullptr, nullptr, &run); };
  lend(bytes);
  EXPECT_EQ(many(), MH_OK) << mh_last_error_message();
  EXPECT_EQ(output, in.run({}));
  lend(bytes - 64);
  EXPECT_EQ(many(), MH_OUT_OF_MEMORY);

  ASSERT_EQ(mh_multi_head_attention_scratch_bytes(&X, &Wq, &Wk, &Wv, nullptr, 1, nullptr, 1, &bytes), MH_OK);
  const auto self = [&] { return mh_self_attention(&X, &Wq, &Wk, &Wv, &to_own, nullptr, &run); };
  lend(bytes);
  EXPECT_EQ(self(), MH_OK) << mh_last_error_message();
  EXPECT_EQ(mh_multi_head_attention_scratch_bytes(&X, &Wq, &Wk, &Wv, nullptr, 2, nullptr, 1, &bytes), MH_BAD_ARGUMENT);
}

TEST(CApi, TheMachine) {
  mh_info info;
  mh_info_init(&info, sizeof info);
  ASSERT_EQ(mh_get_info(&info), MH_OK);
  EXPECT_EQ(info.struct_size, sizeof info);
  EXPECT_EQ(info.threads, hardware_threads());
  EXPECT_EQ(info.chosen, c_face::number_of(chosen_target()));
  const std::vector<Target> available = available_targets();
  ASSERT_EQ(info.available_count, static_cast<int>(available.size()));
  for (std::size_t i = 0; i < available.size(); ++i) {
    EXPECT_EQ(info.available[i], c_face::number_of(available[i]));
    EXPECT_EQ(mh_target_name(info.available[i]), target_name(available[i]));
  }
  EXPECT_EQ(info.version, std::string(version()));
  EXPECT_EQ(mh_version(), std::string(version()));
  EXPECT_EQ(info.processor, processor_name().substr(0, sizeof info.processor - 1));
  EXPECT_NE(std::string(info.compiler), "");
  for (mh_target none : {-1, 0, 7}) EXPECT_EQ(mh_target_name(none), std::string("unknown"));
}

TEST(CApi, ACounterProvesWhichKernelsRan) {
  const Inputs<float> in({9, 6, 4, 4, 3, 2});
  for (Target target : available_targets()) {
    const mh_target number = c_face::number_of(target);
    std::uint64_t before = 0, after = 0;
    ASSERT_EQ(mh_tasks_run(number, &before), MH_OK);
    Matrix<float> output(9, 3);
    c_face::multi_head_attention<float>(in.X, in.Wq, in.Wk, in.Wv, in.Wo, 2, output, {.target = target}, {});
    ASSERT_EQ(mh_tasks_run(number, &after), MH_OK);
    EXPECT_GT(after, before);
    EXPECT_EQ(after, tasks_run(target));
  }
}

TEST(CApi, NothingIsAllocatedAfterTheFirstCall) {
  Tensor<float> q({1, 4, 30, 8}), k({1, 2, 30, 8}), v({1, 2, 30, 8}), out({1, 4, 30, 8});
  const std::vector<std::int64_t> lengths{17};
  const AttentionOptions options{.causal = true, .window = {5, -1}, .lengths = lengths, .threads = 2};
  const c_face::Attention structs(options);
  const mh_tensor tensors[] = {c_face::tensor_of(q.view), c_face::tensor_of(k.view), c_face::tensor_of(v.view),
                               c_face::tensor_of(out.view)};
  const auto run = [&] {
    return mh_attention(&tensors[0], &tensors[1], &tensors[2], &tensors[3], nullptr, nullptr, &structs.options);
  };
  ASSERT_EQ(run(), MH_OK) << mh_last_error_message();
  const std::int64_t before = allocations;
  EXPECT_EQ(run(), MH_OK);
  EXPECT_EQ(allocations - before, 0);
}

}  // namespace
}  // namespace multihead::testing
