// SPDX-License-Identifier: Apache-2.0
// attention() of every type on one thread, at the lengths and head sizes of models.
//
//   GFLOPS = 4 x visible (query, key) pairs x head_dim / time        share = GFLOPS / ceiling_of(type)
#include <string>

#include "cases.hpp"
#include "ceilings.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using testing::Tensor;

template <class T>
void attention_case(benchmark::State& state, std::int64_t heads) {
  const std::int64_t length = state.range(0), head_dim = state.range(1);
  Tensor<T> q({1, heads, length, head_dim}), k(q.view.extents()), v(q.view.extents()), out(q.view.extents());
  Random random(1);
  for (Tensor<T>* tensor : {&q, &k, &v}) tensor->each([&](T& x) { x = T(static_cast<float>(random.normal())); });
  const AttentionOptions options{.causal = state.range(2) != 0};
  const AttentionShape shape{kTypeOf<T>, 1, heads, heads, length, length, head_dim, head_dim};
  const double ceiling = ceiling_of(kTypeOf<T>, chosen_target());
  for (auto _ : state)
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, options);
  report_flops(state, explain(shape, options).flops, ceiling);
}

template <class T>
void add(const std::string& type, std::int64_t heads, const std::vector<std::vector<std::int64_t>>& shapes) {
  benchmark::RegisterBenchmark(("attention_" + type + "/heads:" + std::to_string(heads)).c_str(), attention_case<T>,
                               heads)
      ->ArgsProduct(shapes)
      ->ArgNames({"length", "head_dim", "causal"});
}

}  // namespace

void register_attention() {
  add<float>("f32", 8, {{128, 512, 1024}, {64, 128}, {0, 1}});
  add<float>("f32", 2, {{4096}, {64, 128}, {0, 1}});
  add<float>("f32", 12, {{128}, {32, 64}, {0}});  // a small encoder's and a base encoder's
  add<BFloat16>("bf16", 8, {{512, 1024}, {64, 128}, {0, 1}});
  add<BFloat16>("bf16", 2, {{4096}, {64, 128}, {0, 1}});
  add<Float16>("f16", 8, {{1024}, {64, 128}, {0, 1}});
  add<double>("f64", 2, {{1024}, {64, 128}, {0, 1}});
}

}  // namespace multihead::bench
