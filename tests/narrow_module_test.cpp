// SPDX-License-Identifier: Apache-2.0
// A MultiHeadAttention of two bytes: the bits of its parts put together, and its errors against float64.
#include <gtest/gtest.h>

#include <numeric>

#include "module_problem.hpp"
#include "multihead/linear.hpp"

namespace multihead::testing {
namespace {

template <class T>
class NarrowModule : public ::testing::Test {};
using NarrowTypes = ::testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(NarrowModule, NarrowTypes);

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

template <class To, class From>
std::vector<To> converted(const std::vector<From>& from) {
  std::vector<To> to;
  to.reserve(from.size());
  for (From x : from) to.push_back(To(x));
  return to;
}

// (batch, length, heads * width) as (batch, heads, length, width).
template <class E>
View4<E> split(E* x, std::array<std::int64_t, 4> e) {
  return {x, e, {e[2] * e[1] * e[3], e[3], e[1] * e[3], 1}};
}

// The layer made of Linear, row_norm() and rotary_embedding() of floats, attention() of T and merge() of floats.
template <class T>
struct Parts {
  const ModuleProblem<T>& p;
  Target target;
  const MultiHeadExtents& e = p.e;
  std::vector<T> output;
  std::vector<float> lse;

  Parts(const ModuleProblem<T>& problem, Target of) : p(problem), target(of) {
    const std::vector<T> q =
        project({p.query.view, p.q, p.q_bias, p.spec.q_norm, p.q_norm, p.q_norm_bias, p.q_positions});
    const std::vector<T> k = project({p.keys(), p.k, p.k_bias, p.spec.k_norm, p.k_norm, p.k_norm_bias, p.k_positions});
    const std::vector<T> v = product<T>(rows(p.values()), p.v, p.v_bias);
    AttentionOptions options = p.options.attention;
    options.scale = p.spec.scale, options.target = target;
    std::vector<T> concat = attend(q, {k.data(), e.head_dim}, {v.data(), e.value_dim}, p.kv_len, options, lse);
    if (e.extra_keys > 0) concat = joined(q, concat);
    if (!p.gates.empty())
      for (std::size_t i = 0; i < concat.size(); ++i) {
        const auto h = static_cast<std::int64_t>(i) / e.value_dim % e.heads;
        concat[i] = T(static_cast<float>(concat[i]) * static_cast<float>(p.gates[size(h)]));
      }
    output = product<T>(concat, p.out, p.out_bias);
  }

  static std::vector<T> rows(const View3<const T>& x) {
    std::vector<T> all;
    for (std::int64_t b = 0; b < x.extent(0); ++b)
      for (std::int64_t i = 0; i < x.extent(1); ++i)
        for (std::int64_t c = 0; c < x.extent(2); ++c) all.push_back(x(b, i, c));
    return all;
  }

  template <class C>
  std::vector<C> product(const std::vector<T>& x, const Values<T>& w, const Values<T>& bias) const {
    const std::int64_t in = &w == &p.q   ? e.model_dim
                            : &w == &p.k ? e.kdim
                            : &w == &p.v ? e.vdim
                                         : e.heads * e.value_dim;
    const std::int64_t count = static_cast<std::int64_t>(x.size()) / in;
    const std::int64_t width = static_cast<std::int64_t>(w.all.size()) / in;
    const Linear<T> linear(MatrixView<const T>(w.all, {in, width}), WeightOrder::in_out, bias.span());
    std::vector<C> y(size(count * width) + 1);
    linear.forward(MatrixView<const T>(x.data(), {count, in}), MatrixView<C>(y.data(), {count, width}),
                   Activation::none, {.target = target});
    y.pop_back();
    return y;
  }

  // Queries or keys on their way from the input to attention.
  struct Way {
    View3<const T> x;
    const Values<T>&w, &bias;
    const HeadNorm& norm;
    const Values<T>&norm_weight, &norm_bias;
    const std::vector<std::int64_t>& positions;
  };
  std::vector<T> project(const Way& way) const {
    const auto& [x, w, bias, norm, norm_weight, norm_bias, positions] = way;
    if (norm.kind == HeadNorm::Kind::none && !p.spec.rotary) return product<T>(rows(x), w, bias);
    std::vector<float> y = product<float>(rows(x), w, bias);
    const auto vectors = static_cast<std::int64_t>(y.size()) / e.head_dim;
    if (norm.kind != HeadNorm::Kind::none) {
      const std::vector<float> weight = converted<float>(norm_weight.all), shift = converted<float>(norm_bias.all);
      const MatrixView<float> all(y.data(), {vectors, e.head_dim});
      row_norm(all, {}, {norm, weight, shift}, all, {.target = target});
    }
    if (p.spec.rotary) turn(y, positions, x.extent(1));
    return converted<T>(y);
  }

