// SPDX-License-Identifier: Apache-2.0
// Transformer: gradients of the whole model, float against double, bits, weights on request, memory, refusals.
#include "multihead/transformer.hpp"

#include <gtest/gtest.h>

#include "allocations.hpp"
#include "gradient_check.hpp"
#include "transformer_problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
Matrix<T> some_gradient(std::int64_t rows, std::int64_t columns) {
  Matrix<T> values(rows, columns);
  multihead::Random random(3, 4);
  fill_normal(values, 1, random);
  return values;
}

template <class T>
std::vector<T> all_gradients(const Transformer<T>& model) {
  std::vector<T> values;
  for (const Parameter<T>& parameter : model.parameters().all())
    values.insert(values.end(), parameter.gradient.values().begin(), parameter.gradient.values().end());
  return values;
}

TEST(TransformerGradients, AreThoseOfFiniteDifferences) {
  for (const TransformerProblem& p : transformer_problems()) {
    SCOPED_TRACE(p.name);
    Transformer<double> model(p.config, 11);
    // Biases and norms start where they are special.
    multihead::Random random(7, 7);
    for (Parameter<double>& parameter : model.parameters().all())
      if (!parameter.decays)
        for (std::int64_t i = 0; i < parameter.value.columns(); ++i) parameter.value(0, i) += 0.3 * random.normal();
    const Matrix<double> d = some_gradient<double>(p.tokens(), p.config.classes);
    p.logits(model);
    model.backward(d);
    const auto loss = [&] {
      const Matrix<double> logits = p.logits(model);
      double sum = 0;
      for (std::size_t i = 0; i < logits.values().size(); ++i) sum += logits.values()[i] * d.values()[i];
      return sum;
    };
    for (Parameter<double>& parameter : model.parameters().all())
      expect_gradient(
          parameter.name,
          {parameter.value.data(), static_cast<std::size_t>(parameter.value.rows() * parameter.value.columns())},
          parameter.gradient.values(), loss, 24);
  }
}

