// SPDX-License-Identifier: Apache-2.0
// Task "four-relations": one attention layer must look to four places from every position, a head for each.
#include <algorithm>
#include <string>

#include "core/validate.hpp"
#include "multihead/gradients.hpp"
#include "train/tasks/head_drops.hpp"
#include "train/tasks/learn.hpp"
#include "train/tasks/relations_data.hpp"
#include "train/tasks/table.hpp"
#include "train/tasks/words.hpp"

namespace multihead {

namespace {

using namespace relations;

constexpr std::int64_t kBatch = 64;          // sequences
constexpr std::uint64_t kHeldOutSeed = 151;  // of the sequences that results are measured on
constexpr double kLabelMass = 0.5;           // a head is named for a relation that gets at least so much of its weight

// The part of the logits that names one relation's payload.
template <class T>
MatrixView<T> of_relation(MatrixView<T> logits, std::int64_t relation) {
  return {logits.data() + relation * kPayloads, {logits.extent(0), kPayloads}, {logits.stride(0), 1}};
}

Data held_out(std::int64_t sequences) {
  Random random(kHeldOutSeed, 0);
  return draw(random, sequences, true);
}

// (kRelations): the share of positions that name the right payload.
std::vector<double> accuracies(Transformer<float>& model, const Data& data, const TransformerOptions& options) {
  Matrix<float> logits(data.positions(), kRelations * kPayloads);
  model.forward(data.batch(), {}, logits, options);
  const std::vector<std::int64_t> right = wanted(data);
  const auto positions = static_cast<std::size_t>(data.positions());
  std::vector<double> shares;
  for (std::int64_t relation = 0; relation < kRelations; ++relation) {
    const CrossEntropy measured =
        cross_entropy<float>(of_relation<const float>(std::as_const(logits), relation),
                             std::span(right).subspan(static_cast<std::size_t>(relation) * positions, positions), 0);
    shares.push_back(static_cast<double>(measured.correct) / static_cast<double>(measured.rows));
  }
  return shares;
}

// (heads, kRelations): the mean weight that a head gives to each relation's target, over the positions of held-out
// sequences whose four targets differ.
Matrix<double> masses(Transformer<float>& model, const TransformerOptions& options) {
  constexpr std::int64_t kSequences = 16, kTimes = 16;
  Random random(kHeldOutSeed, 1);
  const std::int64_t heads = model.config().heads;
  Matrix<double> mass(heads, kRelations);
  std::vector<float> weights(static_cast<std::size_t>(heads * kSequences * kLength * kSequences * kLength));
  Matrix<float> logits(kSequences * kLength, kRelations * kPayloads);
  double counted = 0;
  for (std::int64_t time = 0; time < kTimes; ++time) {
    const Data data = draw(random, kSequences, true);
    const View3<float> seen(weights.data(), {heads, data.positions(), data.positions()});
    const AttentionRequest request{AttentionPart::encoder, 0, seen};
    TransformerOptions asking = options;
    asking.weights = {&request, 1};
    model.forward(data.batch(), {}, logits, asking);
    for (std::int64_t at = 0; at < data.positions(); ++at) {
      const std::int64_t start = at / kLength * kLength;
      const std::span tokens(data.ids.data() + start, kLength);
      std::array<std::int64_t, kRelations> targets{};
      for (std::int64_t r = 0; r < kRelations; ++r)
        targets[static_cast<std::size_t>(r)] = start + target_of(r, at - start, tokens);
      std::array<std::int64_t, kRelations> sorted = targets;
      std::sort(sorted.begin(), sorted.end());
      if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) continue;
      ++counted;
      for (std::int64_t head = 0; head < heads; ++head)
        for (std::int64_t r = 0; r < kRelations; ++r)
          mass(head, r) += seen(head, at, targets[static_cast<std::size_t>(r)]);
    }
  }
  for (std::int64_t head = 0; head < heads; ++head)
    for (std::int64_t r = 0; r < kRelations; ++r) mass(head, r) /= counted;
  return mass;
}

std::int64_t largest_of(const Matrix<double>& rows, std::int64_t row) {
  const double* const first = &rows(row, 0);
  return std::max_element(first, first + rows.columns()) - first;
}

// A position as it is written: token A to P, payload 0 to 15.
std::string written(std::int64_t token, std::int64_t payload) {
  return std::string(1, static_cast<char>('A' + token)) + std::to_string(payload);
}

Data read_sequence(const std::string& text) {
  const auto wrong = [](const std::string& rest) { fail(ErrorCode::bad_option, "four-relations: " + rest); };
  Data data;
  data.sequences = 1, data.cu_seqlens = {0, kLength};
  std::vector<std::int64_t> tokens, payloads;
  std::array<int, kTokens> times{};
  for (std::size_t begin = 0; (begin = text.find_first_not_of(' ', begin)) != std::string::npos;) {
    const std::string word = text.substr(begin, std::min(text.find(' ', begin), text.size()) - begin);
    begin += word.size();
    bool known = false;
    for (std::int64_t token = 0; token < kTokens && !known; ++token)
      for (std::int64_t payload = 0; payload < kPayloads && !known; ++payload)
        if (word == written(token, payload)) {
          tokens.push_back(token), payloads.push_back(payload);
          ++times[static_cast<std::size_t>(token)];
          known = true;
        }
    if (!known) wrong("'" + shown(word) + "' is no position; they are A0 to P15");
  }
  if (std::ssize(tokens) != kLength || std::any_of(times.begin(), times.end(), [](int n) { return n != 0 && n != 2; }))
    wrong("the text has " + std::to_string(tokens.size()) + " positions; it must have 16, each letter in it twice");
  data.ids = tokens;
  data.ids.insert(data.ids.end(), payloads.begin(), payloads.end());
  return data;
}

class FourRelations final : public Task {
 public:
  std::string_view name() const override { return "four-relations"; }
  std::string_view summary() const override {
    return "from every position look to four others and name what stands there: a head for each relation";
  }
  std::int64_t heads() const override { return 4; }
  std::vector<std::int64_t> study_heads() const override { return {1, 2, 4, 8}; }
  std::int64_t study_seeds() const override { return 5; }

