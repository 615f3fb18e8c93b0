// SPDX-License-Identifier: Apache-2.0
// Greedy decoding and beam search: the encoder once, the decoder over the hypotheses of all sequences together.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "core/validate.hpp"
#include "kernels/table.hpp"
#include "train/transformer_state.hpp"

namespace multihead {

namespace {

constexpr const char* kDecode = "decode";
constexpr double kLowest = -std::numeric_limits<double>::infinity();

struct Hypothesis {
  std::vector<std::int64_t> tokens;  // begin first
  double sum = 0;                    // of log-probabilities
};

// One sequence's search.
struct Search {
  std::vector<Hypothesis> live;
  bool ended = false;  // a hypothesis took end
  double score = kLowest;
  std::vector<std::int64_t> best;  // of that score, without begin and end
};

struct Candidate {
  double sum;
  std::size_t hypothesis;
  std::int64_t token;

  bool operator<(const Candidate& other) const {  // better ones first
    return std::tuple(-sum, hypothesis, token) < std::tuple(-other.sum, other.hypothesis, other.token);
  }
};

// Sums of log-probabilities from logits, in double: the same on every machine, since no libm decides.
class LogSoftmax {
 public:
  LogSoftmax(const Kernels<double>& kernels, std::int64_t classes)
      : kernels_(kernels), row_(static_cast<std::size_t>(classes)), exp_(row_.size()) {}

  // The logarithms of the softmax of one row; NaN counts as -inf.
  std::span<const double> operator()(const float* logits) {
    double largest = kLowest, sum = 0;
    for (std::size_t i = 0; i < row_.size(); ++i) {
      row_[i] = logits[i] == logits[i] ? static_cast<double>(logits[i]) : kLowest;
      largest = std::max(largest, row_[i]);
    }
    if (std::isfinite(largest))
      for (double& value : row_) value -= largest;
    kernels_.map(MathFunction::exp, row_.data(), exp_.data(), static_cast<std::int64_t>(row_.size()));
    for (const double value : exp_) sum += value;
    double log_sum = 0;
    kernels_.map(MathFunction::log, &sum, &log_sum, 1);
    if (std::isfinite(log_sum))
      for (double& value : row_) value -= log_sum;
    return row_;
  }
  // ((5 + tokens) / 6)^alpha.
  double length_penalty(double tokens, double alpha) const {
    double value = (5 + tokens) / 6;
    kernels_.map(MathFunction::log, &value, &value, 1);
    value *= alpha;
    kernels_.map(MathFunction::exp, &value, &value, 1);
    return value;
  }

