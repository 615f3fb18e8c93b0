// SPDX-License-Identifier: Apache-2.0
// Random MultiHeadAttention layers with a call each, over every feature, and the definition that judges them.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "multihead/multi_head_attention.hpp"
#include "problem.hpp"
#include "tracked.hpp"

namespace multihead::testing {

// Numbers that every storage type holds exactly enough: normal ones, rounded to T by the caller.
template <class T>
struct Values {
  std::vector<T> all;

  static Values normal(Random& random, std::int64_t count, double scale) {
    Values values;
    for (std::int64_t i = 0; i < count; ++i) values.all.push_back(T(static_cast<Sum<T>>(random.normal() * scale)));
    return values;
  }
  std::span<const T> span() const { return all; }
  long double operator[](std::int64_t i) const {
    return static_cast<long double>(static_cast<Sum<T>>(all[static_cast<std::size_t>(i)]));
  }
};

// One of the call's inputs, (batch, length, width), in a layout of the caller's.
template <class T>
struct Sequence {
  std::vector<T> memory;
  View3<const T> view;

  void fill(Random& random, std::array<std::int64_t, 3> extents) {
    const auto [batch, length, width] = extents;
    const std::int64_t padding = random.pick<std::int64_t>({0, 0, 3});
    const bool length_first = random.chance(25);  // (length, batch, width), torch's own
    const std::int64_t row = width + padding;
    memory = Values<T>::normal(random, std::max<std::int64_t>(batch * length * row, 1), 1).all;
    const std::array<std::int64_t, 3> strides =
        length_first ? std::array{row, batch * row, std::int64_t{1}} : std::array{length * row, row, std::int64_t{1}};
    view = View3<const T>(memory.data(), extents, strides);
  }
};

// A layer, its parameters in [in, out] order with separate projections, and one call.
template <class T>
struct ModuleProblem {
  MultiHeadSpec spec;
  MultiHeadExtents e{};
  Values<T> q, k, v, out, q_bias, k_bias, v_bias, out_bias, bias_k, bias_v;
  Values<T> q_norm, k_norm, q_norm_bias, k_norm_bias;
  bool fused = false, fused_bias = false;
  std::map<std::string, std::vector<T>> stored;  // as the constructor is given them

  std::int64_t batch = 1, q_len = 0, kv_len = 0;
  bool self = true;
  Sequence<T> query, key, value;
  MultiHeadOptions options;
  std::vector<std::int64_t> lengths, q_positions, k_positions;
  std::vector<double> gates;
  bool asks_lse = false, asks_heads = false, asks_per_head = false, asks_mean = false, asks_norm_weighted = false,
       asks_norms = false;
  std::set<std::string> tags;

  explicit ModuleProblem(std::uint64_t seed);
  ModuleProblem(const ModuleProblem&) = delete;

  MultiHeadWeights<T> weights();  // in memory of the problem's, until the next call
  MultiHeadAttention<T> layer() { return MultiHeadAttention<T>(spec, weights()); }
  View3<const T> keys() const { return self ? query.view : key.view; }
  View3<const T> values() const { return self ? query.view : value.view; }
  std::string describe() const;

 private:
  void draw_layer(Random& random);
  void draw_heads(Random& random);
  void draw_call(Random& random);
  void draw_requests(Random& random);
  MatrixView<const T> store(const std::string& name, const std::vector<T>& in_out, std::int64_t in);
};

std::set<std::string> all_module_tags();

// What a call gives, in memory of its own.
template <class T>
struct ModuleResults {
  using S = Sum<T>;
  std::vector<T> output;
  std::vector<S> lse, heads, per_head, mean, norm_weighted, norms;

  MultiHeadRequests<T> requests(const ModuleProblem<T>& p);
  View3<T> output_view(const ModuleProblem<T>& p);
  // Runs the call with these options; asks for what the problem asks for, or for nothing.
  void run(const MultiHeadAttention<T>& layer, const ModuleProblem<T>& p, const MultiHeadOptions& options, bool asks);
};

// The same by the definition, each number with the bound of its error. What a layer of two bytes stores is rounded here
// too. pairs: weights are rounded to bfloat16 on their way to the values.
struct ModuleTruth {
  std::vector<Tracked> output, lse, heads, per_head, mean, norm_weighted, norms;

  template <class T>
  explicit ModuleTruth(const ModuleProblem<T>& p, bool pairs = false);
};

}  // namespace multihead::testing