  void turn(std::vector<float>& y, const std::vector<std::int64_t>& given, std::int64_t length) const {
    const std::int64_t dim = p.spec.rotary->rotary_dim.value_or(e.head_dim), half = dim / 2,
                       last = p.spec.max_positions;
    std::vector<std::int64_t> all(size(last)), positions;
    std::iota(all.begin(), all.end(), 0);
    std::vector<float> cos(size(last * half)), sin(size(last * half));
    const MatrixView<float> c(cos, {last, half}), s(sin, {last, half});
    rotary_tables(all, dim, *p.spec.rotary, c, s);
    for (std::int64_t i = 0; i < p.batch * length; ++i)
      positions.push_back(p.q_positions.empty() ? i % length : given[size(i)]);
    if (y.empty()) return;
    const std::int64_t heads = static_cast<std::int64_t>(y.size()) / (p.batch * length * e.head_dim);
    const View4<float> x = split(y.data(), {p.batch, heads, length, e.head_dim});
    rotary_embedding(View4<const float>(x), MatrixView<const float>(c), MatrixView<const float>(s),
                     {positions.data(), {p.batch, length}}, p.spec.rotary->pairing, x, target);
  }

  struct Rows {
    const T* data;
    std::int64_t width;
    bool every = false;  // (kv_heads, keys, width), the same for every entry of the batch
    View4<const T> view(std::int64_t batch, std::int64_t heads, std::int64_t keys) const {
      if (every) return {data, {batch, heads, keys, width}, {0, keys * width, width, 1}};
      return split(data, {batch, heads, keys, width});
    }
  };
  std::vector<T> attend(const std::vector<T>& q, const Rows& k, const Rows& v, std::int64_t keys,
                        const AttentionOptions& options, std::vector<float>& to_lse) const {
    std::vector<T> out(size(p.batch * p.q_len * e.heads * e.value_dim));
    to_lse.resize(size(p.batch * e.heads * p.q_len));
    attention(split(q.data(), {p.batch, e.heads, p.q_len, e.head_dim}), k.view(p.batch, e.kv_heads, keys),
              v.view(p.batch, e.kv_heads, keys), split(out.data(), {p.batch, e.heads, p.q_len, e.value_dim}),
              View3<float>(to_lse.data(), {p.batch, e.heads, p.q_len}), options);
    return out;
  }

  std::vector<T> extra_rows(const Values<T>& learned, std::int64_t width) const {
    std::vector<T> all;
    for (std::int64_t h = 0; h < e.kv_heads; ++h)
      for (std::int64_t j = 0; j < e.extra_keys; ++j)
        for (std::int64_t c = 0; c < width; ++c)
          all.push_back(j == 0 && !learned.all.empty() ? learned.all[size(h * width + c)] : T(0.0f));
    return all;
  }

  // With the extra keys, which no option but scale reaches.
  std::vector<T> joined(const std::vector<T>& q, const std::vector<T>& own) {
    const std::vector<T> k = extra_rows(p.bias_k, e.head_dim), v = extra_rows(p.bias_v, e.value_dim);
    std::vector<float> other_lse;
    const std::vector<T> other = attend(q, {k.data(), e.head_dim, true}, {v.data(), e.value_dim, true}, e.extra_keys,
                                        {.scale = p.spec.scale, .target = target}, other_lse);
    std::vector<float> a = converted<float>(own);
    const std::vector<float> b = converted<float>(other);
    const std::array<std::int64_t, 4> extents{p.batch, e.heads, p.q_len, e.value_dim};
    const View4<float> out = split(a.data(), extents);
    const std::array<std::int64_t, 3> all{p.batch, e.heads, p.q_len};
    const View3<float> of_all(lse.data(), all);
    merge(View4<const float>(out), View3<const float>(of_all), split(b.data(), extents),
          View3<const float>(other_lse.data(), all), out, of_all, target);
    return converted<T>(a);
  }
};

TYPED_TEST(NarrowModule, IsItsPartsBits) {
  using T = TypeParam;
  for (std::uint64_t seed = 0; seed < (quick_share() ? 8u : 60u); ++seed) {
    ModuleProblem<T> p(seed + 1500);
    p.asks_lse = true;
    const MultiHeadAttention<T> layer = p.layer();
    for (Target target : available_targets()) {
      MultiHeadOptions options = p.options;
      options.attention.target = target;
      ModuleResults<T> got;
      got.run(layer, p, options, true);
      const Parts<T> wanted(p, target);
      EXPECT_TRUE(same_bits(got.output, wanted.output)) << target_name(target) << " " << p.describe();
      EXPECT_TRUE(same_bits(got.lse, wanted.lse)) << target_name(target) << " " << p.describe();
    }
  }
}

}  // namespace
}  // namespace multihead::testing