 private:
  const Kernels<double>& kernels_;
  std::vector<double> row_, exp_;
};

// Continues every hypothesis of one search by every token, given the rows of logits of its hypotheses.
void advance(Search& search, MatrixView<const float> logits, const DecodeOptions& decoding, LogSoftmax& log_softmax) {
  std::vector<Candidate> candidates;
  for (std::size_t h = 0; h < search.live.size(); ++h) {
    const std::span<const double> logs = log_softmax(logits.data() + static_cast<std::int64_t>(h) * logits.stride(0));
    for (std::size_t token = 0; token < logs.size(); ++token)
      candidates.push_back({search.live[h].sum + logs[token], h, static_cast<std::int64_t>(token)});
  }
  const auto kept = std::min(static_cast<std::size_t>(decoding.beam), candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(kept), candidates.end());

  std::vector<Hypothesis> next;
  for (std::size_t i = 0; i < kept; ++i) {
    const Candidate& candidate = candidates[i];
    const std::vector<std::int64_t>& tokens = search.live[candidate.hypothesis].tokens;
    if (candidate.token != decoding.end) {
      next.push_back({tokens, candidate.sum});
      next.back().tokens.push_back(candidate.token);
      continue;
    }
    const double score = candidate.sum / log_softmax.length_penalty(static_cast<double>(tokens.size()), decoding.alpha);
    if (search.ended && score <= search.score) continue;
    search.ended = true, search.score = score;
    search.best.assign(tokens.begin() + 1, tokens.end());
  }
  // Sums only fall, and no penalty exceeds that of the most tokens: what cannot win any more is let go.
  const double most = log_softmax.length_penalty(static_cast<double>(decoding.most), decoding.alpha);
  if (search.ended)
    std::erase_if(next, [&](const Hypothesis& hypothesis) { return hypothesis.sum / most <= search.score; });
  search.live = std::move(next);
}

// The hypotheses of all searches as the decoder's target; runs: where each search's tokens begin.
void pack(std::span<const Search> searches, PackedTokens& target, std::vector<std::int64_t>& runs) {
  target.tables = 1;
  target.ids.clear();
  target.cu_seqlens.assign(1, 0), runs.assign(1, 0);
  for (const Search& search : searches) {
    for (const Hypothesis& hypothesis : search.live) {
      target.ids.insert(target.ids.end(), hypothesis.tokens.begin(), hypothesis.tokens.end());
      target.cu_seqlens.push_back(static_cast<std::int64_t>(target.ids.size()));
    }
    runs.push_back(static_cast<std::int64_t>(target.ids.size()));
  }
  target.count_positions();
}

void check(const TransformerConfig& config, const TokenBatch& source, const DecodeOptions& decoding,
           const TransformerOptions& options) {
  const auto wrong = [](const std::string& rest) { fail(ErrorCode::bad_option, std::string(kDecode) + ": " + rest); };
  if (config.kind != TransformerConfig::Kind::encoder_decoder)
    wrong("the model has one stack; only an encoder_decoder decodes");
  if (config.target_vocab.size() != 1)
    wrong("the target has " + std::to_string(config.target_vocab.size()) + " embedding tables; it must have one");
  check_equal(kDecode, "the model", "has classes", config.classes, "the target's table has rows",
              config.target_vocab[0]);
  check_source(kDecode, config, source);
  check_options(kDecode, config, options);
  if (options.training) wrong("training is set; decoding drops nothing");
  if (!options.weights.empty()) wrong("weights are asked for; ask forward for those of a target");
  check_between(kDecode, "begin", decoding.begin, 0, config.classes - 1);
  check_between(kDecode, "end", decoding.end, 0, config.classes - 1);
  check_between(kDecode, "most", decoding.most, 1, config.max_tokens);
  check_between(kDecode, "beam", decoding.beam, 1, 1 << 16);
  if (!(decoding.alpha >= 0) || !std::isfinite(decoding.alpha))
    wrong("alpha is " + std::to_string(decoding.alpha) + "; it must be 0 or above and finite");
}

}  // namespace

std::vector<std::vector<std::int64_t>> decode(Transformer<float>& model, const TokenBatch& source,
                                              const DecodeOptions& decoding, const TransformerOptions& options) {
  Transformer<float>::State& state = model.state();
  check(state.config, source, decoding, options);
  state.keep(source, options);
  state.encode(options);

  std::vector<Search> searches(source.cu_seqlens.size() - 1);
  for (Search& search : searches) search.live.push_back({{decoding.begin}, 0});
  LogSoftmax log_softmax(choose_kernels(options.target).kernels<double>(), state.config.classes);
  std::vector<std::int64_t> runs;
  Matrix<float> last, logits;
  for (std::int64_t step = 0; step < decoding.most; ++step) {
    pack(searches, state.target, runs);
    const auto hypotheses = static_cast<std::int64_t>(state.target.cu_seqlens.size()) - 1;
    if (hypotheses == 0) break;
    const MatrixView<const float> rows = state.decode(runs, options);
    last = Matrix<float>(hypotheses, state.config.model_dim);
    logits = Matrix<float>(hypotheses, state.config.classes);
    for (std::int64_t h = 0; h < hypotheses; ++h)
      std::copy_n(rows.data() + (state.target.cu_seqlens[static_cast<std::size_t>(h) + 1] - 1) * rows.stride(0),
                  last.columns(), &last(h, 0));
    state.to_logits(last, logits);
    std::int64_t first = 0;
    for (Search& search : searches) {
      const auto count = static_cast<std::int64_t>(search.live.size());
      if (count > 0) advance(search, {&logits(first, 0), {count, logits.columns()}}, decoding, log_softmax);
      first += count;
    }
  }

  std::vector<std::vector<std::int64_t>> answers;
  for (Search& search : searches) {
    if (!search.ended && !search.live.empty())
      search.best.assign(search.live[0].tokens.begin() + 1, search.live[0].tokens.end());
    answers.push_back(std::move(search.best));
  }
  return answers;
}

}  // namespace multihead
