// SPDX-License-Identifier: Apache-2.0
// Task "translation": English of a little grammar into French, or into its main clause, by one model.
#include "multihead/translation.hpp"

#include <algorithm>

#include "core/validate.hpp"
#include "train/tasks/bilingual.hpp"
#include "train/tasks/head_drops.hpp"
#include "train/tasks/learn.hpp"
#include "train/tasks/table.hpp"
#include "train/tasks/translation_model.hpp"

namespace multihead {

using bilingual::Sentence;
using bilingual::Wanted;

namespace {

constexpr std::int64_t kSentences = 64;           // of a step
constexpr std::uint64_t kTestSeed = 0x7465'7374;  // of what is measured on

std::vector<Sentence> sentences(std::uint64_t seed, std::uint64_t first, std::int64_t count, Part part, Wanted wanted) {
  std::vector<Sentence> list;
  for (std::int64_t i = 0; i < count; ++i)
    list.push_back(bilingual::sentence(seed, first + static_cast<std::uint64_t>(i), part, wanted));
  return list;
}

std::vector<Sentence> test_sentences(std::int64_t count, Wanted wanted, Part part = Part::held_out) {
  return sentences(kTestSeed, 0, count, part, wanted);
}

double bleu_of(std::span<const Sentence> list, std::span<const std::vector<std::int64_t>> outputs) {
  std::vector<std::vector<std::int64_t>> references;
  for (const Sentence& sentence : list) references.push_back(sentence.target);
  return bleu(outputs, references).value;
}

class Translation final : public Task {
 public:
  std::string_view name() const override { return "translation"; }
  std::string_view summary() const override {
    return "English of a little grammar into French, or into its main clause, by one model";
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
  std::int64_t study_seeds() const override { return 5; }
};

TransformerConfig Translation::config(std::int64_t heads) const {
  TransformerConfig config;
  config.kind = TransformerConfig::Kind::encoder_decoder;
  config.source_vocab = {bilingual::source_words().size()};
  config.target_vocab = {bilingual::target_words().size()};
  config.classes = bilingual::target_words().size();
  config.max_tokens = bilingual::kMostTokens;
  config.heads = heads;
  check_heads(name(), config);
  return config;
}

TrainOptions Translation::options() const {
  TrainOptions options;
  options.steps = 3000;
  options.adamw = {.rate = 2e-3, .beta2 = 0.98};
  options.schedule = {Schedule::Kind::cosine, 100, 0, 0};
  options.report_every = 200;
  return options;
}

Metrics Translation::train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                                 const TransformerOptions& options) const {
  const SentenceBatch batch(
      sentences(seed, static_cast<std::uint64_t>(step * kSentences), kSentences, Part::training, Wanted::either));
  Matrix<float> logits(batch.target.tokens(), model.config().classes);
  model.forward(batch.source.batch(), batch.target.batch(), logits, options);
  const Answer answer{logits, batch.wanted};
  return learn(model, logits, {&answer, 1});
}

std::vector<std::pair<std::string, double>> Translation::evaluate(Transformer<float>& model, bool whole,
                                                                  const TransformerOptions& options) const {
  const auto translations = test_sentences(whole ? 1000 : 60, Wanted::translation);
  const auto summaries = test_sentences(whole ? 500 : 30, Wanted::summary);
  const auto french = decode_sentences(model, translations, 1, options);
  const auto english = decode_sentences(model, summaries, 1, options);
  std::vector<std::pair<std::string, double>> found{{"exact", exact_match(translations, french)},
                                                    {"exact_summary", exact_match(summaries, english)}};
  if (!whole) return found;
  found.emplace_back("bleu", bleu_of(translations, french));
  found.emplace_back("bleu_summary", bleu_of(summaries, english));
  found.emplace_back("exact_beam_4", exact_match(translations, decode_sentences(model, translations, 4, options)));
  const auto seen = test_sentences(1000, Wanted::translation, Part::training);
  found.emplace_back("exact_pairs_seen", exact_match(seen, decode_sentences(model, seen, 1, options)));
  const WordAlignment alignment = align(model, std::span(translations).first(500), options);
  found.emplace_back("alignment_best_head", *std::max_element(alignment.heads.begin(), alignment.heads.end()));
  found.emplace_back("alignment_mean_of_heads", *std::max_element(alignment.mean.begin(), alignment.mean.end()));
  for (std::size_t head = 0; head < alignment.heads.size(); ++head)
    found.emplace_back("alignment_head_" + std::to_string(head), alignment.heads[head]);
  return found;
}

std::vector<Threshold> Translation::thresholds(std::int64_t heads) const {
  if (heads != this->heads()) return {};
  return {{"exact", true, 0.98}, {"exact_summary", true, 0.98}, {"bleu", true, 0.99}};
}

Ablation Translation::ablate(Transformer<float>& model, const TransformerOptions& options) const {
  const auto list = test_sentences(400, Wanted::either);
  return drops_of_heads(
      model.config(), {std::begin(bilingual::kSkillNames), std::end(bilingual::kSkillNames)},
      [&](const TransformerOptions& gated) { return skill_accuracy(model, list, gated); }, options);
}

LearnedExample Translation::example(Transformer<float>& model, const std::string& text,
                                    const TransformerOptions& machine) const {
  if (!text.empty()) return translate(model, text, {.machine = machine});
  const Sentence sentence = test_sentences(1, Wanted::translation).front();
  LearnedExample example = translated(model, sentence.source, 1, machine);
  example.wanted = text_of(bilingual::target_words(), sentence.target);
  return example;
}

}  // namespace

std::unique_ptr<Task> make_translation();
std::unique_ptr<Task> make_translation() { return std::make_unique<Translation>(); }

}  // namespace multihead
