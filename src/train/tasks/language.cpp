// SPDX-License-Identifier: Apache-2.0
// Task "language": the next token of short stories, whose words ask for what was said before.
#include <algorithm>
#include <array>
#include <string>

#include "core/validate.hpp"
#include "train/tasks/head_drops.hpp"
#include "train/tasks/language_model.hpp"
#include "train/tasks/language_tokens.hpp"
#include "train/tasks/learn.hpp"
#include "train/tasks/table.hpp"
#include "train/tasks/trigram.hpp"

namespace multihead {

namespace {

using namespace language;

constexpr std::uint64_t kStories = 32;            // of a step
constexpr std::uint64_t kTestSeed = 0x7465'6c6c;  // of what is measured on
constexpr std::uint64_t kDrawSeed = 1;            // of what it draws for them
constexpr std::size_t kTold = 100;                // stories that the model tells
constexpr std::uint64_t kCounted = 5000;          // stories that the trigrams are counted in

std::vector<stories::Story> stories_of(std::uint64_t seed, std::uint64_t first, std::uint64_t count, Part part) {
  std::vector<stories::Story> list;
  for (std::uint64_t i = 0; i < count; ++i) list.push_back(stories::story(seed, first + i, part));
  return list;
}

// A story's first two sentences.
std::vector<std::int64_t> beginning_of(const stories::Story& story) {
  const StoryTokens tokens = tokens_of(story);
  std::size_t stops = 0, word = 0;
  while (word < story.words.size() && stops < 2) stops += story.words[word++].text == ".";
  const std::size_t end = word < tokens.words.size() ? tokens.words[word] : tokens.ids.size() - 1;
  return {tokens.ids.begin(), tokens.ids.begin() + static_cast<std::ptrdiff_t>(end)};
}

std::string text_after(std::span<const std::int64_t> ids) { return decode(ids.subspan(1)); }

double share_of_stories(std::span<const std::vector<std::int64_t>> texts) {
  const auto told = std::count_if(texts.begin(), texts.end(),
                                  [](const auto& text) { return stories::read(text_after(text)).ways > 0; });
  return static_cast<double>(told) / static_cast<double>(texts.size());
}

// Per token: what the model loses, what the grammar itself must, and what counts of three tokens do.
struct Losses {
  double model = 0, grammar = 0, trigram = 0;
};

Losses losses(Transformer<float>& model, std::uint64_t count, bool counts, const TransformerOptions& machine) {
  const std::vector<stories::Story> list = stories_of(kTestSeed, 0, count, Part::training);
  std::vector<StoryTokens> tokens;
  double targets = 0;
  Losses found;
  for (const stories::Story& story : list) {
    targets += static_cast<double>(tokens.emplace_back(tokens_of(story)).ids.size() - 1);
    found.grammar += story.nats;
  }
  if (counts) {
    Trigram trigram(vocabulary());
    for (const stories::Story& story : stories_of(kTestSeed, count, kCounted, Part::training))
      trigram.add(tokens_of(story).ids);
    for (const StoryTokens& story : tokens) found.trigram += trigram.nats(story.ids);
  }
  found.model = nats_of(model, tokens, machine);
  for (double* nats : {&found.model, &found.grammar, &found.trigram}) *nats /= targets;
  return found;
}

class Language final : public Task {
 public:
  std::string_view name() const override { return "language"; }
  std::string_view summary() const override {
    return "short stories token by token, whose words ask for what was said sentences before";
  }
  std::int64_t heads() const override { return 4; }
  std::vector<std::int64_t> study_heads() const override { return {4}; }
  std::int64_t study_seeds() const override { return 3; }
  std::string_view tokenizer() const override { return tokenizer_json(); }

  TransformerConfig config(std::int64_t heads) const override {
    TransformerConfig config;
    config.kind = TransformerConfig::Kind::decoder;
    config.source_vocab = {vocabulary()};
    config.classes = vocabulary();
    config.max_tokens = 128;
    config.heads = heads;
    config.decoder_layers = 3;
    config.tied = true;
    config.activation = Activation::gelu_tanh;
    check_heads(name(), config);
    return config;
  }

  TrainOptions options() const override {
    TrainOptions options;
    options.steps = 4000;
    options.adamw = {.rate = 3e-3, .beta2 = 0.98, .decay = 0.05};
    options.schedule = {Schedule::Kind::cosine, 100, 0, 0};
    options.report_every = 200;
    return options;
  }