TEST(TransformerGradients, AreAdded) {
  for (const TransformerProblem& p : transformer_problems()) {
    SCOPED_TRACE(p.name);
    Transformer<double> model(p.config, 11);
    const Matrix<double> d = some_gradient<double>(p.tokens(), p.config.classes);
    p.logits(model);
    model.backward(d);
    const std::vector<double> once = all_gradients(model);
    p.logits(model);
    model.backward(d);
    const std::vector<double> twice = all_gradients(model);
    for (std::size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(twice[i], 2 * once[i], 1e-12 * (1 + std::fabs(once[i])));
    model.parameters().zero_gradients();
    p.logits(model);
    model.backward(d);
    EXPECT_EQ(all_gradients(model), once);
  }
}

TEST(Transformer, FloatIsNearDouble) {
  for (const TransformerProblem& p : transformer_problems())
    for (Target target : available_targets()) {
      SCOPED_TRACE(p.name + ", " + std::string(target_name(target)));
      Transformer<double> exact(p.config, 11);
      Transformer<float> model(p.config, 11);
      for (std::size_t i = 0; i < exact.parameters().all().size(); ++i) {
        Matrix<double>& wanted = exact.parameters().all()[i].value;
        const Matrix<float>& value = model.parameters().all()[i].value;
        for (std::int64_t row = 0; row < wanted.rows(); ++row)
          for (std::int64_t column = 0; column < wanted.columns(); ++column) wanted(row, column) = value(row, column);
      }
      TransformerOptions options = p.options();
      options.target = target;
      const Matrix<float> logits = p.logits(model, options);
      const Matrix<double> wanted = p.logits(exact, options);
      const std::vector<double> flat(wanted.values().begin(), wanted.values().end());
      EXPECT_LE(worst_difference(std::vector<float>(logits.values().begin(), logits.values().end()), flat), 1e-5);
      model.backward(some_gradient<float>(p.tokens(), p.config.classes));
      const Matrix<float> d = some_gradient<float>(p.tokens(), p.config.classes);
      Matrix<double> d_exact(d.rows(), d.columns());
      for (std::int64_t row = 0; row < d.rows(); ++row)
        for (std::int64_t column = 0; column < d.columns(); ++column) d_exact(row, column) = d(row, column);
      exact.backward(d_exact);
      EXPECT_LE(worst_difference(all_gradients(model), all_gradients(exact)), 1e-5);
    }
}

TEST(Transformer, BitsDoNotDependOnThreads) {
  for (const TransformerProblem& p : transformer_problems()) {
    SCOPED_TRACE(p.name);
    std::vector<float> logits, gradients;
    for (int threads : {1, 2, 3}) {
      Transformer<float> model(p.config, 11);
      TransformerOptions options = p.options();
      options.threads = threads;
      const Matrix<float> got = p.logits(model, options);
      model.backward(some_gradient<float>(p.tokens(), p.config.classes));
      const std::vector<float> values(got.values().begin(), got.values().end());
      if (threads == 1) logits = values, gradients = all_gradients(model);
      EXPECT_EQ(values, logits) << threads;
      EXPECT_EQ(all_gradients(model), gradients) << threads;
    }
  }
}

TEST(Transformer, ASequenceDoesNotFeelItsNeighbours) {
  for (TransformerProblem p : transformer_problems()) {
    SCOPED_TRACE(p.name);
    p.training = false;
    Transformer<float> model(p.config, 11);
    const Matrix<float> together = p.logits(model);
    const Side& last = p.config.kind == Kind::encoder_decoder ? p.target : p.source;
    for (std::size_t s = 0; s + 1 < last.cu_seqlens.size(); ++s) {
      TransformerProblem alone = p;
      alone.source = p.source.only(s);
      if (p.config.kind == Kind::encoder_decoder) alone.target = p.target.only(s);
      const Matrix<float> logits = alone.logits(model);
      for (std::int64_t row = 0; row < logits.rows(); ++row)
        for (std::int64_t column = 0; column < logits.columns(); ++column)
          ASSERT_EQ(logits(row, column), together(last.cu_seqlens[s] + row, column)) << s;
    }
  }
}

// The weights of all layers, each row of a sequence's own keys.
TEST(Transformer, WeightsOnRequestChangeNothing) {
  const TransformerProblem p = transformer_problems()[3];  // encoder 1, decoder 2
  Transformer<float> model(p.config, 11);
  const std::int64_t q = p.target.tokens(), k = p.source.tokens(), heads = p.config.heads;
  const auto floats = [&](std::int64_t rows, std::int64_t columns) {
    return std::vector<float>(static_cast<std::size_t>(heads * rows * columns), 7);
  };
  std::vector<float> encoder = floats(k, k), decoder = floats(q, q), cross = floats(q, k);
  const AttentionRequest requests[] = {{AttentionPart::encoder, 0, {encoder.data(), {heads, k, k}}},
                                       {AttentionPart::decoder, 1, {decoder.data(), {heads, q, q}}},
                                       {AttentionPart::cross, 1, {cross.data(), {heads, q, k}}}};
  TransformerOptions options = p.options();
  const Matrix<float> without = p.logits(model, options);
  options.weights = requests;
  EXPECT_EQ(p.logits(model, options), without);

  const auto check = [&](const AttentionRequest& request, const Side& rows, const Side& keys, bool causal) {
    for (std::size_t s = 0; s + 1 < rows.cu_seqlens.size(); ++s)
      for (std::int64_t head = 0; head < heads; ++head)
        for (std::int64_t i = rows.cu_seqlens[s]; i < rows.cu_seqlens[s + 1]; ++i) {
          double sum = 0;
          for (std::int64_t j = 0; j < keys.tokens(); ++j) {
            const double weight = request.weights(head, i, j);
            const bool own = j >= keys.cu_seqlens[s] && j < keys.cu_seqlens[s + 1] && !(causal && j > i);
            EXPECT_EQ(weight > 0, own) << head << " " << i << " " << j;
            sum += weight;
          }
          EXPECT_NEAR(sum, 1, 1e-6);
        }
  };
  check(requests[0], p.source, p.source, false);
  check(requests[1], p.target, p.target, true);
  check(requests[2], p.target, p.source, false);
}

TEST(Transformer, AGateOfZeroTakesAHeadAway) {
  TransformerProblem p = transformer_problems()[0];
  Transformer<float> model(p.config, 11);
  const Matrix<float> whole = p.logits(model);
  p.gates = Matrix<double>{{1, 1}, {1, 1}};
  EXPECT_EQ(p.logits(model), whole);
  p.gates = Matrix<double>{{1, 1}, {0, 1}};
  const Matrix<float> without = p.logits(model);
  EXPECT_NE(without, whole);
  // As if the rows of its output in the out weight were zero.
  Matrix<float>& out = model.parameters().find("encoder.1.attention.out.weight")->value;
  for (std::int64_t row = 0; row < p.config.model_dim / p.config.heads; ++row)
    for (std::int64_t column = 0; column < out.columns(); ++column) out(row, column) = 0;
  p.gates = {};
  EXPECT_EQ(p.logits(model), without);
}

TEST(Transformer, DropoutIsAFunctionOfItsSeed) {
  const TransformerProblem p = transformer_problems()[4];
  Transformer<float> model(p.config, 11);
  TransformerOptions options = p.options();
  const Matrix<float> first = p.logits(model, options);
  EXPECT_EQ(p.logits(model, options), first);
  options.seed = 6;
  EXPECT_NE(p.logits(model, options), first);
  options.training = false;
  const Matrix<float> plain = p.logits(model, options);
  EXPECT_NE(plain, first);
  options.seed = 5;
  EXPECT_EQ(p.logits(model, options), plain);
}

TEST(Transformer, AllocatesNothingAfterItsFirstSteps) {
  for (const TransformerProblem& p : transformer_problems()) {
    SCOPED_TRACE(p.name);
    Transformer<float> model(p.config, 11);
    Matrix<float> logits(p.tokens(), p.config.classes);
    const TransformerOptions options = p.options();
    const TokenBatch source = p.source.batch(), target = p.target.batch();
    const auto step = [&] {
      model.forward(source, target, logits, options);
      model.backward(std::as_const(logits));
    };
    step();
    step();
    const std::int64_t before = allocations;
    step();
    EXPECT_EQ(allocations - before, 0);
  }
}

TEST(Transformer, IsDrawnFromItsSeed) {
  const TransformerConfig config = transformer_problems()[3].config;
  const Transformer<float> one(config, 1), again(config, 1), other(config, 2);
  EXPECT_EQ(one.parameters().find("logits.weight")->value, again.parameters().find("logits.weight")->value);
  EXPECT_NE(one.parameters().find("logits.weight")->value, other.parameters().find("logits.weight")->value);
}

// ---- refusals

void expect_refusal(ErrorCode code, const std::vector<std::string>& words, const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "was not refused: " << words[0];
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

TEST(TransformerRefuses, AConfigThatDoesNotFit) {
  const auto refused = [](const std::vector<std::string>& words, const std::function<void(TransformerConfig&)>& change,
                          ErrorCode code = ErrorCode::bad_option) {
    TransformerConfig config = transformer_problems()[3].config;
    change(config);
    expect_refusal(code, words, [&] { Transformer<float>(config, 1); });
  };
  refused({"source_vocab", "empty"}, [](auto& c) { c.source_vocab.clear(); });
  refused({"target_vocab", "empty"}, [](auto& c) { c.target_vocab.clear(); });
  refused({"target_vocab", "given"}, [](auto& c) { c.kind = Kind::encoder; });
  refused({"source_vocab", "0"}, [](auto& c) { c.source_vocab = {0}; });
  refused({"heads is 3", "model_dim is 8"}, [](auto& c) { c.heads = 3; });
  refused({"heads"}, [](auto& c) { c.heads = 0; });
  refused({"classes"}, [](auto& c) { c.classes = 0; });
  refused({"max_tokens"}, [](auto& c) { c.max_tokens = 0; });
  refused({"feed_forward"}, [](auto& c) { c.feed_forward = -1; });
  refused({"encoder_layers"}, [](auto& c) { c.encoder_layers = 0; });
  refused({"decoder_layers"}, [](auto& c) { c.decoder_layers = 0; });
  refused({"rotary", "head_dim", "1"}, [](auto& c) { c.rotary = true, c.heads = 8; });
  refused({"dropout"}, [](auto& c) { c.dropout = 1; });
  refused({"embedding_deviation"}, [](auto& c) { c.embedding_deviation = 0; });
  refused(
      {"tied", "5", "6"}, [](auto& c) { c.tied = true; }, ErrorCode::shape_mismatch);
}

TEST(TransformerRefuses, ACallThatDoesNotFit) {
  const TransformerProblem legal = transformer_problems()[3];
  Transformer<float> model(legal.config, 1);
  const auto refused = [&](ErrorCode code, const std::vector<std::string>& words,
                           const std::function<void(TransformerProblem&)>& change) {
    TransformerProblem p = legal;
    change(p);
    Matrix<float> logits(legal.tokens(), legal.config.classes);
    expect_refusal(code, words, [&] { model.forward(p.source.batch(), p.target.batch(), logits, p.options()); });
    EXPECT_EQ(logits, Matrix<float>(legal.tokens(), legal.config.classes));
  };
  constexpr ErrorCode kShape = ErrorCode::shape_mismatch, kOption = ErrorCode::bad_option;
  refused(kOption, {"source.ids has 7", "(0, 2)", "-1 to 6"}, [](auto& p) { p.source.ids[2] = 7; });
  refused(kOption, {"target.ids has -2"}, [](auto& p) { p.target.ids[0] = -2; });
  refused(kOption, {"source.cu_seqlens must begin with 0"}, [](auto& p) { p.source.cu_seqlens[0] = 1; });
  refused(kOption, {"source.cu_seqlens falls at place 2"}, [](auto& p) { p.source.cu_seqlens[2] = 3; });
  refused(kOption, {"source.cu_seqlens gives sequence 0 the length 10", "9"}, [](auto& p) {
    p.source = Side({7}, {10, 1, 1, 1}, 1);
  });
  refused(kShape, {"target.cu_seqlens", "4", "5"}, [](auto& p) { p.target = Side({6}, {4, 4, 3}, 1); });
  refused(kShape, {"source.ids", "rows"}, [](auto& p) { p.source = Side({7, 7}, {4, 2, 3, 1}, 1); });
  refused(kShape, {"logits", "rows"}, [](auto& p) { p.target = Side({6}, {4, 4, 3, 1}, 1); });
  refused(kShape, {"gates", "rows", "5"}, [](auto& p) { p.gates = Matrix<double>(3, 2); });
  refused(kShape, {"gates", "columns"}, [](auto& p) { p.gates = Matrix<double>(5, 1); });

  const Matrix<float> d(legal.tokens(), legal.config.classes);
  expect_refusal(kOption, {"transformer backward", "no forward"}, [&] { model.backward(d); });
  legal.logits(model);
  expect_refusal(kShape, {"d_logits", "rows"}, [&] { model.backward(Matrix<float>(1, legal.config.classes)); });
  model.backward(d);
  expect_refusal(kOption, {"transformer backward", "no forward"}, [&] { model.backward(d); });

  std::vector<float> some(1000);
  const auto asked = [&](std::vector<AttentionRequest> requests, ErrorCode code,
                         const std::vector<std::string>& words) {
    TransformerOptions options;
    options.weights = requests;
    expect_refusal(code, words, [&] { legal.logits(model, options); });
  };
  const std::int64_t k = legal.source.tokens();
  const View3<float> fits(some.data(), {2, k, k});
  asked({{AttentionPart::encoder, 1, fits}}, kOption, {"weights: layer", "1"});
  asked({{AttentionPart::decoder, 0, fits}}, kShape, {"weights", "queries"});
  asked({{AttentionPart::encoder, 0, fits}, {AttentionPart::encoder, 0, fits}}, kOption, {"twice"});
  Transformer<double> exact(legal.config, 1);
  const AttentionRequest request{AttentionPart::encoder, 0, fits};
  TransformerOptions options;
  options.weights = {&request, 1};
  expect_refusal(ErrorCode::unsupported, {"float64"}, [&] { legal.logits(exact, options); });
}

}  // namespace
}  // namespace multihead::testing
