// SPDX-License-Identifier: Apache-2.0
// MultiHeadTraining over random layers of every feature: its forward against MultiHeadAttention, its gradients against
// finite differences through the whole layer, float against double, bits, accumulation, memory.
#include "training_layer.hpp"

#include <gtest/gtest.h>

#include "allocations.hpp"

namespace multihead::testing {
namespace {

int problems() { return quick_share() ? 12 : 80; }

TEST(TrainingLayer, ForwardHasTheBitsOfMultiHeadAttention) {
  for (int seed = 0; seed < problems(); ++seed) {
    TrainingProblem<float> problem(static_cast<std::uint64_t>(seed));
    ModuleProblem<float>& p = problem.p;
    ModuleResults<float> wanted, got;
    wanted.run(MultiHeadAttention<float>(p.spec, problem.weights), p, p.options, true);
    MultiHeadTraining<float> layer(p.spec, problem.weights);
    const View3<float> to = got.output_view(p);
    layer.forward(p.query.view, p.keys(), p.values(), to, p.options, got.requests(p));
    EXPECT_EQ(got.output, wanted.output) << p.describe();
    EXPECT_EQ(got.lse, wanted.lse) << p.describe();
    EXPECT_EQ(got.heads, wanted.heads) << p.describe();
    EXPECT_EQ(got.per_head, wanted.per_head) << p.describe();
    EXPECT_EQ(got.mean, wanted.mean) << p.describe();
    EXPECT_EQ(got.norm_weighted, wanted.norm_weighted) << p.describe();
    EXPECT_EQ(got.norms, wanted.norms) << p.describe();
  }
}

// A few elements of everything that the layer reads.
TEST(TrainingLayer, GradientsAreThoseOfFiniteDifferences) {
  std::set<std::string> met;
  for (int seed = 0; seed < problems(); ++seed) {
    TrainingProblem<double> problem(static_cast<std::uint64_t>(seed));
    ModuleProblem<double>& p = problem.p;
    met.insert(p.tags.begin(), p.tags.end());
    MultiHeadTraining<double> layer(p.spec, problem.weights);
    const LayerGradients<double> g = problem.backward(layer, p.options);
    const auto loss = [&] {
      problem.forward(layer, p.options);
      return weighted_sum(problem.output, problem.d_output);
    };
    for (const auto& [name, gradient] : g.parameters)
      expect_gradient(name + " of " + p.describe(), p.stored[name], gradient, loss, 4);
    if (!p.gates.empty()) expect_gradient("gates of " + p.describe(), p.gates, g.gates, loss);
    for (const auto& [name, gradient] : g.inputs) {
      Sequence<double>& x = name == "query" ? p.query : name == "key" ? p.key : p.value;
      const std::int64_t width = x.view.extent(2), length = x.view.extent(1);
      const auto count = static_cast<std::int64_t>(gradient.size());
      for (std::int64_t i = 0; i < count; i += count / 4 + 1) {
        double* const element =
            x.memory.data() + i / width / length * x.view.stride(0) + i / width % length * x.view.stride(1) + i % width;
        expect_gradient(name + " of " + p.describe(), {element, 1},
                        std::span(gradient).subspan(static_cast<std::size_t>(i), 1), loss);
      }
    }
    if (HasFatalFailure()) return;
  }
  if (quick_share()) return;
  for (const std::string& tag : all_module_tags()) EXPECT_TRUE(met.contains(tag)) << tag;
}

std::vector<double> widened(std::span<const float> values) { return {values.begin(), values.end()}; }

// The problem's numbers in double.
struct WideWeights {
  std::map<std::string, std::vector<double>> memory;
  MultiHeadWeights<double> views;

