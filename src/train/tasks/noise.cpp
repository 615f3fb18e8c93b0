// SPDX-License-Identifier: Apache-2.0
// Task "noise": which sense a homonym has, with words of its clause spoilt and other clauses beside.
#include <algorithm>
#include <memory>

#include "core/validate.hpp"
#include "multihead/gradients.hpp"
#include "train/tasks/head_drops.hpp"
#include "train/tasks/homonyms.hpp"
#include "train/tasks/learn.hpp"
#include "train/tasks/packed.hpp"
#include "train/tasks/table.hpp"
#include "train/tasks/words.hpp"

namespace multihead {

using homonyms::Passage;
using homonyms::PassageSpec;

namespace {

constexpr std::int64_t kPassages = 64;            // of a step
constexpr std::uint64_t kTestSeed = 0x7465'7374;  // of what is measured on
constexpr std::int64_t kSpoilt[] = {0, 5, 10, 20, 30, 40};

struct PassageBatch {
  explicit PassageBatch(std::span<const Passage> passages) {
    for (const Passage& passage : passages) {
      source.add(passage.words);
      wanted.insert(wanted.end(), passage.wanted.begin(), passage.wanted.end());
    }
  }
  Packed source;
  std::vector<std::int64_t> wanted;
};

std::vector<Passage> test_passages(std::int64_t count, const PassageSpec& spec) {
  std::vector<Passage> list;
  for (std::int64_t i = 0; i < count; ++i)
    list.push_back(homonyms::passage(kTestSeed, static_cast<std::uint64_t>(i), Part::held_out, spec));
  return list;
}

// The share of homonyms whose sense comes out right.
double accuracy_on(Transformer<float>& model, std::span<const Passage> passages, const TransformerOptions& options) {
  constexpr std::size_t kTogether = 64;
  std::int64_t right = 0, all = 0;
  for (std::size_t first = 0; first < passages.size(); first += kTogether) {
    const PassageBatch batch(passages.subspan(first, std::min(kTogether, passages.size() - first)));
    Matrix<float> logits(batch.source.tokens(), homonyms::kSenses);
    model.forward(batch.source.batch(), {}, logits, options);
    const CrossEntropy found = cross_entropy<float>(logits, batch.wanted, 0);
    right += found.correct, all += found.rows;
  }
  return static_cast<double>(right) / static_cast<double>(all);
}

double vote_on(std::span<const Passage> passages, bool whole) {
  double right = 0;
  std::int64_t asked = 0;
  for (const Passage& passage : passages) homonyms::vote(passage, whole, right, asked);
  return right / static_cast<double>(asked);
}

class Noise final : public Task {
 public:
  std::string_view name() const override { return "noise"; }
  std::string_view summary() const override {
    return "which sense a homonym has, with words of its clause spoilt and other clauses beside";
  }
  std::int64_t heads() const override { return 4; }
  TransformerConfig config(std::int64_t heads) const override;
  TrainOptions options() const override;
  Metrics train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                      const TransformerOptions& options) const override;
  std::vector<std::pair<std::string, double>> evaluate(Transformer<float>& model, bool whole,
                                                       const TransformerOptions& options) const override;
  std::vector<Threshold> thresholds(std::int64_t heads) const override;
  Ablation ablate(Transformer<float>& model, const TransformerOptions& options) const override;
  LearnedExample example(Transformer<float>& model, const std::string& text,
                         const TransformerOptions& machine) const override;
  std::vector<std::int64_t> study_heads() const override { return {1, 2, 4, 8}; }
  std::int64_t study_seeds() const override { return 3; }
};

TransformerConfig Noise::config(std::int64_t heads) const {
  TransformerConfig config;
  config.source_vocab = {homonyms::words().size()};
  config.classes = homonyms::kSenses;
  config.max_tokens = 40;
  config.heads = heads;
  config.decoder_layers = 0;
  check_heads(name(), config);
  return config;
}

TrainOptions Noise::options() const {
  TrainOptions options;
  options.steps = 600;
  options.adamw = {.rate = 2e-3, .beta2 = 0.98};
  options.schedule = {Schedule::Kind::cosine, 100, 0, 0};
  options.report_every = 60;
  return options;
}

Metrics Noise::train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                           const TransformerOptions& options) const {
  std::vector<Passage> passages;
  for (std::int64_t i = 0; i < kPassages; ++i)
    passages.push_back(homonyms::mixed_passage(seed, static_cast<std::uint64_t>(step * kPassages + i), Part::training));
  const PassageBatch batch(passages);
  Matrix<float> logits(batch.source.tokens(), homonyms::kSenses);
  model.forward(batch.source.batch(), {}, logits, options);
  const Answer answer{logits, batch.wanted};
  return learn(model, logits, {&answer, 1});
}

