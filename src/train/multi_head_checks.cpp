// SPDX-License-Identifier: Apache-2.0
// The rules of MultiHeadTraining::backward: gradients of what there is, of its extents, in memory of their own.
#include <array>
#include <tuple>

#include "train/checks.hpp"
#include "train/multi_head_state.hpp"

namespace multihead {

namespace {

// Everything that is written, and the parameters, as views that operands may point into.
template <class T>
struct Gradients {
  using State = typename MultiHeadTraining<T>::State;
  struct Vector {
    const char *name, *of;
    View<T, 1> gradient;
    View<const T, 1> parameter;
  };
  struct Weight {
    const char *name, *of;
    MatrixView<T> gradient;
    MatrixView<const T> parameter;
  };
  const State& state;
  const MultiHeadGradients<T>& g;
  std::array<Weight, 5> matrices;
  std::array<Vector, 11> vectors;
  View<double, 1> gates, slopes, sinks;
  std::array<Operand, 32> written;
  std::size_t count = 0;

  Gradients(const State& of, const MultiHeadGradients<T>& gradients)
      : state(of),
        g(gradients),
        gates(vector_view(g.gates)),
        slopes(vector_view(g.alibi_slopes)),
        sinks(vector_view(g.sinks)) {
    const MultiHeadWeights<T>& w = state.weights;
    matrices = {{{"gradients.q", "q", g.q, w.q},
                 {"gradients.k", "k", g.k, w.k},
                 {"gradients.v", "v", g.v, w.v},
                 {"gradients.qkv", "qkv", g.qkv, w.qkv},
                 {"gradients.out", "out", g.out, w.out}}};
    const auto vector = [](const char* name, const char* of_what, std::span<T> gradient, std::span<const T> parameter) {
      return Vector{name, of_what, vector_view(gradient), vector_view(parameter)};
    };
    vectors = {vector("gradients.q_bias", "q_bias", g.q_bias, w.q_bias),
               vector("gradients.k_bias", "k_bias", g.k_bias, w.k_bias),
               vector("gradients.v_bias", "v_bias", g.v_bias, w.v_bias),
               vector("gradients.qkv_bias", "qkv_bias", g.qkv_bias, w.qkv_bias),
               vector("gradients.out_bias", "out_bias", g.out_bias, w.out_bias),
               vector("gradients.bias_k", "bias_k", g.bias_k, w.bias_k),
               vector("gradients.bias_v", "bias_v", g.bias_v, w.bias_v),
               vector("gradients.q_norm", "q_norm", g.q_norm, w.q_norm),
               vector("gradients.k_norm", "k_norm", g.k_norm, w.k_norm),
               vector("gradients.q_norm_bias", "q_norm_bias", g.q_norm_bias, w.q_norm_bias),
               vector("gradients.k_norm_bias", "k_norm_bias", g.k_norm_bias, w.k_norm_bias)};
  }
  Gradients(const Gradients&) = delete;

  void add(const Operand& operand) { written[count++] = operand; }

  static void check_there(const char* name, const char* of, bool there) {
    if (!there)
      fail(ErrorCode::bad_option, std::string(kTraining) + ": " + name + " is asked for; the layer has no " + of);
  }

  void check_parameters() {
    for (const Weight& m : matrices) {
      if (!given(m.gradient)) continue;
      const Operand gradient = operand(m.name, m.gradient);
      check_there(m.name, m.of, given(m.parameter));
      check_weight(kTraining, gradient);
      check_like(kTraining, gradient, "its weight has", operand(m.of, m.parameter));
      add(gradient);
    }
    for (const Vector& v : vectors) {
      if (v.gradient.extent(0) == 0) continue;
      check_there(v.name, v.of, v.parameter.extent(0) > 0);
      check_view(kTraining, operand(v.name, v.gradient));
      check_equal(kTraining, v.name, "has", v.gradient.extent(0), "its parameter has", v.parameter.extent(0));
      add(operand(v.name, v.gradient));
    }
    if (gates.extent(0) > 0) {
      check_equal(kTraining, "gradients.gates", "has", gates.extent(0), "heads is", state.layer.e.heads);
      add(operand("gradients.gates", gates));
    }
    // Their extents: check_backward().
    for (const Operand& vector : {operand("gradients.alibi_slopes", slopes), operand("gradients.sinks", sinks)})
      if (vector.extents[0] > 0) add(vector);
    if (given(g.attention_bias)) add(operand("gradients.attention_bias", g.attention_bias));
    if (given(g.relative_bias)) add(operand("gradients.relative_bias", g.relative_bias));
  }

