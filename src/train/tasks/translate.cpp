// SPDX-License-Identifier: Apache-2.0
// A text through the translating model: its words, the output decoded freely, the attention of every layer.
#include "core/validate.hpp"
#include "multihead/translation.hpp"
#include "train/tasks/bilingual.hpp"
#include "train/tasks/packed.hpp"
#include "train/tasks/translation_model.hpp"
#include "train/tasks/words.hpp"

namespace multihead {

using bilingual::source_words;
using bilingual::target_words;

namespace {

constexpr const char* kTranslateText = "translate";

std::vector<std::string> texts_of(const Vocabulary& words, std::span<const std::int64_t> ids) {
  std::vector<std::string> texts;
  for (const std::int64_t id : ids) texts.emplace_back(words.text(id));
  return texts;
}

}  // namespace

LearnedExample translated(Transformer<float>& model, std::span<const std::int64_t> source, std::int64_t beam,
                          const TransformerOptions& machine) {
  Packed from, to;
  from.add(source);
  DecodeOptions decoding = free_decoding();
  decoding.beam = beam;
  std::vector<std::int64_t> output = decode(model, from.batch(), decoding, machine).front();
  LearnedExample example;
  example.input = text_of(source_words(), source.subspan(1));
  example.output = text_of(target_words(), output);

  const std::vector<std::string> read = texts_of(source_words(), source);
  std::vector<std::string> made = texts_of(target_words(), output);
  made.emplace_back("<end>");
  output.insert(output.begin(), bilingual::kBegin);
  to.add(output);
  const std::vector<std::string> written = texts_of(target_words(), output);

  const TransformerConfig& config = model.config();
  const auto add = [&](const char* name, std::int64_t layer, const auto& rows, const auto& keys) {
    example.layers.push_back({std::string(name) + ' ' + std::to_string(layer), rows, keys,
                              std::vector<float>(static_cast<std::size_t>(config.heads) * rows.size() * keys.size())});
  };
  std::vector<AttentionPart> parts;
  for (std::int64_t i = 0; i < config.encoder_layers; ++i) add("encoder", i, read, read);
  for (std::int64_t i = 0; i < config.decoder_layers; ++i) add("decoder", i, written, written);
  for (std::int64_t i = 0; i < config.decoder_layers; ++i) add("cross", i, made, read);
  std::vector<AttentionRequest> requests;
  for (LearnedExample::Layer& layer : example.layers) {
    const AttentionPart part = layer.name[0] == 'e'   ? AttentionPart::encoder
                               : layer.name[0] == 'd' ? AttentionPart::decoder
                                                      : AttentionPart::cross;
    const std::int64_t number = std::stoll(layer.name.substr(layer.name.find(' ') + 1));
    requests.push_back(
        {part,
         number,
         {layer.weights.data(), {config.heads, std::ssize(layer.q_tokens), std::ssize(layer.kv_tokens)}}});
  }
  TransformerOptions options = machine;
  options.weights = requests;
  Matrix<float> logits(to.tokens(), config.classes);
  model.forward(from.batch(), to.batch(), logits, options);
  return example;
}

LearnedExample translate(Transformer<float>& model, const std::string& text, const TranslateOptions& options) {
  const TransformerConfig& config = model.config();
  if (config.kind != TransformerConfig::Kind::encoder_decoder ||
      config.source_vocab != std::vector{source_words().size()} ||
      config.target_vocab != std::vector{target_words().size()} || config.max_tokens != bilingual::kMostTokens)
    fail(ErrorCode::bad_option, std::string(kTranslateText) +
                                    ": the model's vocabularies are not those of task \"translation\"; a folder that "
                                    "was trained on that task is wanted");
  std::vector<std::int64_t> source =
      read_words(kTranslateText, "task \"translation\"", source_words(), text, bilingual::kMostTokens - 1);
  source.insert(source.begin(), options.summarise ? bilingual::kSummarise : bilingual::kTranslate);
  return translated(model, source, options.beam, options.machine);
}

}  // namespace multihead
