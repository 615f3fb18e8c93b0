// SPDX-License-Identifier: Apache-2.0
// tokenizer.json of a WordPiece tokenizer, held to BERT's form.
#include <new>
#include <string>
#include <vector>

#include "io/tokenizer_fields.hpp"
#include "io/wordpiece_files.hpp"
#include "multihead/model_files.hpp"

namespace multihead {

namespace {

using io::Fields;
using io::Json;
using io::Origin;
using io::part;
using io::unsupported;
using Piece = io::TemplatePiece;

constexpr std::int64_t kMostLetters = std::int64_t{1} << 40;

// {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
void read_bert(const Fields& processor, WordPieceModel& model) {
  const auto name = [&](const char* field) {
    const Json* const pair = processor.find({field});
    if (!pair || !pair->is_array() || pair->size() != 2 || !(*pair)[0].is_string())
      processor.refuse(field, "must be a token and its id");
    std::string token = (*pair)[0].get<std::string>();
    io::require_id(processor, field, (*pair)[1], token, model.vocabulary);
    return token;
  };
  model.classify = name("cls"), model.separate = name("sep");
}

void read_template(const Fields& processor, WordPieceModel& model) {
  const std::vector<Piece> single = io::template_of(processor, "single"), pair = io::template_of(processor, "pair");
  if (single.size() == 3) model.classify = single[0].id, model.separate = single[2].id;
  const Piece first{false, model.classify, 0}, a{true, "A", 0}, b{true, "B", 1};
  const Piece end_a{false, model.separate, 0}, end_b{false, model.separate, 1};
  if (single != std::vector{first, a, end_a} || pair != std::vector{first, a, end_a, b, end_b})
    unsupported(processor.origin(),
                "its post_processor puts other pieces together than [CLS] A [SEP] of type 0, then B [SEP] of type 1");
  for (const std::string& name : {model.classify, model.separate})
    io::require_template_id(processor, name, model.vocabulary);
}

// The names of the tokens around texts; [CLS] A [SEP] and [CLS] A [SEP] B [SEP] is the only form that is known.
void read_processor(const Fields& fields, WordPieceModel& model) {
  constexpr const char* kRule = "it must have TemplateProcessing or BertProcessing";
  if (!fields.has("post_processor")) unsupported(fields.origin(), std::string("it has no post_processor; ") + kRule);
  const Fields processor = fields.inside("post_processor");
  const std::string type = processor.text({"type"}).value_or("of no type");
  if (type == "BertProcessing") return read_bert(processor, model);
  if (type == "TemplateProcessing") return read_template(processor, model);
  unsupported(fields.origin(), "its post_processor is " + io::printable(type) + "; " + kRule);
}

WordPieceModel tokenizer_of(const Fields& fields) {
  WordPieceModel model;
  // Older files do not name the model's type.
  if (!fields.has("model")) fields.refuse("model", "is missing");
  const Fields wordpiece = fields.inside("model");
  const std::string type = wordpiece.text({"type"}).value_or(
      wordpiece.has("continuing_subword_prefix") && wordpiece.has("max_input_chars_per_word") ? "WordPiece"
                                                                                              : "of no type");
  if (type != "WordPiece")
    unsupported(fields.origin(), "its model is " + io::printable(type) + "; it must be WordPiece");
  const Fields normalizer = part(fields, "normalizer", "BertNormalizer");
  part(fields, "pre_tokenizer", "BertPreTokenizer");
  const auto text = [&](const char* name) { return wordpiece.required(name, wordpiece.text({name})); };
  const auto flag = [&](const char* name) { return normalizer.required(name, normalizer.flag(name)); };
  model.unknown = text("unk_token");
  model.continuing = text("continuing_subword_prefix");
  model.max_letters =
      wordpiece.required("max_input_chars_per_word", wordpiece.whole({"max_input_chars_per_word"}, 0, kMostLetters));
  model.clean_text = flag("clean_text");
  model.chinese_chars = flag("handle_chinese_chars");
  model.lowercase = flag("lowercase");
  model.strip_accents = normalizer.flag("strip_accents");
  model.vocabulary = io::read_vocabulary(wordpiece);
  const std::size_t words = model.vocabulary.size();
  const std::vector<std::int64_t> continued = io::read_added(fields, model.vocabulary, model.added);
  read_processor(fields, model);
  // An added token is found in a text as a whole, and is no piece of a word.
  for (std::int64_t id : continued) model.vocabulary[static_cast<std::size_t>(id)].clear();
  model.vocabulary.resize(words);
  return model;
}

}  // namespace

WordPieceModel io::parse_tokenizer(std::span<const std::byte> text, const Origin& origin) try {
  const Json json = io::parse_json_file(text, origin);
  return tokenizer_of(Fields(json, origin));
} catch (const std::bad_alloc&) {
  origin.out_of_memory(text.size());
}

WordPieceModel parse_tokenizer_json(std::span<const std::byte> text, const std::string& name) {
  return parse_tokenizer(text, Origin{"parse_tokenizer_json", name});
}

}  // namespace multihead
