// SPDX-License-Identifier: Apache-2.0
// Task "grammar": number of the verb and polarity of the judgement in two clauses, all four read at one place.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "train/tasks/english.hpp"
#include "train/tasks/head_drops.hpp"
#include "train/tasks/learn.hpp"
#include "train/tasks/table.hpp"

namespace multihead {

namespace {

using namespace english;

constexpr std::int64_t kBatch = 64;  // sentences
constexpr std::int64_t kSkills = 4, kAnswers = 2;
constexpr std::array<const char*, kSkills> kNames{"agreement_1", "agreement_2", "polarity_1", "polarity_2"};
constexpr std::uint64_t kHeldOutSeed = 152;  // of the sentences that results are measured on
constexpr double kLabelDrop = 0.1;           // a head is named for the skills that lose so much without it

// Sentences as the model takes them; only the last token of each is asked anything.
struct Sentences {
  std::vector<std::int64_t> ids, cu_seqlens{0};
  std::array<std::vector<std::int64_t>, kSkills> wanted;  // (tokens): 0, 1, or -1 where nothing is asked
  std::vector<Sentence> sentences;

  std::int64_t tokens() const { return cu_seqlens.back(); }
  TokenBatch batch() const { return {{ids.data(), {2, tokens()}}, cu_seqlens}; }
};

Sentences pack(std::vector<Sentence> drawn) {
  Sentences packed;
  std::vector<std::int64_t> clauses;
  for (const Sentence& sentence : drawn) {
    const Tokens tokens = tokens_of(sentence);
    packed.ids.insert(packed.ids.end(), tokens.words.begin(), tokens.words.end());
    clauses.insert(clauses.end(), tokens.clauses.begin(), tokens.clauses.end());
    packed.cu_seqlens.push_back(std::ssize(packed.ids));
    for (std::size_t skill = 0; skill < kSkills; ++skill) {
      packed.wanted[skill].resize(packed.ids.size(), -1);
      const Clause& clause = sentence.clauses[skill % kClauses];
      packed.wanted[skill].back() = skill < kClauses ? clause.plural() : clause.praises();
    }
  }
  packed.ids.insert(packed.ids.end(), clauses.begin(), clauses.end());
  packed.sentences = std::move(drawn);
  return packed;
}

Sentences draw_many(Random& random, std::int64_t count, bool held_out) {
  std::vector<Sentence> drawn;
  for (std::int64_t i = 0; i < count; ++i) drawn.push_back(draw(random, held_out));
  return pack(std::move(drawn));
}

Sentences held_out(std::int64_t count) {
  Random random(kHeldOutSeed, 0);
  return draw_many(random, count, true);
}

// The two logits of one skill.
template <class T>
MatrixView<T> of_skill(MatrixView<T> logits, std::size_t skill) {
  return {
      logits.data() + static_cast<std::int64_t>(skill) * kAnswers, {logits.extent(0), kAnswers}, {logits.stride(0), 1}};
}

// Whether each skill's answer to each sentence is right, skill by skill.
std::array<std::vector<bool>, kSkills> answers(Transformer<float>& model, const Sentences& data,
                                               const TransformerOptions& options) {
  Matrix<float> logits(data.tokens(), kSkills * kAnswers);
  model.forward(data.batch(), {}, logits, options);
  std::array<std::vector<bool>, kSkills> right;
  for (std::size_t skill = 0; skill < kSkills; ++skill)
    for (std::size_t s = 0; s < data.sentences.size(); ++s) {
      const std::int64_t last = data.cu_seqlens[s + 1] - 1;
      const MatrixView<float> two = of_skill<float>(logits, skill);
      right[skill].push_back((two(last, 1) > two(last, 0)) ==
                             (data.wanted[skill][static_cast<std::size_t>(last)] == 1));
    }
  return right;
}

std::vector<double> accuracies(Transformer<float>& model, const Sentences& data, const TransformerOptions& options) {
  std::vector<double> shares;
  for (const std::vector<bool>& right : answers(model, data, options))
    shares.push_back(static_cast<double>(std::count(right.begin(), right.end(), true)) /
                     static_cast<double>(right.size()));
  return shares;
}

// "are, praise": what is answered of one clause.
std::string said(bool plural, bool praises) {
  return std::string(plural ? "are" : "is") + ", " + (praises ? "praise" : "blame");
}

class Grammar final : public Task {
 public:
  std::string_view name() const override { return "grammar"; }
  std::string_view summary() const override {
    return "at one place tell of two clauses whether the verb is plural and whether they praise, past nouns between "
           "and negations";
  }
  std::int64_t heads() const override { return 4; }
  std::vector<std::int64_t> study_heads() const override { return {1, 2, 4, 8}; }
  std::int64_t study_seeds() const override { return 3; }

  TransformerConfig config(std::int64_t heads) const override {
    TransformerConfig config;
    config.source_vocab = {vocabulary(), kClauses + 1};
    config.classes = kSkills * kAnswers;
    config.max_tokens = kMostTokens;
    config.heads = heads;
    config.feed_forward = 128;
    check_heads(name(), config);
    return config;
  }

  TrainOptions options() const override {
    TrainOptions options;
    options.steps = 2000;
    options.adamw = {.rate = 1e-3};
    options.schedule = {Schedule::Kind::cosine, 100, 0, 0};
    return options;
  }

