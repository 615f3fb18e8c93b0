// SPDX-License-Identifier: Apache-2.0
// Encoder on small random checkpoints: against float64, bits, requests, tensors of other parts, and the mean of rows.
#include "multihead/encoder.hpp"

#include <gtest/gtest.h>

#include <cfenv>
#include <memory>

#include "allocations.hpp"
#include "models/tiny_model.hpp"

namespace multihead::testing {
namespace {

constexpr double kBound = 2e-5;

// Sequences of random tokens, packed.
struct Batch {
  std::vector<std::int64_t> ids, types, starts{0};

  Batch(const TinyModel& model, std::initializer_list<std::int64_t> lengths, unsigned seed = 7) {
    Random random(seed);
    for (std::int64_t length : lengths) {
      for (std::int64_t i = 0; i < length; ++i) {
        ids.push_back(random.between(model.roberta() && i > 0 ? 1 : 2, model.vocabulary - 1));  // pad tokens too
        types.push_back(random.between(0, model.types - 1));
      }
      starts.push_back(static_cast<std::int64_t>(ids.size()));
    }
  }
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
  std::size_t count() const { return starts.size() - 1; }
  EncoderInput input() const { return {.ids = ids, .cu_seqlens = starts, .token_types = types}; }
  std::vector<std::int64_t> part(const std::vector<std::int64_t>& of, std::size_t s) const {
    return {of.begin() + starts[s], of.begin() + starts[s + 1]};
  }
};

struct Result {
  std::vector<float> output, states, per_head, mean;
};

Result run(const Encoder& encoder, const EncoderInput& input, const LayerOptions& options = {}, bool requests = false) {
  const EncoderExtents& e = encoder.extents();
  const auto tokens = static_cast<std::int64_t>(input.ids.size());
  Result r;
  r.output.assign(static_cast<std::size_t>(tokens * e.model_dim), 77);
  EncoderRequests asked;
  std::vector<WeightsRequest<float>> weights;
  if (requests) {
    r.states.assign(static_cast<std::size_t>((e.layers + 1) * tokens * e.model_dim), 77);
    r.per_head.assign(static_cast<std::size_t>(e.layers * e.heads * tokens * tokens), 77);
    r.mean.assign(static_cast<std::size_t>(e.layers * tokens * tokens), 77);
    asked.hidden_states = {r.states.data(), {e.layers + 1, tokens, e.model_dim}};
    for (std::int64_t l = 0; l < e.layers; ++l) {
      WeightsRequest<float>& w = weights.emplace_back();
      w.per_head = {r.per_head.data() + l * e.heads * tokens * tokens, {1, e.heads, tokens, tokens}};
      w.mean = {r.mean.data() + l * tokens * tokens, {1, tokens, tokens}};
    }
    asked.weights = weights;
  }
  encoder.forward(input, MatrixView<float>(r.output.data(), {tokens, e.model_dim}), options, asked);
  return r;
}

// The worst distance from the definition, of hidden states and of weights, which between sequences must be 0.
double worst(const TinyModel& model, const Batch& batch, const Result& r) {
  double away = 0;
  const std::int64_t n = batch.tokens();
  for (std::size_t s = 0; s < batch.count(); ++s) {
    const std::int64_t first = batch.starts[s], last = batch.starts[s + 1];
    const TinyTruth truth = model.run(batch.part(batch.ids, s), batch.part(batch.types, s));
    for (std::int64_t l = 0; l <= model.layers; ++l)
      for (std::int64_t t = first; t < last; ++t)
        for (std::int64_t c = 0; c < model.width; ++c)
          away = std::max(away, distance(r.states[static_cast<std::size_t>((l * n + t) * model.width + c)],
                                         truth.states[static_cast<std::size_t>(l)][static_cast<std::size_t>(t - first)]
                                                     [static_cast<std::size_t>(c)]));
    for (std::int64_t l = 0; l < model.layers; ++l)
      for (std::int64_t t = first; t < last; ++t)
        for (std::int64_t j = 0; j < n; ++j) {
          double mean = 0;
          for (std::int64_t h = 0; h < model.heads; ++h) {
            const double weight = r.per_head[static_cast<std::size_t>(((l * model.heads + h) * n + t) * n + j)];
            mean += weight / static_cast<double>(model.heads);
            if (j < first || j >= last)
              EXPECT_EQ(weight, 0);
            else
              away = std::max(
                  away,
                  distance(weight, truth.weights[static_cast<std::size_t>(l)][static_cast<std::size_t>(
                                       h)][static_cast<std::size_t>(t - first)][static_cast<std::size_t>(j - first)]));
          }
          away = std::max(away, distance(r.mean[static_cast<std::size_t>((l * n + t) * n + j)], mean));
        }
  }
  return away;
}

TEST(Encoder, FamiliesAndActivationsAreTheDefinition) {
  double most = 0;
  for (const char* family : {"bert", "roberta", "xlm-roberta", "distilbert"})
    for (const char* activation : {"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"}) {
      TinyModel model(family, 3);
      model.activation = activation;
      const TemporaryFolder folder;
      model.write(folder);
      const Encoder encoder(folder.path());
      EXPECT_EQ(encoder.extents().max_tokens, model.max_tokens());
      EXPECT_EQ(encoder.extents().head_dim, 5);
      EXPECT_TRUE(encoder.unused_tensors().empty());
      const Batch batch(model, {5, 1, 0, model.max_tokens(), 11});
      for (Target target : available_targets()) {
        const Result r = run(encoder, batch.input(), {.target = target}, true);
        const double away = worst(model, batch, r);
        EXPECT_LE(away, kBound) << family << " " << activation << " on " << target_name(target);
        const std::size_t last = r.states.size() - r.output.size();
        EXPECT_TRUE(std::equal(r.output.begin(), r.output.end(), r.states.begin() + static_cast<std::ptrdiff_t>(last)));
        most = std::max(most, away);
      }
    }
  std::printf("encoder: worst error %.2g\n", most);
}

class EncoderProducts : public ::testing::TestWithParam<Type> {};
INSTANTIATE_TEST_SUITE_P(Types, EncoderProducts, ::testing::Values(Type::float32, Type::bfloat16),
                         [](const auto& tested) { return std::string(type_name(tested.param)); });

TEST_P(EncoderProducts, BitsOfASequenceAreItsOwn) {
  for (const char* family : {"bert", "roberta"}) {
    const TinyModel model(family, 4);
    const TemporaryFolder folder;
    model.write(folder);
    const Encoder encoder(folder.path(), {.products = GetParam()});
    const Batch batch(model, {9, 4, 18, 1, 12, 17, 2});
    for (Target target : available_targets()) {
      const Result all = run(encoder, batch.input(), {.target = target});
      EXPECT_EQ(all.output, run(encoder, batch.input(), {.threads = 3, .target = target}).output);
      EXPECT_EQ(all.output, run(encoder, batch.input(), {.target = target}, true).output) << "requests";
      for (std::size_t s = 0; s < batch.count(); ++s) {
        const std::vector<std::int64_t> ids = batch.part(batch.ids, s), types = batch.part(batch.types, s);
        const Result alone = run(encoder, {.ids = ids, .token_types = types}, {.target = target});
        EXPECT_TRUE(
            std::equal(alone.output.begin(), alone.output.end(), all.output.begin() + batch.starts[s] * model.width))
            << target_name(target) << " sequence " << s;
      }
    }
  }
}

TEST_P(EncoderProducts, BitsOfManyRowsAndOfTheThreadsMode) {
  const TinyModel model("bert", 5);
  const TemporaryFolder folder;
  model.write(folder);
  const Encoder encoder(folder.path(), {.products = GetParam()});
  // More rows than go through a feed-forward layer at once.
  const Batch batch(model, {20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 3});
  const Result one = run(encoder, batch.input());
  EXPECT_EQ(one.output, run(encoder, batch.input(), {.threads = 4}).output);
  std::fesetround(FE_UPWARD);
  const Result upward = run(encoder, batch.input());
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(one.output, upward.output);
  const Batch last(model, {20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 3});
  const std::vector<std::int64_t> ids = last.part(last.ids, 21), types = last.part(last.types, 21);
  const Result alone = run(encoder, {.ids = ids, .token_types = types});
  EXPECT_TRUE(std::equal(alone.output.begin(), alone.output.end(), one.output.end() - 3 * model.width));
}

TEST_P(EncoderProducts, CallsAllocateNothing) {
  const TinyModel model("roberta", 6);
  const TemporaryFolder folder;
  model.write(folder);
  const Encoder encoder(folder.path(), {.products = GetParam()});
  const Batch batch(model, {9, 4, 18});
  std::vector<float> output(static_cast<std::size_t>(batch.tokens() * model.width));
  const MatrixView<float> view(output.data(), {batch.tokens(), model.width});
  encoder.forward(batch.input(), view);
  const std::int64_t before = allocations;
  encoder.forward(batch.input(), view);
  EXPECT_EQ(allocations, before);
}

// The same encoder under a prefix, beside parts of other tasks, with the old names of norms and stored positions.
TEST(Encoder, NamesMayVary) {
  TinyModel model("bert", 8);
  const Batch batch(model, {6, 3});
  const TemporaryFolder plain, other;
  model.write(plain);
  const std::vector<float> wanted = run(Encoder(plain.path()), batch.input()).output;
  std::map<std::string, TinyTensor> renamed;
  for (auto& [name, tensor] : model.tensors) {
    std::string to = name;
    const std::size_t norm = to.find("LayerNorm.");
    if (norm != std::string::npos)
      to = to.substr(0, norm) + (to.ends_with("weight") ? "LayerNorm.gamma" : "LayerNorm.beta");
    renamed[to] = tensor;
  }
  model.tensors = renamed;
  model.prefix = "some.bert.";
  model.write(other, {{"some.bert.pooler.dense.weight", {{2}, {1, 2}}},
                      {"cls.predictions.bias", {{1}, {1}}},
                      {"some.bert.embeddings.position_ids", {{1, 20}, std::vector<float>(20)}}});
  const Encoder encoder(other.path());
  EXPECT_EQ(run(encoder, batch.input()).output, wanted);
  const std::vector<std::string> unused(encoder.unused_tensors().begin(), encoder.unused_tensors().end());
  EXPECT_EQ(unused, (std::vector<std::string>{"cls.predictions.bias", "some.bert.pooler.dense.weight"}));
}

TEST_P(EncoderProducts, GatesScaleHeadsInBits) {
  const EncoderOptions options{.products = GetParam()};
  for (const char* family : {"bert", "distilbert"}) {
    TinyModel model(family, 9);
    const Batch batch(model, {6, 11});
    const TemporaryFolder folder, other;
    model.write(folder);
    const Encoder encoder(folder.path(), options);
    // Axes turned around and layers apart; the second layer's first head is off, its second halved.
    std::vector<double> gates(10, 1);
    gates[1] = 0, gates[5] = 0.5;
    EncoderInput input = batch.input();
    input.gates = {gates.data(), {model.layers, model.heads}, {1, 4}};
    const std::string out = family == std::string("bert") ? "encoder.layer.1.attention.output.dense.weight"
                                                          : "transformer.layer.1.attention.out_lin.weight";
    TinyTensor& weight = model.tensors.at(out);
    for (std::int64_t row = 0; row < model.width; ++row)
      for (std::int64_t c = 0; c < 10; ++c)
        weight.values[static_cast<std::size_t>(row * model.width + c)] *= c < 5 ? 0.0f : 0.5f;
    model.write(other);
    const Result plain = run(encoder, batch.input()), gated = run(encoder, input);
    EXPECT_NE(plain.output, gated.output);
    EXPECT_EQ(gated.output, run(Encoder(other.path(), options), batch.input()).output) << family;
    gates[1] = gates[5] = 1;
    EXPECT_EQ(plain.output, run(encoder, input).output) << "gates of 1";
  }
}

TEST(Encoder, NoTokensAreNothing) {
  const TinyModel model("distilbert");
  const TemporaryFolder folder;
  model.write(folder);
  const Encoder encoder(folder.path());
  EXPECT_NO_THROW(encoder.forward({}, MatrixView<float>(nullptr, {0, model.width})));
  const std::vector<std::int64_t> starts{0, 0, 0};
  EXPECT_NO_THROW(encoder.forward({.cu_seqlens = starts}, MatrixView<float>(nullptr, {0, model.width})));
}

TEST(MeanPool, IsTheMeanAndOfLengthOne) {
  const std::vector<float> hidden{3, 0, 5, 8, 1, 2, 0, 0, 0};
  const std::vector<std::int64_t> starts{0, 2, 2, 3};
  std::vector<float> vectors(9, 77);
  const MatrixView<const float> rows(hidden.data(), {3, 3});
  const MatrixView<float> to(vectors.data(), {3, 3});
  mean_pool(rows, starts, false, to);
  EXPECT_EQ(vectors, (std::vector<float>{5.5f, 0.5f, 3.5f, 0, 0, 0, 0, 0, 0}));
  mean_pool(rows, starts, true, to);
  const double length = std::sqrt(5.5 * 5.5 + 0.5 * 0.5 + 3.5 * 3.5);
  EXPECT_FLOAT_EQ(vectors[0], static_cast<float>(5.5 / length));
  EXPECT_EQ(vectors[3], 0) << "a sequence without tokens";
  EXPECT_EQ(vectors[6], 0) << "a mean of zero";
  mean_pool(rows, {}, false, MatrixView<float>(vectors.data(), {1, 3}));
  EXPECT_FLOAT_EQ(vectors[1], 1.0f / 3);
}

}  // namespace
}  // namespace multihead::testing
