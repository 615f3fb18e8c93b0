// SPDX-License-Identifier: Apache-2.0
// A call of attention() in an arena, and the doors that must refuse it: four types, lse, C, the reference, the
// questions.
#pragma once

#include "c_face.hpp"
#include "multihead/reference.hpp"
#include "refusals.hpp"

namespace multihead::testing {

struct AttentionCall {
  AttentionShape shape{.batch = 2, .heads = 4, .kv_heads = 2, .q_len = 3, .kv_len = 3, .head_dim = 4, .value_dim = 5};
  AttentionOptions options = {};
  Layout q, k, v, out, lse;

  AttentionCall() { lay_out(); }
  void lay_out() {
    const auto& s = shape;
    q = Layout(0, {s.batch, s.heads, s.q_len, s.head_dim}), k = Layout(1, {s.batch, s.kv_heads, s.kv_len, s.head_dim});
    v = Layout(2, {s.batch, s.kv_heads, s.kv_len, s.value_dim}), lse = Layout(4, {s.batch, s.heads, s.q_len});
    out = Layout(3, {s.batch, s.heads, s.q_len, s.value_dim});
  }
  template <class T>
  void run(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 4>(arena); };
    attention(in(q), in(k), in(v), out.view<T, 4>(arena), options);
  }
  template <class T>
  void run_with_lse(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 4>(arena); };
    attention(in(q), in(k), in(v), out.view<T, 4>(arena), lse.view<T, 3>(arena), options);
  }
  template <class T>
  void run_in_c(std::vector<T>& arena, bool asks_lse) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 4>(arena); };
    c_face::attention<T>(in(q), in(k), in(v), out.view<T, 4>(arena), asks_lse ? lse_of(arena) : View3<Sum<T>>{}, {},
                         options);
  }
  template <class T>
  View3<Sum<T>> lse_of(std::vector<T>& arena) const {
    if constexpr (std::is_same_v<T, Sum<T>>)
      return lse.view<T, 3>(arena);
    else
      return {};
  }
  void run_reference(std::vector<double>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const double, 4>(arena); };
    attention_reference(in(q), in(k), in(v), out.view<double, 4>(arena), lse.view<double, 3>(arena), options);
  }
};

template <class T>
void expect_attention_refuses_of(const Case<AttentionCall>& c) {
  expect_refused<T>("attention", c, AttentionCall(), [](const AttentionCall& call, auto& arena) { call.run(arena); });
  expect_refused<T>("attention", c, AttentionCall(),
                    [](const AttentionCall& call, auto& arena) { call.run_in_c(arena, false); });
}
inline void expect_attention_refuses(const Case<AttentionCall>& c) {
  expect_attention_refuses_of<float>(c);
  expect_attention_refuses_of<double>(c);
  expect_attention_refuses_of<BFloat16>(c);
  expect_attention_refuses_of<Float16>(c);
}
inline void expect_attention_refuses_with_lse(const Case<AttentionCall>& c) {
  const auto door = [](const AttentionCall& call, auto& arena) { call.run_with_lse(arena); };
  expect_refused<float>("attention", c, AttentionCall(), door);
  expect_refused<double>("attention", c, AttentionCall(), door);
  expect_refused<double>("attention", c, AttentionCall(),
                         [](const AttentionCall& call, auto& arena) { call.run_in_c(arena, true); });
}
inline void expect_reference_refuses(const Case<AttentionCall>& c) {
  const auto door = [](const AttentionCall& call, auto& arena) { call.run_reference(arena); };
  expect_refused<double>("attention_reference", c, AttentionCall(), door);
}
inline void expect_questions_refuse(const Case<AttentionCall>& c) {
  AttentionCall call;
  c.change(call);
  for (bool weights : {false, true})
    expect_error("attention_scratch_bytes", c.code, c.words,
                 [&] { attention_scratch_bytes(call.shape, call.options, weights); });
  expect_error("explain", c.code, c.words, [&] { explain(call.shape, call.options); });
  expect_error("attention_scratch_bytes", c.code, c.words,
               [&] { c_face::attention_scratch_bytes(call.shape, call.options, true); });
  expect_error("explain", c.code, c.words, [&] { c_face::explain(call.shape, call.options); });
}

}  // namespace multihead::testing