  // Inputs and output are views of the caller of backward(), which outlive this.
  void check_input(const char* name, const View3<T>& gradient, const View3<const T>& input) {
    if (!given(gradient)) return;
    const Operand view = operand(name, gradient);
    check_view(kTraining, view);
    check_contiguous(kTraining, view);
    check_equal(kTraining, name, "has batch", gradient.extent(0), "the input has", input.extent(0));
    check_equal(kTraining, name, "has length", gradient.extent(1), "the input has", input.extent(1));
    check_equal(kTraining, name, "has width", gradient.extent(2), "the input has", input.extent(2));
    add(view);
  }

  void check_memory(const Operand& d_output) const {
    const Operand query = operand("query", state.query), key = operand("key", state.key),
                  value = operand("value", state.value);
    const Operand q_positions = operand("q_positions", state.options.q_positions),
                  k_positions = operand("k_positions", state.options.k_positions);
    const View<const double, 1> read_gates = vector_view(state.options.gates);
    for (std::size_t i = 0; i < count; ++i) {
      check_output(kTraining, written[i],
                   {query, key, value, d_output, q_positions, k_positions, operand("gates", read_gates)},
                   state.options.attention);
      for (const Weight& m : matrices) check_apart(kTraining, written[i], operand(m.of, m.parameter));
      for (const Vector& v : vectors) check_apart(kTraining, written[i], operand(v.of, v.parameter));
      for (std::size_t j = 0; j < i; ++j) check_apart(kTraining, written[i], written[j]);
    }
  }
};

}  // namespace

template <class T>
void check_training_gradients(const typename MultiHeadTraining<T>::State& state, const View3<const T>& d_output,
                              const MultiHeadInputGradients<T>& inputs, const MultiHeadGradients<T>& parameters) {
  if (!state.ready)
    fail(ErrorCode::bad_option,
         std::string(kTraining) + ": backward is called without a forward before it; it takes each forward once");
  const Operand from = operand("d_output", d_output);
  check_view(kTraining, from);
  check_contiguous(kTraining, from);
  check_equal(kTraining, "d_output", "has batch", d_output.extent(0), "the forward had", state.query.extent(0));
  check_equal(kTraining, "d_output", "has q_len", d_output.extent(1), "the forward had", state.query.extent(1));
  check_equal(kTraining, "d_output", "has out_dim", d_output.extent(2), "the layer has", state.layer.e.out_dim);
  if (is_self(state.query, state.key, state.value) && (given(inputs.key) || given(inputs.value)))
    fail(ErrorCode::bad_option, std::string(kTraining) + ": " + (given(inputs.key) ? "key" : "value") +
                                    " is asked for after self-attention; query is the gradient of its one input");
  Gradients<T> all(state, parameters);
  all.check_input("inputs.query", inputs.query, state.query);
  all.check_input("inputs.key", inputs.key, state.key);
  all.check_input("inputs.value", inputs.value, state.value);
  all.check_parameters();
  all.check_memory(from);
}

template void check_training_gradients<float>(const MultiHeadTraining<float>::State&, const View3<const float>&,
                                              const MultiHeadInputGradients<float>&, const MultiHeadGradients<float>&);
template void check_training_gradients<double>(const MultiHeadTraining<double>::State&, const View3<const double>&,
                                               const MultiHeadInputGradients<double>&,
                                               const MultiHeadGradients<double>&);

}  // namespace multihead
