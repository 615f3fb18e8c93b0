// SPDX-License-Identifier: Apache-2.0
// A random layer of module_problem.hpp as one that learns: all of its gradients in memory of their own.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "gradient_check.hpp"
#include "module_problem.hpp"
#include "multihead/multi_head_training.hpp"

namespace multihead::testing {

// Gradients of everything that the problem has.
template <class T>
struct LayerGradients {
  std::map<std::string, std::vector<T>> parameters;  // by the names of MultiHeadWeights
  std::map<std::string, std::vector<T>> inputs;      // query, key, value: contiguous
  std::vector<double> gates;
  bool operator==(const LayerGradients&) const = default;

  MultiHeadGradients<T> parameter_views(const MultiHeadWeights<T>& w, std::int64_t heads, T start = 0) {
    MultiHeadGradients<T> g;
    const auto matrix = [&](const char* name, const MatrixView<const T>& of) -> MatrixView<T> {
      if (!of.data()) return {};
      std::vector<T>& memory = parameters[name];
      memory.assign(static_cast<std::size_t>(of.extent(0) * of.extent(1)), start);
      return {memory.data(), of.extents()};
    };
    const auto vector = [&](const char* name, std::span<const T> of) -> std::span<T> {
      if (of.empty()) return {};
      return parameters[name] = std::vector<T>(of.size(), start);
    };
    g.q = matrix("q", w.q), g.k = matrix("k", w.k), g.v = matrix("v", w.v), g.qkv = matrix("qkv", w.qkv);
    g.out = matrix("out", w.out);
    g.q_bias = vector("q_bias", w.q_bias), g.k_bias = vector("k_bias", w.k_bias);
    g.v_bias = vector("v_bias", w.v_bias), g.qkv_bias = vector("qkv_bias", w.qkv_bias);
    g.out_bias = vector("out_bias", w.out_bias);
    g.bias_k = vector("bias_k", w.bias_k), g.bias_v = vector("bias_v", w.bias_v);
    g.q_norm = vector("q_norm", w.q_norm), g.k_norm = vector("k_norm", w.k_norm);
    g.q_norm_bias = vector("q_norm_bias", w.q_norm_bias), g.k_norm_bias = vector("k_norm_bias", w.k_norm_bias);
    gates.assign(static_cast<std::size_t>(heads), 77), g.gates = gates;
    return g;
  }

  MultiHeadInputGradients<T> input_views(const View3<const T>& query, const View3<const T>& key,
                                         const View3<const T>& value, bool self) {
    const auto input = [&](const char* name, const View3<const T>& of) -> View3<T> {
      std::vector<T>& memory = inputs[name];
      memory.assign(static_cast<std::size_t>(of.extent(0) * of.extent(1) * of.extent(2)), T(77));
      return {memory.data(), of.extents()};
    };
    MultiHeadInputGradients<T> g;
    g.query = input("query", query);
    if (!self) g.key = input("key", key), g.value = input("value", value);
    return g;
  }
};

// A random problem with the gradient that comes to its output.
template <class T>
struct TrainingProblem {
  ModuleProblem<T> p;
  MultiHeadWeights<T> weights;
  std::vector<T> d_output, output;

  explicit TrainingProblem(std::uint64_t seed) : p(seed), weights(p.weights()) {
    Random random(seed + 1000);
    d_output = normal_values<T>(random, p.batch * p.q_len * p.e.out_dim);
    output.resize(d_output.size());
  }
  TrainingProblem(const TrainingProblem&) = delete;

  std::array<std::int64_t, 3> output_extents() const { return {p.batch, p.q_len, p.e.out_dim}; }
  void forward(MultiHeadTraining<T>& layer, const MultiHeadOptions& options) {
    layer.forward(p.query.view, p.keys(), p.values(), View3<T>(output, output_extents()), options);
  }
  LayerGradients<T> backward(MultiHeadTraining<T>& layer, const MultiHeadOptions& options, T start = 0) {
    forward(layer, options);
    LayerGradients<T> g;
    const MultiHeadGradients<T> to = g.parameter_views(weights, p.e.heads, start);
    layer.backward(View3<const T>(d_output, output_extents()),
                   g.input_views(p.query.view, p.keys(), p.values(), p.self), to);
    return g;
  }
};

}  // namespace multihead::testing