std::vector<std::pair<std::string, double>> Noise::evaluate(Transformer<float>& model, bool whole,
                                                            const TransformerOptions& options) const {
  const std::int64_t count = whole ? 1000 : 100;
  std::vector<std::pair<std::string, double>> found;
  const auto level = [&](const std::string& name, const PassageSpec& spec) {
    const std::vector<Passage> passages = test_passages(count, spec);
    found.emplace_back(name, accuracy_on(model, passages, options));
    if (!whole) return;
    found.emplace_back(name + "_vote_of_clause", vote_on(passages, false));
    found.emplace_back(name + "_vote_of_passage", vote_on(passages, true));
  };
  if (!whole) {
    level("others_3", {.others = 3});
    level("spoilt_20", {.others = 1, .spoilt = 0.2});
    return found;
  }
  for (std::int64_t others = 0; others <= 3; ++others) level("others_" + std::to_string(others), {.others = others});
  for (const std::int64_t percent : kSpoilt)
    level("spoilt_" + std::to_string(percent), {.others = 1, .spoilt = static_cast<double>(percent) / 100});
  level("others_3_spoilt_40", {.others = 3, .spoilt = 0.4});
  return found;
}

std::vector<Threshold> Noise::thresholds(std::int64_t heads) const {
  if (heads != this->heads()) return {};
  return {{"others_0", true, 0.99}, {"others_3", true, 0.95}, {"spoilt_20", true, 0.9}};
}

// The skills: senses that one word alone tells, and that three other clauses stand beside, or noise.
Ablation Noise::ablate(Transformer<float>& model, const TransformerOptions& options) const {
  std::vector<std::string> skills{std::begin(homonyms::kSlotNames), std::end(homonyms::kSlotNames)};
  std::vector<std::vector<Passage>> lists;
  for (std::int64_t slot = 0; slot < homonyms::kSlots; ++slot) lists.push_back(test_passages(500, {.only = slot}));
  skills.insert(skills.end(), {"others", "spoilt"});
  lists.push_back(test_passages(200, {.others = 3}));
  lists.push_back(test_passages(500, {.spoilt = 0.3}));
  return drops_of_heads(
      model.config(), std::move(skills),
      [&](const TransformerOptions& gated) {
        std::vector<double> accuracy;
        accuracy.reserve(lists.size());
        for (const auto& list : lists) accuracy.push_back(accuracy_on(model, list, gated));
        return accuracy;
      },
      options);
}

LearnedExample Noise::example(Transformer<float>& model, const std::string& text,
                              const TransformerOptions& machine) const {
  const Vocabulary& words = homonyms::words();
  LearnedExample example;
  std::vector<std::int64_t> ids;
  const auto add_sense = [&](std::string& list, std::int64_t word, std::int64_t sense) {
    list += (list.empty() ? "" : ", ") + std::string(words.text(word)) + ": " + std::string(homonyms::french(sense));
  };
  if (text.empty()) {
    const Passage passage = test_passages(1, {.others = 1}).front();
    ids = passage.words;
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (passage.wanted[i] >= 0) add_sense(example.wanted, ids[i], passage.wanted[i]);
  } else {
    ids = read_words("example", "task \"noise\"", words, text, model.config().max_tokens);
  }
  example.input = text_of(words, ids);
  LearnedExample::Layer layer;
  for (const std::int64_t id : ids) layer.q_tokens.emplace_back(words.text(id));
  layer.kv_tokens = layer.q_tokens;
  const std::int64_t n = std::ssize(ids), heads = model.config().heads;
  Packed source;
  source.add(ids);
  Matrix<float> logits(n, homonyms::kSenses);
  TransformerOptions options = machine;
  std::vector<AttentionRequest> requests;
  for (std::int64_t i = 0; i < model.config().encoder_layers; ++i) {
    layer.name = "encoder " + std::to_string(i);
    layer.weights.assign(static_cast<std::size_t>(heads * n * n), 0);
    example.layers.push_back(layer);
  }
  for (std::int64_t i = 0; i < model.config().encoder_layers; ++i)
    requests.push_back(
        {AttentionPart::encoder, i, {example.layers[static_cast<std::size_t>(i)].weights.data(), {heads, n, n}}});
  options.weights = requests;
  model.forward(source.batch(), {}, logits, options);
  // Of a homonym's two senses the likelier.
  for (std::int64_t i = 0; i < n; ++i)
    if (const std::int64_t first = homonyms::first_sense(ids[static_cast<std::size_t>(i)]); first >= 0)
      add_sense(example.output, ids[static_cast<std::size_t>(i)],
                first + (logits(i, first + 1) > logits(i, first) ? 1 : 0));
  return example;
}

}  // namespace

std::unique_ptr<Task> make_noise();
std::unique_ptr<Task> make_noise() { return std::make_unique<Noise>(); }

}  // namespace multihead
