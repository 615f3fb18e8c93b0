// SPDX-License-Identifier: Apache-2.0
// attention_backward_reference() against the formulas over every option, and against central differences of
// attention_reference(), which knows nothing of them.
#include <gtest/gtest.h>

#include "backward_oracle.hpp"
#include "multihead/reference.hpp"

namespace multihead::testing {
namespace {

TEST(BackwardReference, IsTheDefinition) {
  Plan plan(Type::float64, quick_share() ? 1 : 3);
  while (!plan.done() && !HasFailure()) {
    const Problem p = plan.next();
    AttentionOptions options = p.options();
    if (p.seed % 3 == 0) options.dropout = {0.3, p.seed, 1};
    Pass<double> pass(p);
    pass.attend(options);
    const auto bias = bias_gradient_extents(p, static_cast<unsigned>(p.seed / 7));
    Truth<double> truth(pass, options, bias);
    Gradients<double> got(p, bias);
    attention_backward_reference(pass.forward(), got.asked(), options);
    EXPECT_EQ(truth.excess(got, 16), "") << p.describe();
  }
}

// sum of d_out out + d_lse lse, as a function of everything that has a gradient.
struct Loss {
  Problem& p;
  Pass<double>& pass;
  AttentionOptions options;

  double operator()() {
    options.alibi_slopes = p.alibi_slopes, options.sinks = p.sinks;
    for (Spread* spread : {&p.bias, &p.table})
      if (spread->rank) spread->store(Type::float64);
    const AttentionOptions given = p.options();
    options.bias = given.bias, options.relative_bias = given.relative_bias;
    const auto in = [](const Tensor<double>& tensor) { return View4<const double>(tensor.view); };
    attention_reference(in(pass.q), in(pass.k), in(pass.v), pass.out.view, View3<double>(pass.lse.data(), pass.rows()),
                        options);
    double sum = 0;
    std::size_t row = 0;
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i, ++row) {
          for (std::int64_t c = 0; c < p.shape.value_dim; ++c)
            sum += pass.d_out.view(b, h, i, c) * pass.out.view(b, h, i, c);
          if (!pass.d_lse.empty() && std::isfinite(pass.lse[row])) sum += pass.d_lse[row] * pass.lse[row];
        }
    return sum;
  }
  double slope(double& x) {
    constexpr double kStep = 1e-5;
    const double before = x;
    x = before + kStep;
    const double above = (*this)();
    x = before - kStep;
    const double below = (*this)();
    x = before;
    return (above - below) / (2 * kStep);
  }
};

void expect_slopes(const char* name, const std::vector<double>& got, const std::vector<double*>& at, Loss& loss) {
  double largest = 0;
  for (double x : got) largest = std::max(largest, std::fabs(x));
  ASSERT_EQ(got.size(), at.size()) << name;
  for (std::size_t n = 0; n < at.size(); n += 1 + at.size() / 12)
    EXPECT_NEAR(got[n], loss.slope(*at[n]), 1e-6 * largest + 1e-8) << name << " " << n << " " << loss.p.describe();
}

std::vector<double*> places(std::vector<double>& values) {
  std::vector<double*> all;
  for (double& x : values) all.push_back(&x);
  return all;
}
std::vector<double*> places(Tensor<double>& tensor) {
  std::vector<double*> all;
  tensor.each([&](double& x) { all.push_back(&x); });
  return all;
}

// A float64 bias with an element of its own for each of the gradient's: the table in the order of its gradient.
void own_elements(Spread& spread, Random& random) {
  if (!spread.rank) return;
  auto& e = spread.extents;
  spread.first = 0, spread.strides = {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1};
  spread.values.clear();
  for (std::int64_t n = 0; n < e[0] * e[1] * e[2] * e[3]; ++n) spread.values.push_back(random.normal());
  spread.store(Type::float64);
}

void expect_central_differences(Problem& p, const Dropout& dropout) {
  Random random(p.seed);
  own_elements(p.bias, random), own_elements(p.table, random);
  Pass<double> pass(p);
  AttentionOptions options = p.options();
  options.dropout = dropout;
  double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(p.shape.head_dim)));
  options.scale = scale;
  Loss loss{p, pass, options};
  loss();
  const auto bias = p.bias.extents;
  Gradients<double> got(p, bias);
  attention_backward_reference(pass.forward(), got.asked(), options);
  std::map<std::string, std::vector<double>> gradients;
  got.each([&](const char* name, const std::vector<double>& x) { gradients[name] = x; });
  expect_slopes("q", gradients["q"], places(pass.q), loss);
  expect_slopes("k", gradients["k"], places(pass.k), loss);
  expect_slopes("v", gradients["v"], places(pass.v), loss);
  if (p.bias.rank) expect_slopes("bias", gradients["bias"], places(p.bias.values), loss);
  if (p.table.rank) expect_slopes("table", gradients["table"], places(p.table.values), loss);
  expect_slopes("slopes", gradients["slopes"], places(p.alibi_slopes), loss);
  expect_slopes("sinks", gradients["sinks"], places(p.sinks), loss);
  expect_slopes("scale", gradients["scale"], {&*loss.options.scale}, loss);
}

// Every pair of options, at sizes that differences can afford.
TEST(BackwardReference, AgreesWithCentralDifferences) {
  int problems = 0;
  for (std::uint64_t seed = 1; problems < (quick_share() ? 20 : 150); ++seed) {
    Problem p = draw_problem(seed, Type::float64);
    if (p.shape.q_len * p.shape.kv_len > 400 || p.input_scale > 1 || p.shape.batch * p.shape.heads > 8) continue;
    ++problems;
    expect_central_differences(p, seed % 2 ? Dropout{0.4, seed, 2} : Dropout{});
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace multihead::testing
