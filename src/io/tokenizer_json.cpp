// SPDX-License-Identifier: Apache-2.0
// tokenizer.json of a WordPiece tokenizer, held to BERT's form.
#include <algorithm>
#include <new>
#include <string_view>
#include <unordered_set>

#include "io/json_fields.hpp"
#include "io/wordpiece_files.hpp"
#include "multihead/model_files.hpp"

namespace multihead {

namespace {

using io::Fields;
using io::Json;
using io::Origin;

constexpr std::int64_t kMostLetters = std::int64_t{1} << 40;
constexpr std::int64_t kMostId = (std::int64_t{1} << 32) - 1;

[[noreturn]] void unsupported(const Origin& origin, const std::string& rule) {
  throw Error(ErrorCode::unsupported, std::string(origin.function) + ": " + std::string(origin.file) + ": " + rule);
}

// The part of the tokenizer that name stands for, of the one type that is known.
Fields part(const Fields& fields, const char* name, std::string_view type) {
  if (!fields.has(name))
    unsupported(fields.origin(), std::string("it has no ") + name + "; it must have " + std::string(type));
  Fields inside = fields.inside(name);
  const std::string found = inside.text({"type"}).value_or("of no type");
  if (found != type)
    unsupported(fields.origin(),
                std::string("its ") + name + " is " + io::printable(found) + "; it must be " + std::string(type));
  return inside;
}

// Ids leave room for those that added tokens fill, and for a few that nothing does, but not for a hostile number.
std::int64_t most_id(std::size_t tokens) { return static_cast<std::int64_t>(8 * tokens) + 1024; }

void place(WordPieceModel& model, std::int64_t id, const std::string& token, const Fields& fields) {
  const auto at = static_cast<std::size_t>(id);
  if (at >= model.vocabulary.size()) model.vocabulary.resize(at + 1);
  if (!model.vocabulary[at].empty())
    fields.refuse(io::printable(token), "has id " + std::to_string(id) + ", as '" +
                                            io::printable(model.vocabulary[at]) + "' has; ids must differ");
  model.vocabulary[at] = token;
}

void read_vocabulary(const Fields& fields, WordPieceModel& model) {
  if (!fields.has("vocab")) fields.refuse("vocab", "is missing");
  const Fields vocabulary = fields.inside("vocab");
  const std::size_t count = vocabulary.json().size();
  if (count == 0) fields.refuse("vocab", "is empty; it must have a token");
  model.vocabulary.reserve(count);
  for (const auto& [token, id] : vocabulary.json().items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > static_cast<std::uint64_t>(most_id(count)))
      vocabulary.refuse_kind(io::printable(token), id, "an id from 0 to " + std::to_string(most_id(count)));
    if (token.empty()) vocabulary.refuse("", "is a token without a letter; it must have one");
    place(model, id.get<std::int64_t>(), token, vocabulary);
  }
}

AddedToken added_of(const Fields& fields) {
  const auto flag = [&](const char* name) { return fields.required(name, fields.flag(name)); };
  AddedToken token;
  token.content = fields.required("content", fields.text({"content"}));
  if (token.content.empty()) fields.refuse("content", "is empty; it must be a token");
  token.id = fields.required("id", fields.whole({"id"}, 0, kMostId));
  token.special = flag("special"), token.single_word = flag("single_word");
  token.lstrip = flag("lstrip"), token.rstrip = flag("rstrip");
  token.normalized = flag("normalized");
  return token;
}

// Tokens of the vocabulary, and others that continue it: Hugging Face gives those the next ids whatever the file says.
// While the file is read they stand in the vocabulary; these ids are returned.
std::vector<std::int64_t> read_added(const Fields& fields, WordPieceModel& model) {
  std::vector<std::int64_t> continued;
  const Json* const added = fields.find({"added_tokens"});
  if (!added) return continued;
  if (!added->is_array()) fields.refuse_kind("added_tokens", *added, "an array");
  const auto known = std::count_if(model.vocabulary.begin(), model.vocabulary.end(),
                                   [](const std::string& token) { return !token.empty(); });
  std::int64_t next = static_cast<std::int64_t>(known);
  for (std::size_t i = 0; i < added->size(); ++i) {
    const Fields token((*added)[i], fields.origin(), "added_tokens[" + std::to_string(i) + "].");
    AddedToken read = added_of(token);
    const auto at = static_cast<std::size_t>(read.id);
    if (at >= model.vocabulary.size() || model.vocabulary[at].empty()) {
      if (read.id != next)
        token.refuse("id", "is " + std::to_string(read.id) + "; of a token that the vocabulary lacks it must be " +
                               std::to_string(next) + ", the next");
      place(model, next, read.content, token);
      continued.push_back(next++);
    } else if (model.vocabulary[at] != read.content) {
      token.refuse("id", "is " + std::to_string(read.id) + ", which is that of '" +
                             io::printable(model.vocabulary[at]) + "'; ids must differ");
    }
    model.added.push_back(std::move(read));
  }
  const auto by_id = [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; };
  std::sort(model.added.begin(), model.added.end(), by_id);
  for (std::size_t i = 1; i < model.added.size(); ++i)
    if (model.added[i - 1].id == model.added[i].id)
      fields.refuse("added_tokens", "has id " + std::to_string(model.added[i].id) + " twice; ids must differ");
  if (continued.empty()) return continued;  // the texts of the vocabulary alone differ: they were keys
  std::unordered_set<std::string_view> seen;
  seen.reserve(model.vocabulary.size());
  for (const std::string& token : model.vocabulary)
    if (!token.empty() && !seen.insert(token).second)
      fields.refuse("added_tokens", "gives token '" + io::printable(token) + "' a second id; it must have one");
  return continued;
}

// A piece of a template: a text, "A" or "B", or a special token.
struct Piece {
  bool is_text;
  std::string id;
  std::int64_t type;
  bool operator==(const Piece&) const = default;
};

std::vector<Piece> template_of(const Fields& processor, const char* name) {
  const Json* const pieces = processor.find({name});
  if (!pieces) processor.refuse(name, "is missing");
  if (!pieces->is_array()) processor.refuse_kind(name, *pieces, "an array of pieces");
  std::vector<Piece> read;
  for (std::size_t i = 0; i < pieces->size(); ++i) {
    const std::string at = std::string(name) + "[" + std::to_string(i) + "]";
    const Fields piece((*pieces)[i], processor.origin(), "post_processor." + at + ".");
    const bool is_text = piece.has("Sequence");
    if (piece.json().size() != 1 || (!is_text && !piece.has("SpecialToken")))
      processor.refuse(at, "must be one Sequence or one SpecialToken");
    const Fields inside = piece.inside(is_text ? "Sequence" : "SpecialToken");
    const std::string id = inside.required("id", inside.text({"id"}));
    read.push_back({is_text, id, inside.required("type_id", inside.whole({"type_id"}, 0, kMostId))});
  }
  return read;
}

// The token's one id in the file, beside its name, must be the one in the vocabulary: Hugging Face takes the file's.
void require_id(const Fields& fields, const std::string& field, const Json& id, const std::string& token,
                const WordPieceModel& model) {
  const auto size = static_cast<std::uint64_t>(model.vocabulary.size());
  if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= size || model.vocabulary[id.get<std::size_t>()] != token)
    fields.refuse_kind(field, id, "the id of '" + io::printable(token) + "' in the vocabulary");
}