  TransformerConfig config(std::int64_t heads) const override {
    TransformerConfig config;
    config.source_vocab = {kTokens, kPayloads};
    config.classes = kRelations * kPayloads;
    config.max_tokens = kLength;
    config.heads = heads;
    config.feed_forward = 0;
    config.final_norm = false;
    check_heads(name(), config);
    return config;
  }

  TrainOptions options() const override {
    TrainOptions options;
    options.steps = 1500;
    options.adamw = {.rate = 1e-3};
    options.schedule = {Schedule::Kind::cosine, 100, 0, 0};
    return options;
  }

  Metrics train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                      const TransformerOptions& options) const override {
    Random random(seed, static_cast<std::uint32_t>(step + 1));
    const Data data = draw(random, kBatch, false);
    const std::vector<std::int64_t> right = wanted(data);
    const auto positions = static_cast<std::size_t>(data.positions());
    Matrix<float> logits(data.positions(), kRelations * kPayloads);
    model.forward(data.batch(), {}, logits, options);
    std::vector<Answer> answers;
    for (std::int64_t relation = 0; relation < kRelations; ++relation)
      answers.push_back({of_relation<float>(logits, relation),
                         std::span(right).subspan(static_cast<std::size_t>(relation) * positions, positions)});
    return learn(model, logits, answers);
  }

  std::vector<std::pair<std::string, double>> evaluate(Transformer<float>& model, bool whole,
                                                       const TransformerOptions& options) const override {
    const std::vector<double> shares = accuracies(model, held_out(whole ? 1024 : 128), options);
    std::vector<std::pair<std::string, double>> results;
    for (std::size_t r = 0; r < shares.size(); ++r) results.emplace_back(kNames[r], shares[r]);
    results.emplace_back("worst", *std::min_element(shares.begin(), shares.end()));
    if (whole) add_heads(model, options, results);
    return results;
  }

