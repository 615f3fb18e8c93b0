// SPDX-License-Identifier: Apache-2.0
// A text through a model: its tokens, the statistics of every head, and weights where they are shown.
#include "head_run.hpp"

#include <algorithm>
#include <array>

#include "gates.hpp"
#include "model.hpp"
#include "multihead/wordpiece.hpp"

namespace multihead::cli {

namespace {

HeadTokens read_tokens(const WordPieceModel& model, const std::vector<std::string>& texts,
                       const EncoderExtents& extents) {
  const WordPiece tokenizer(model);
  HeadTokens tokens;
  tokens.pair = texts.size() == 2;
  for (const std::string& text : texts) tokens.title += (tokens.title.empty() ? "" : " / ") + text;
  tokens.separator = tokenizer.find(model.separate).value_or(-1);
  for (const Token& token : tokens_of(tokenizer, texts, extents.max_tokens)) {
    tokens.ids.push_back(token.id);
    tokens.types.push_back(extents.token_types > 1 ? token.type : 0);
    tokens.second.push_back(token.type == 1);
    tokens.texts.emplace_back(tokenizer.text(token.id));
    tokens.names.push_back(printable(tokens.texts.back()));
    tokens.special.push_back(tokenizer.special(token.id));
  }
  return tokens;
}

}  // namespace

std::int64_t HeadTokens::specials() const {
  return std::count_if(special.begin(), special.end(), [](char c) { return c != 0; });
}

HeadRun::HeadRun(const HeadsArguments& arguments, const Common& common)
    : HeadRun(model_folder(arguments.model), read_wordpiece(model_folder(arguments.model)), arguments, common) {
  if (arguments.gates.empty()) return;
  gates_ = gates_of(arguments.gates, extents(), "heads: --gate");
  gates_text_ = gates_text(arguments.gates);
}

HeadRun::HeadRun(const std::filesystem::path& folder, const WordPieceModel& tokenizer, const HeadsArguments& arguments,
                 const Common& common)
    : encoder_(folder, {.products = arguments.products}),
      tokens_(read_tokens(tokenizer, arguments.texts, encoder_.extents())) {
  options_.threads = common.threads;
  options_.target = common.target;
}

void HeadRun::forward(const EncoderRequests& requests) const {
  Matrix<float> hidden(tokens_.size(), extents().model_dim);
  EncoderInput input{tokens_.ids, {}, tokens_.types};
  if (!gates_text_.empty()) input.gates = gates_;
  encoder_.forward(input, hidden, options_, requests);
}

HeadStatsSpec HeadRun::spec() const {
  HeadStatsSpec spec;
  spec.heads = extents().heads, spec.q_len = spec.kv_len = tokens_.size();
  spec.classes = {"special", "separator"};
  if (tokens_.pair) spec.classes.insert(spec.classes.end(), {"first text", "second text"});
  for (std::size_t i = 0; i < tokens_.ids.size(); ++i) {
    const std::uint32_t text = tokens_.special[i] || !tokens_.pair ? 0 : tokens_.second[i] ? 8 : 4;
    spec.key_classes.push_back((tokens_.special[i] ? 1U : 0U) | (tokens_.ids[i] == tokens_.separator ? 2U : 0U) | text);
  }
  spec.q_tokens = spec.kv_tokens = tokens_.ids;
  return spec;
}

std::vector<HeadStats> HeadRun::statistics(const HeadStatsSpec& spec) const {
  std::vector<HeadStats> layers;
  std::vector<StatisticsRequest<float>> requests;
  for (std::int64_t layer = 0; layer < extents().layers; ++layer) layers.emplace_back(spec);
  for (HeadStats& layer : layers) requests.push_back(layer.request());
  forward({{}, {}, requests});
  return layers;
}

std::vector<float> HeadRun::weights(std::int64_t layer, std::int64_t head) const {
  const std::int64_t n = tokens_.size();
  std::vector<float> weights(static_cast<std::size_t>(n * n));
  std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(extents().layers));
  const std::array heads{head};
  requests[static_cast<std::size_t>(layer)].heads = heads;
  requests[static_cast<std::size_t>(layer)].per_head = {weights.data(), {1, 1, n, n}};
  forward({{}, requests, {}});
  return weights;
}

DenseWeights HeadRun::dense() const {
  const std::int64_t n = tokens_.size(), heads = extents().heads, layers = extents().layers;
  DenseWeights dense;
  dense.norms.resize(static_cast<std::size_t>(layers * heads * n));
  std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(layers));
  for (WeightsRequest<float>& request : requests)
    request.per_head = {dense.weights.emplace_back(static_cast<std::size_t>(heads * n * n)).data(), {1, heads, n, n}};
  forward({.weights = requests, .norms = {dense.norms.data(), {layers, heads, n}}});
  return dense;
}

}  // namespace multihead::cli