  explicit WideWeights(ModuleProblem<float>& p, const MultiHeadWeights<float>& w) {
    for (const auto& [name, values] : p.stored) memory[name] = widened(values);
    const auto matrix = [&](const char* name, const MatrixView<const float>& of) {
      return of.data() ? MatrixView<const double>(memory[name].data(), of.extents()) : MatrixView<const double>();
    };
    const auto vector = [&](const char* name, std::span<const float> of) {
      return of.empty() ? std::span<const double>() : std::span<const double>(memory[name]);
    };
    views = {matrix("q", w.q),
             matrix("k", w.k),
             matrix("v", w.v),
             matrix("qkv", w.qkv),
             matrix("out", w.out),
             vector("q_bias", w.q_bias),
             vector("k_bias", w.k_bias),
             vector("v_bias", w.v_bias),
             vector("qkv_bias", w.qkv_bias),
             vector("out_bias", w.out_bias),
             vector("bias_k", w.bias_k),
             vector("bias_v", w.bias_v),
             vector("q_norm", w.q_norm),
             vector("k_norm", w.k_norm),
             vector("q_norm_bias", w.q_norm_bias),
             vector("k_norm_bias", w.k_norm_bias)};
  }
};

double magnitude_of(const std::vector<double>& values) {
  double largest = 0;
  for (double x : values) largest = std::max(largest, std::fabs(x));
  return largest;
}

// The gradients in double; shake: each weight is first moved by that share of itself, up and down in turn.
LayerGradients<double> gradients_in_double(TrainingProblem<float>& problem, double shake) {
  ModuleProblem<float>& p = problem.p;
  WideWeights weights(p, problem.weights);
  for (auto& [name, values] : weights.memory)
    for (double& x : values) x *= 1 + shake, shake = -shake;
  const std::vector<double> query = widened(p.query.memory), key = widened(p.key.memory),
                            value = widened(p.value.memory), d_output = widened(problem.d_output);
  const auto wide = [](const std::vector<double>& memory, const View3<const float>& of) {
    return View3<const double>(memory.data(), of.extents(), of.strides());
  };
  const View3<const double> q = wide(query, p.query.view), k = p.self ? q : wide(key, p.key.view),
                            v = p.self ? q : wide(value, p.value.view);
  MultiHeadTraining<double> layer(p.spec, weights.views);
  std::vector<double> output(d_output.size());
  layer.forward(q, k, v, View3<double>(output, problem.output_extents()), p.options);
  LayerGradients<double> wanted;
  const MultiHeadGradients<double> to = wanted.parameter_views(weights.views, p.e.heads);
  layer.backward(View3<const double>(d_output, problem.output_extents()), wanted.input_views(q, k, v, p.self), to);
  return wanted;
}

TEST(TrainingLayer, FloatIsNearDouble) {
  for (int seed = 0; seed < problems(); ++seed) {
    TrainingProblem<float> problem(static_cast<std::uint64_t>(seed));
    ModuleProblem<float>& p = problem.p;
    MultiHeadTraining<float> layer(p.spec, problem.weights);
    const LayerGradients<float> g = problem.backward(layer, p.options);
    LayerGradients<double> wanted = gradients_in_double(problem, 0);
    // A shift of all keys of a head alike changes no weight: what reaches k_bias and k_norm_bias are the roundings of
    // sums that cancel, and they are judged by what was summed.
    double largest = 0;
    for (const auto& [name, values] : wanted.parameters) largest = std::max(largest, magnitude_of(values));
    // A layer norm of two channels gives 1 and -1 whatever they are, but where they nearly meet: there a last bit of a
    // weight moves the gradients by more than their bound, and they may miss by what eight such bits move.
    const auto flips = [&](const HeadNorm& norm) { return p.e.head_dim == 2 && norm.kind == HeadNorm::Kind::layer; };
    const bool two = flips(p.spec.q_norm) || flips(p.spec.k_norm);
    LayerGradients<double> shaken = two ? gradients_in_double(problem, 0x1p-23) : wanted;
    const auto expect_near = [&](const std::string& name, const auto& values, const std::vector<double>& of,
                                 const std::vector<double>& moved) {
      const bool cancels = name == "k_bias" || name == "k_norm_bias";
      const double share = cancels ? magnitude_of(of) / largest : 1;
      EXPECT_LE(worst_difference(values, of) * share, 1e-5 + 8 * worst_difference(moved, of) * share)
          << name << " of " << p.describe();
    };
    for (const auto& [name, values] : g.parameters)
      expect_near(name, values, wanted.parameters[name], shaken.parameters[name]);
    for (const auto& [name, values] : g.inputs) expect_near(name, values, wanted.inputs[name], shaken.inputs[name]);
    EXPECT_LE(worst_difference(g.gates, wanted.gates), 1e-5) << p.describe();
  }
}

TEST(TrainingLayer, BitsDoNotDependOnThreads) {
  for (int seed = 0; seed < problems(); ++seed) {
    TrainingProblem<float> problem(static_cast<std::uint64_t>(seed));
    MultiHeadTraining<float> layer(problem.p.spec, problem.weights);
    MultiHeadOptions options = problem.p.options;
    const LayerGradients<float> one = problem.backward(layer, options);
    for (int threads : {2, 3}) {
      options.attention.threads = threads;
      EXPECT_EQ(problem.backward(layer, options), one) << threads << " threads, " << problem.p.describe();
    }
  }
}

TEST(TrainingLayer, ParametersAreAddedToAndInputsWritten) {
  for (int seed = 0; seed < 20; ++seed) {
    TrainingProblem<double> problem(static_cast<std::uint64_t>(seed));
    MultiHeadTraining<double> layer(problem.p.spec, problem.weights);
    const LayerGradients<double> zero = problem.backward(layer, problem.p.options, 0),
                                 three = problem.backward(layer, problem.p.options, 3);
    EXPECT_EQ(zero.inputs, three.inputs);
    EXPECT_EQ(zero.gates, three.gates);
    for (const auto& [name, values] : zero.parameters)
      for (std::size_t i = 0; i < values.size(); ++i)
        ASSERT_NEAR(three.parameters.at(name)[i], values[i] + 3, 1e-12 * (1 + std::fabs(values[i]))) << name;
  }
}

// d_output and the inputs' gradients with the length outermost, as torch has them: what is no matrix is copied.
TEST(TrainingLayer, StridesChangeNothing) {
  for (int seed = 0; seed < 20; ++seed) {
    TrainingProblem<float> problem(static_cast<std::uint64_t>(seed));
    const ModuleProblem<float>& p = problem.p;
    MultiHeadTraining<float> layer(p.spec, problem.weights);
    const LayerGradients<float> plain = problem.backward(layer, p.options);
    const auto turned = [](float* data, std::int64_t batch, std::int64_t length, std::int64_t width) {
      return View3<float>(data, {batch, length, width}, {width, batch * width, 1});
    };
    std::vector<float> d_output(problem.d_output.size()), d_query(plain.inputs.at("query").size());
    const View3<float> from = turned(d_output.data(), p.batch, p.q_len, p.e.out_dim);
    const View3<float> to = turned(d_query.data(), p.batch, p.q_len, p.e.model_dim);
    for (std::int64_t b = 0; b < p.batch; ++b)
      for (std::int64_t i = 0; i < p.q_len; ++i)
        for (std::int64_t c = 0; c < p.e.out_dim; ++c)
          from(b, i, c) = problem.d_output[static_cast<std::size_t>((b * p.q_len + i) * p.e.out_dim + c)];
    problem.forward(layer, p.options);
    LayerGradients<float> g;
    const MultiHeadGradients<float> parameters = g.parameter_views(problem.weights, p.e.heads);
    layer.backward(from, {to, {}, {}}, parameters);
    EXPECT_EQ(g.parameters, plain.parameters);
    for (std::int64_t b = 0; b < p.batch; ++b)
      for (std::int64_t i = 0; i < p.q_len; ++i)
        for (std::int64_t c = 0; c < p.e.model_dim; ++c)
          EXPECT_EQ(to(b, i, c),
                    plain.inputs.at("query")[static_cast<std::size_t>((b * p.q_len + i) * p.e.model_dim + c)]);
  }
}

}  // namespace
}  // namespace multihead::testing