  // Every second story begins with its first word: what a reader writes has nothing before it.
  Metrics train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                      const TransformerOptions& options) const override {
    StoryBatch batch;
    for (std::uint64_t i = 0; i < kStories; ++i) {
      const std::uint64_t index = static_cast<std::uint64_t>(step) * kStories + i;
      const StoryTokens story = tokens_of(stories::story(seed, index, Part::training));
      batch.add(std::span(story.ids).subspan(i % 2));
    }
    Matrix<float> logits(batch.tokens.tokens(), model.config().classes);
    model.forward(batch.tokens.batch(), {}, logits, options);
    const Answer answer{logits, batch.wanted};
    return learn(model, logits, {&answer, 1});
  }

  std::vector<std::pair<std::string, double>> evaluate(Transformer<float>& model, bool whole,
                                                       const TransformerOptions& options) const override {
    const Losses loss = losses(model, whole ? 500 : 50, whole, options);
    const std::vector<stories::Story> held_out = stories_of(kTestSeed, 0, whole ? 300 : 30, Part::held_out);
    const std::vector<double> accuracy = skill_accuracy(model, held_out, options);
    std::vector<std::pair<std::string, double>> found{{"excess", loss.model - loss.grammar}};
    for (std::size_t skill = 0; skill < accuracy.size(); ++skill)
      found.emplace_back(stories::kSkillNames[skill], accuracy[skill]);
    if (!whole) return found;
    found.emplace_back("loss_model", loss.model);
    found.emplace_back("loss_grammar", loss.grammar);
    found.emplace_back("loss_trigram", loss.trigram);
    const std::vector<std::vector<std::int64_t>> nothing(kTold, {kEnd});
    found.emplace_back("stories_drawn", share_of_stories(continued(model, nothing, kDrawSeed, options)));
    std::vector<std::vector<std::int64_t>> beginnings;
    for (std::size_t i = 0; i < kTold; ++i) beginnings.push_back(beginning_of(held_out[i]));
    found.emplace_back("stories_continued", share_of_stories(continued(model, beginnings, std::nullopt, options)));
    return found;
  }

  std::vector<Threshold> thresholds(std::int64_t heads) const override {
    if (heads != this->heads()) return {};
    return {{"excess", false, 0.05}, {"agreement", true, 0.99},    {"reference", true, 0.99},
            {"fact", true, 0.95},    {"stories_drawn", true, 0.9}, {"stories_continued", true, 0.9}};
  }

  Ablation ablate(Transformer<float>& model, const TransformerOptions& options) const override {
    const std::vector<stories::Story> list = stories_of(kTestSeed, 0, 100, Part::held_out);
    return drops_of_heads(
        model.config(), {std::begin(stories::kSkillNames), std::end(stories::kSkillNames)},
        [&](const TransformerOptions& gated) { return skill_accuracy(model, list, gated); }, options);
  }

  LearnedExample example(Transformer<float>& model, const std::string& text,
                         const TransformerOptions& machine) const override;
};

LearnedExample Language::example(Transformer<float>& model, const std::string& text,
                                 const TransformerOptions& machine) const {
  const TransformerConfig& config = model.config();
  std::vector<std::int64_t> beginning = encode(text.empty() ? "The old farmer" : text);
  if (std::ssize(beginning) > config.max_tokens)
    fail(ErrorCode::bad_option, "language: the text has " + std::to_string(beginning.size()) + " tokens; it may have " +
                                    std::to_string(config.max_tokens));
  const std::vector<std::int64_t> told = continued(model, {&beginning, 1}, std::nullopt, machine).front();

  LearnedExample shown;
  shown.input = decode(beginning);
  shown.output = decode(told);
  std::vector<std::string> texts;
  texts.reserve(told.size());
  for (const std::int64_t id : told) texts.emplace_back(text_of_token(id));
  const std::int64_t tokens = std::ssize(told);
  std::vector<AttentionRequest> requests;
  for (std::int64_t i = 0; i < config.decoder_layers; ++i)
    shown.layers.push_back({"decoder " + std::to_string(i), texts, texts,
                            std::vector<float>(static_cast<std::size_t>(config.heads * tokens * tokens))});
  for (std::int64_t i = 0; i < config.decoder_layers; ++i)
    requests.push_back({AttentionPart::decoder,
                        i,
                        {shown.layers[static_cast<std::size_t>(i)].weights.data(), {config.heads, tokens, tokens}}});
  TransformerOptions options = machine;
  options.weights = requests;
  Packed packed;
  packed.add(told);
  Matrix<float> logits(tokens, config.classes);
  model.forward(packed.batch(), {}, logits, options);
  return shown;
}

}  // namespace

std::unique_ptr<Task> make_language();
std::unique_ptr<Task> make_language() { return std::make_unique<Language>(); }

}  // namespace multihead