  Metrics train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                      const TransformerOptions& options) const override {
    Random random(seed, static_cast<std::uint32_t>(step + 1));
    const Sentences data = draw_many(random, kBatch, false);
    Matrix<float> logits(data.tokens(), kSkills * kAnswers);
    model.forward(data.batch(), {}, logits, options);
    std::vector<Answer> answers;
    for (std::size_t skill = 0; skill < kSkills; ++skill)
      answers.push_back({of_skill<float>(logits, skill), data.wanted[skill]});
    return learn(model, logits, answers);
  }

  std::vector<std::pair<std::string, double>> evaluate(Transformer<float>& model, bool whole,
                                                       const TransformerOptions& options) const override {
    const Sentences data = held_out(whole ? 2000 : 200);
    const std::array<std::vector<bool>, kSkills> right = answers(model, data, options);
    std::vector<std::pair<std::string, double>> results;
    double worst = 1;
    for (std::size_t skill = 0; skill < kSkills; ++skill) {
      const double share = share_where(data, right, skill, [](const Clause&) { return true; });
      results.emplace_back(kNames[skill], share);
      worst = std::min(worst, share);
    }
    results.emplace_back("worst", worst);
    if (whole) {
      const auto both = [&](std::size_t first, const auto& where) {
        return std::min(share_where(data, right, first, where), share_where(data, right, first + 1, where));
      };
      results.emplace_back("attracted", both(0, [](const Clause& clause) { return clause.is_attracted(); }));
      results.emplace_back("negated", both(2, [](const Clause& clause) { return clause.negator >= 0; }));
    }
    return results;
  }

  std::vector<Threshold> thresholds(std::int64_t heads) const override {
    if (heads != 4) return {};
    return {{"worst", true, 0.99}, {"attracted", true, 0.99}, {"negated", true, 0.99}};
  }

  Ablation ablate(Transformer<float>& model, const TransformerOptions& options) const override {
    const Sentences data = held_out(1000);
    Ablation found = drops_of_heads(
        model.config(), {kNames.begin(), kNames.end()},
        [&](const TransformerOptions& gated) { return accuracies(model, data, gated); }, options);
    found.labels.clear();  // this task has names of its own
    for (std::int64_t head = 0; head < found.drop.rows(); ++head) {
      std::string label;
      for (std::int64_t skill = 0; skill < kSkills; ++skill)
        if (found.drop(head, skill) >= kLabelDrop)
          label += (label.empty() ? "" : " + ") + std::string(kNames[static_cast<std::size_t>(skill)]);
      found.labels.push_back(label.empty() ? "spare" : label);
    }
    return found;
  }

  LearnedExample example(Transformer<float>& model, const std::string& text,
                         const TransformerOptions& machine) const override {
    Random random(kHeldOutSeed, 1);
    const Sentence own = draw(random, true);
    const Tokens tokens = text.empty() ? tokens_of(own) : tokens_of(text);
    const std::int64_t count = std::ssize(tokens.words), heads = model.config().heads;
    std::vector<std::int64_t> ids = tokens.words;
    ids.insert(ids.end(), tokens.clauses.begin(), tokens.clauses.end());
    const std::array<std::int64_t, 2> cu_seqlens{0, count};

    LearnedExample shown;
    LearnedExample::Layer layer{"encoder 0", {}, {}, {}};
    for (const std::int64_t token : tokens.words) layer.q_tokens.emplace_back(word(token));
    layer.kv_tokens = layer.q_tokens;
    layer.weights.resize(static_cast<std::size_t>(heads * count * count));
    const AttentionRequest request{AttentionPart::encoder, 0, {layer.weights.data(), {heads, count, count}}};
    TransformerOptions options = machine;
    options.weights = {&request, 1};
    Matrix<float> logits(count, kSkills * kAnswers);
    model.forward({{ids.data(), {2, count}}, cu_seqlens}, {}, logits, options);

    const auto says = [&](std::int64_t skill) {
      return logits(count - 1, kAnswers * skill + 1) > logits(count - 1, kAnswers * skill);
    };
    shown.input = text_of(tokens.words);
    shown.output = said(says(0), says(2)) + "; " + said(says(1), says(3));
    if (text.empty())
      shown.wanted = said(own.clauses[0].plural(), own.clauses[0].praises()) + "; " +
                     said(own.clauses[1].plural(), own.clauses[1].praises());
    shown.layers.push_back(std::move(layer));
    return shown;
  }

 private:
  // The share of right answers over the sentences whose clause, the one that the skill is about, is such.
  template <class Where>
  static double share_where(const Sentences& data, const std::array<std::vector<bool>, kSkills>& right,
                            std::size_t skill, const Where& where) {
    double counted = 0, correct = 0;
    for (std::size_t s = 0; s < data.sentences.size(); ++s)
      if (where(data.sentences[s].clauses[skill % kClauses])) counted += 1, correct += right[skill][s] ? 1 : 0;
    return counted > 0 ? correct / counted : std::nan("");
  }
};

}  // namespace

std::unique_ptr<Task> make_grammar() { return std::make_unique<Grammar>(); }

}  // namespace multihead