// {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
void read_bert(const Fields& processor, WordPieceModel& model) {
  const auto name = [&](const char* field) {
    const Json* const pair = processor.find({field});
    if (!pair || !pair->is_array() || pair->size() != 2 || !(*pair)[0].is_string())
      processor.refuse(field, "must be a token and its id");
    std::string token = (*pair)[0].get<std::string>();
    require_id(processor, field, (*pair)[1], token, model);
    return token;
  };
  model.classify = name("cls"), model.separate = name("sep");
}

void read_template(const Fields& processor, WordPieceModel& model) {
  const std::vector<Piece> single = template_of(processor, "single"), pair = template_of(processor, "pair");
  if (single.size() == 3) model.classify = single[0].id, model.separate = single[2].id;
  const Piece first{false, model.classify, 0}, a{true, "A", 0}, b{true, "B", 1};
  const Piece end_a{false, model.separate, 0}, end_b{false, model.separate, 1};
  if (single != std::vector{first, a, end_a} || pair != std::vector{first, a, end_a, b, end_b})
    unsupported(processor.origin(),
                "its post_processor puts other pieces together than [CLS] A [SEP] of type 0, then B [SEP] of type 1");
  if (!processor.has("special_tokens")) processor.refuse("special_tokens", "is missing");
  const Fields tokens = processor.inside("special_tokens");
  for (const std::string& name : {model.classify, model.separate}) {
    if (!tokens.has(name.c_str())) tokens.refuse(io::printable(name), "is missing");
    const Fields token = tokens.inside(name.c_str());
    const Json* const ids = token.find({"ids"});
    if (!ids || !ids->is_array() || ids->size() != 1) token.refuse("ids", "must be an array of one id");
    require_id(token, "ids", ids->front(), name, model);
  }
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
  read_vocabulary(wordpiece, model);
  const std::size_t words = model.vocabulary.size();
  const std::vector<std::int64_t> continued = read_added(fields, model);
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
