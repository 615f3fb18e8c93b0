// SPDX-License-Identifier: Apache-2.0
// Stories through a Transformer, a few at a time.
#include "train/tasks/language_model.hpp"

#include <algorithm>
#include <limits>

#include "kernels/table.hpp"
#include "multihead/gradients.hpp"
#include "train/tasks/language_tokens.hpp"

namespace multihead::language {

using stories::Skill;
using stories::Story;
using stories::Word;

namespace {

constexpr std::size_t kTogether = 50;  // stories of one pass

// The logits of one pass over all tokens of a batch.
Matrix<float> logits_of(Transformer<float>& model, const Packed& tokens, const TransformerOptions& machine) {
  Matrix<float> logits(tokens.tokens(), model.config().classes);
  model.forward(tokens.batch(), {}, logits, machine);
  return logits;
}

// Whether the word's own tokens, of which the first is story.ids[place], are likelier than those of another form.
bool prefers(const Matrix<float>& logits, std::int64_t first_row, const StoryTokens& story, std::size_t place,
             std::span<const std::int64_t> other) {
  std::size_t i = 0;
  while (i < other.size() && story.ids[place + i] == other[i]) ++i;
  if (i == other.size()) return false;
  const std::int64_t row = first_row + static_cast<std::int64_t>(place + i) - 1;
  return logits(row, story.ids[place + i]) > logits(row, other[i]);
}

bool is_right(const Matrix<float>& logits, std::int64_t first_row, const StoryTokens& story, const Word& word,
              std::size_t place) {
  return std::all_of(word.forms.begin(), word.forms.end(), [&](std::string_view form) {
    return form == word.text ||
           prefers(logits, first_row, story, place, encode(stories::spelled({form, word.skill, {}}, place == 1)));
  });
}

// One token after another of a row of logits: the likeliest, or one that is drawn.
class Choice {
 public:
  Choice(std::int64_t classes, const TransformerOptions& machine)
      : kernels_(choose_kernels(machine.target).kernels<double>()), weights_(static_cast<std::size_t>(classes)) {}

  static std::int64_t likeliest(std::span<const float> logits) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  std::int64_t drawn(std::span<const float> logits, double uniform) {
    const float largest = logits[static_cast<std::size_t>(likeliest(logits))];
    for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] = static_cast<double>(logits[i] - largest);
    kernels_.map(MathFunction::exp, weights_.data(), weights_.data(), std::ssize(weights_));
    double sum = 0;
    for (const double weight : weights_) sum += weight;
    double left = uniform * sum;
    std::int64_t token = 0;
    while (token + 1 < std::ssize(weights_) && (left -= weights_[static_cast<std::size_t>(token)]) >= 0) ++token;
    return token;
  }

 private:
  const Kernels<double>& kernels_;
  std::vector<double> weights_;
};

// Up to kTogether beginnings, in place; first: the number of the first one.
void go_on(Transformer<float>& model, std::span<std::vector<std::int64_t>> texts, std::size_t first,
           std::optional<std::uint64_t> seed, const TransformerOptions& machine) {
  const auto most = static_cast<std::size_t>(model.config().max_tokens);
  Choice choice(model.config().classes, machine);
  std::vector<Random> random;
  std::vector<std::size_t> live;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    random.emplace_back(seed.value_or(0), static_cast<std::uint32_t>(first + i));
    if (texts[i].size() < most) live.push_back(i);
  }
  while (!live.empty()) {
    Packed tokens;
    for (const std::size_t i : live) tokens.add(texts[i]);
    const Matrix<float> logits = logits_of(model, tokens, machine);
    std::vector<std::size_t> still;
    for (std::size_t n = 0; n < live.size(); ++n) {
      std::vector<std::int64_t>& text = texts[live[n]];
      const std::span<const float> row(&logits(tokens.starts[n + 1] - 1, 0),
                                       static_cast<std::size_t>(logits.columns()));
      const std::int64_t token = seed ? choice.drawn(row, random[live[n]].uniform()) : Choice::likeliest(row);
      if (token == kEnd) continue;
      text.push_back(token);
      if (text.size() < most) still.push_back(live[n]);
    }
    live = std::move(still);
  }
}

}  // namespace

StoryTokens tokens_of(const Story& story) {
  StoryTokens tokens{{kEnd}, {}};
  for (const Word& word : story.words) {
    tokens.words.push_back(tokens.ids.size());
    const std::vector<std::int64_t> ids = encode(stories::spelled(word, tokens.ids.size() == 1));
    tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
  }
  tokens.ids.push_back(kEnd);
  return tokens;
}

void StoryBatch::add(std::span<const std::int64_t> ids) {
  tokens.add(ids.first(ids.size() - 1));
  wanted.insert(wanted.end(), ids.begin() + 1, ids.end());
}

double nats_of(Transformer<float>& model, std::span<const StoryTokens> list, const TransformerOptions& machine) {
  double nats = 0;
  for (std::size_t first = 0; first < list.size(); first += kTogether) {
    StoryBatch batch;
    for (const StoryTokens& story : list.subspan(first, std::min(kTogether, list.size() - first))) batch.add(story.ids);
    const Matrix<float> logits = logits_of(model, batch.tokens, machine);
    const CrossEntropy measured = cross_entropy<float>(logits, batch.wanted, 0);
    nats += measured.loss * static_cast<double>(measured.rows);
  }
  return nats;
}

std::vector<double> skill_accuracy(Transformer<float>& model, std::span<const Story> list,
                                   const TransformerOptions& machine) {
  std::vector<std::int64_t> right(stories::kSkills), all(stories::kSkills);
  for (std::size_t first = 0; first < list.size(); first += kTogether) {
    const std::span<const Story> few = list.subspan(first, std::min(kTogether, list.size() - first));
    std::vector<StoryTokens> told;
    StoryBatch batch;
    for (const Story& story : few) batch.add(told.emplace_back(tokens_of(story)).ids);
    const Matrix<float> logits = logits_of(model, batch.tokens, machine);
    for (std::size_t s = 0; s < few.size(); ++s)
      for (std::size_t w = 0; w < few[s].words.size(); ++w) {
        const Word& word = few[s].words[w];
        if (word.skill == Skill::none) continue;
        const std::size_t skill = static_cast<std::size_t>(word.skill) - 1;
        ++all[skill];
        right[skill] += is_right(logits, batch.tokens.starts[s], told[s], word, told[s].words[w]);
      }
  }
  std::vector<double> accuracy;
  for (std::size_t skill = 0; skill < all.size(); ++skill)
    accuracy.push_back(all[skill] == 0 ? std::numeric_limits<double>::quiet_NaN()
                                       : static_cast<double>(right[skill]) / static_cast<double>(all[skill]));
  return accuracy;
}

std::vector<std::vector<std::int64_t>> continued(Transformer<float>& model,
                                                 std::span<const std::vector<std::int64_t>> beginnings,
                                                 std::optional<std::uint64_t> seed, const TransformerOptions& machine) {
  std::vector<std::vector<std::int64_t>> texts(beginnings.begin(), beginnings.end());
  for (std::size_t first = 0; first < texts.size(); first += kTogether)
    go_on(model, std::span(texts).subspan(first, std::min(kTogether, texts.size() - first)), first, seed, machine);
  return texts;
}

}  // namespace multihead::language