  std::vector<Threshold> thresholds(std::int64_t heads) const override {
    if (heads < kRelations) return {{"worst", false, 0.5}};
    if (heads > kRelations) return {{"worst", true, 0.99}};
    return {{"worst", true, 0.99},
            {"permutation", true, 1},
            {"own_mass", true, 0.7},
            {"ablation_on", true, 0.7},
            {"ablation_off", false, 0.01}};
  }

  Ablation ablate(Transformer<float>& model, const TransformerOptions& options) const override {
    const Data data = held_out(512);
    Ablation found = drops_of_heads(
        model.config(), {kNames.begin(), kNames.end()},
        [&](const TransformerOptions& gated) { return accuracies(model, data, gated); }, options);
    found.labels.clear();  // this task has names of its own
    const Matrix<double> mass = masses(model, options);
    for (std::int64_t head = 0; head < mass.rows(); ++head) {
      const std::int64_t relation = largest_of(mass, head);
      found.labels.push_back(mass(head, relation) >= kLabelMass ? kNames[static_cast<std::size_t>(relation)] : "mixed");
    }
    return found;
  }

  LearnedExample example(Transformer<float>& model, const std::string& text,
                         const TransformerOptions& machine) const override {
    const Data data = text.empty() ? held_out(1) : read_sequence(text);
    const std::int64_t heads = model.config().heads;
    LearnedExample shown;
    LearnedExample::Layer layer{"encoder 0", {}, {}, {}};
    layer.weights.resize(static_cast<std::size_t>(heads * kLength * kLength));
    const AttentionRequest request{AttentionPart::encoder, 0, {layer.weights.data(), {heads, kLength, kLength}}};
    TransformerOptions options = machine;
    options.weights = {&request, 1};
    Matrix<float> logits(kLength, kRelations * kPayloads);
    model.forward(data.batch(), {}, logits, options);
    const std::vector<std::int64_t> right = wanted(data);
    for (std::int64_t r = 0; r < kRelations; ++r) {
      const std::string lead = std::string(r > 0 ? "; " : "") + kNames[static_cast<std::size_t>(r)];
      shown.output += lead, shown.wanted += lead;
      for (std::int64_t i = 0; i < kLength; ++i) {
        const float* const row = &logits(i, r * kPayloads);
        shown.output += " " + std::to_string(std::max_element(row, row + kPayloads) - row);
        shown.wanted += " " + std::to_string(right[static_cast<std::size_t>(r * kLength + i)]);
      }
    }
    for (std::int64_t i = 0; i < kLength; ++i) layer.q_tokens.push_back(written(data.token(i), data.payload(i)));
    for (const std::string& token : layer.q_tokens) shown.input += (shown.input.empty() ? "" : " ") + token;
    layer.kv_tokens = layer.q_tokens;
    shown.layers.push_back(std::move(layer));
    return shown;
  }

 private:
  // Of the heads' own relations, those of their largest masses: whether they are all different, the least mass and the
  // least drop of accuracy on them, and the largest on the others.
  void add_heads(Transformer<float>& model, const TransformerOptions& options,
                 std::vector<std::pair<std::string, double>>& results) const {
    const Matrix<double> mass = masses(model, options);
    const Ablation ablation = ablate(model, options);
    std::array<int, kRelations> times{};
    double own_mass = 1, others_mass = 0, on = 1, off = 0;
    for (std::int64_t head = 0; head < mass.rows(); ++head) {
      const std::int64_t own = largest_of(mass, head);
      ++times[static_cast<std::size_t>(own)];
      for (std::int64_t r = 0; r < kRelations; ++r)
        if (r == own)
          own_mass = std::min(own_mass, mass(head, r)), on = std::min(on, ablation.drop(head, r));
        else
          others_mass = std::max(others_mass, mass(head, r)), off = std::max(off, ablation.drop(head, r));
    }
    const bool once = std::all_of(times.begin(), times.end(), [](int n) { return n == 1; });
    results.insert(results.end(), {{"permutation", once ? 1 : 0},
                                   {"own_mass", own_mass},
                                   {"others_mass", others_mass},
                                   {"ablation_on", on},
                                   {"ablation_off", off}});
  }
};

}  // namespace

std::unique_ptr<Task> make_four_relations() { return std::make_unique<FourRelations>(); }

}  // namespace multihead
