// SPDX-License-Identifier: Apache-2.0
// decode: greedy against forward, beam search against all sequences that there are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "multihead/transformer.hpp"
#include "transformer_problem.hpp"

namespace multihead::testing {
namespace {

using Tokens = std::vector<std::int64_t>;

TransformerConfig tiny() {
  TransformerConfig config;
  config.kind = Kind::encoder_decoder;
  config.source_vocab = {7}, config.target_vocab = {5}, config.classes = 5;
  config.max_tokens = 9;
  config.model_dim = 8, config.heads = 2, config.feed_forward = 12;
  config.embedding_deviation = 1;
  return config;
}

// Logits that tell one token from another.
Transformer<float> sharp(std::uint64_t seed) {
  Transformer<float> model(tiny(), seed);
  for (const char* name : {"logits.weight", "decoder.0.feed_forward.down.weight"}) {
    Matrix<float>& weight = model.parameters().find(name)->value;
    for (std::int64_t row = 0; row < weight.rows(); ++row)
      for (std::int64_t column = 0; column < weight.columns(); ++column) weight(row, column) *= 2;
  }
  return model;
}

// Log-probabilities of what follows a prefix.
std::vector<double> next(Transformer<float>& model, const Side& source, const Tokens& prefix) {
  Side target;
  target.tables = 1, target.ids = prefix, target.cu_seqlens = {0, static_cast<std::int64_t>(prefix.size())};
  Matrix<float> logits(target.tokens(), model.config().classes);
  model.forward(source.batch(), target.batch(), logits);
  std::vector<double> logs;
  double sum = 0;
  for (std::int64_t token = 0; token < logits.columns(); ++token) {
    logs.push_back(logits(logits.rows() - 1, token));
    sum += std::exp(logs.back());
  }
  for (double& value : logs) value -= std::log(sum);
  return logs;
}

Tokens greedy(Transformer<float>& model, const Side& source, const DecodeOptions& decoding) {
  Tokens tokens{decoding.begin};
  for (std::int64_t step = 0; step < decoding.most; ++step) {
    const std::vector<double> logs = next(model, source, tokens);
    const std::int64_t best = std::max_element(logs.begin(), logs.end()) - logs.begin();
    if (best == decoding.end) break;
    tokens.push_back(best);
  }
  return {tokens.begin() + 1, tokens.end()};
}

struct Best {
  double score = -std::numeric_limits<double>::infinity();
  Tokens tokens;
};

// Every sequence that ends within `most` tokens, its end counted.
void try_all(Transformer<float>& model, const Side& source, const DecodeOptions& decoding, const Tokens& prefix,
             double sum, Best& best) {
  const std::vector<double> logs = next(model, source, prefix);
  const double score = (sum + logs[static_cast<std::size_t>(decoding.end)]) /
                       std::pow((5 + static_cast<double>(prefix.size())) / 6, decoding.alpha);
  if (score > best.score) best = {score, {prefix.begin() + 1, prefix.end()}};
  if (static_cast<std::int64_t>(prefix.size()) == decoding.most) return;
  for (std::int64_t token = 0; token < static_cast<std::int64_t>(logs.size()); ++token) {
    if (token == decoding.end) continue;
    Tokens longer = prefix;
    longer.push_back(token);
    try_all(model, source, decoding, longer, sum + logs[static_cast<std::size_t>(token)], best);
  }
}

TEST(Decode, BeamOneIsGreedy) {
  std::size_t ended = 0, longest = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Transformer<float> model = sharp(seed);
    const Side source({7}, {4, 2, 9, 0, 1}, seed);
    const DecodeOptions decoding{.most = 6, .beam = 1, .alpha = 0.3 * static_cast<double>(seed % 3)};
    const std::vector<Tokens> answers = decode(model, source.batch(), decoding);
    ASSERT_EQ(answers.size(), 5u);
    for (std::size_t s = 0; s < answers.size(); ++s) {
      EXPECT_EQ(answers[s], greedy(model, source.only(s), decoding)) << seed << " " << s;
      ended += answers[s].size() < 6;
      longest += answers[s].size() == 6;
    }
  }
  EXPECT_GT(ended, 5u);
  EXPECT_GT(longest, 5u);
}

TEST(Decode, AWideBeamFindsTheBestOfAll) {
  std::size_t better = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed)
    for (double alpha : {0.0, 0.6, 2.0}) {
      Transformer<float> model = sharp(seed);
      const Side source({7}, {4, 2, 6}, seed);
      DecodeOptions decoding{.most = 4, .beam = 700, .alpha = alpha};
      const std::vector<Tokens> answers = decode(model, source.batch(), decoding);
      for (std::size_t s = 0; s < answers.size(); ++s) {
        Best best;
        try_all(model, source.only(s), decoding, {decoding.begin}, 0, best);
        EXPECT_EQ(answers[s], best.tokens) << seed << " " << s << " " << alpha;
        better += best.tokens != greedy(model, source.only(s), decoding);
      }
    }
  EXPECT_GT(better, 5u);  // greedy does not find them
}

TEST(Decode, DoesNotDependOnTheBatchNorOnThreads) {
  Transformer<float> model = sharp(3);
  const Side source({7}, {4, 2, 9, 3, 1}, 3);
  for (std::int64_t beam : {1, 3}) {
    const DecodeOptions decoding{.most = 7, .beam = beam};
    const std::vector<Tokens> together = decode(model, source.batch(), decoding);
    TransformerOptions three;
    three.threads = 3;
    EXPECT_EQ(decode(model, source.batch(), decoding, three), together);
    for (std::size_t s = 0; s < together.size(); ++s)
      EXPECT_EQ(decode(model, source.only(s).batch(), decoding)[0], together[s]);
  }
}

TEST(Decode, WithNoneThatEndedGivesTheLongest) {
  Transformer<float> model = sharp(1);
  model.parameters().find("logits.bias")->value(0, 2) = -1e4f;
  const Side source({7}, {4, 2}, 1);
  for (std::int64_t beam : {1, 2})
    for (const Tokens& answer : decode(model, source.batch(), {.most = 3, .beam = beam})) EXPECT_EQ(answer.size(), 3u);
  EXPECT_TRUE(decode(model, Side({7}, {}, 1).batch(), {.most = 3}).empty());
}

TEST(Decode, RefusesWhatDoesNotFit) {
  Transformer<float> model = sharp(1);
  const Side source({7}, {4, 2}, 1);
  const auto refused = [&](const std::string& word, const DecodeOptions& decoding,
                           const TransformerOptions& options = {}) {
    try {
      decode(model, source.batch(), decoding, options);
      ADD_FAILURE() << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_option);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  };
  refused("begin", {.begin = 5, .most = 4});
  refused("end", {.end = -1, .most = 4});
  refused("most", {.most = 10});
  refused("beam", {.most = 4, .beam = 0});
  refused("alpha", {.most = 4, .alpha = -1});
  refused("training", {.most = 4}, {.training = true});
  TransformerConfig config = tiny();
  config.kind = Kind::decoder, config.target_vocab.clear();
  Transformer<float> one_stack(config, 1);
  EXPECT_THROW(decode(one_stack, source.batch(), {.most = 4}), Error);
  // What was kept for backward is gone.
  Matrix<float> logits(source.tokens(), 5);
  model.forward(source.batch(), Side({5}, {4, 2}, 1).batch(), logits);
  decode(model, source.batch(), {.most = 4});
  EXPECT_THROW(model.backward(std::as_const(logits)), Error);
}

}  // namespace
}  // namespace multihead::testing
