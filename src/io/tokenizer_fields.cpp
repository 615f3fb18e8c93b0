// SPDX-License-Identifier: Apache-2.0
// The parts that tokenizers of every kind write alike, each held to its form.
#include "io/tokenizer_fields.hpp"

#include <algorithm>
#include <unordered_set>

namespace multihead::io {

namespace {

// Ids leave room for those that added tokens fill, and for a few that nothing does, but not for a hostile number.
std::int64_t most_id(std::size_t tokens) { return static_cast<std::int64_t>(8 * tokens) + 1024; }

void place(std::vector<std::string>& vocabulary, std::int64_t id, const std::string& token, const Fields& fields) {
  const auto at = static_cast<std::size_t>(id);
  if (at >= vocabulary.size()) vocabulary.resize(at + 1);
  if (!vocabulary[at].empty())
    fields.refuse(printable(token),
                  "has id " + std::to_string(id) + ", as '" + printable(vocabulary[at]) + "' has; ids must differ");
  vocabulary[at] = token;
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

}  // namespace

void unsupported(const Origin& origin, const std::string& rule) {
  throw Error(ErrorCode::unsupported, std::string(origin.function) + ": " + std::string(origin.file) + ": " + rule);
}

Fields part(const Fields& fields, const char* name, std::string_view type) {
  if (!fields.has(name))
    unsupported(fields.origin(), std::string("it has no ") + name + "; it must have " + std::string(type));
  Fields inside = fields.inside(name);
  const std::string found = inside.text({"type"}).value_or("of no type");
  if (found != type)
    unsupported(fields.origin(),
                std::string("its ") + name + " is " + printable(found) + "; it must be " + std::string(type));
  return inside;
}

std::vector<std::string> read_vocabulary(const Fields& fields) {
  if (!fields.has("vocab")) fields.refuse("vocab", "is missing");
  const Fields tokens = fields.inside("vocab");
  const std::size_t count = tokens.json().size();
  if (count == 0) fields.refuse("vocab", "is empty; it must have a token");
  std::vector<std::string> vocabulary;
  vocabulary.reserve(count);
  for (const auto& [token, id] : tokens.json().items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > static_cast<std::uint64_t>(most_id(count)))
      tokens.refuse_kind(printable(token), id, "an id from 0 to " + std::to_string(most_id(count)));
    if (token.empty()) tokens.refuse("", "is a token without a letter; it must have one");
    place(vocabulary, id.get<std::int64_t>(), token, tokens);
  }
  return vocabulary;
}

std::vector<std::int64_t> read_added(const Fields& fields, std::vector<std::string>& vocabulary,
                                     std::vector<AddedToken>& list) {
  std::vector<std::int64_t> continued;
  const Json* const added = fields.find({"added_tokens"});
  if (!added) return continued;
  if (!added->is_array()) fields.refuse_kind("added_tokens", *added, "an array");
  const auto known =
      std::count_if(vocabulary.begin(), vocabulary.end(), [](const std::string& token) { return !token.empty(); });
  std::int64_t next = static_cast<std::int64_t>(known);
  for (std::size_t i = 0; i < added->size(); ++i) {
    const Fields token((*added)[i], fields.origin(), "added_tokens[" + std::to_string(i) + "].");
    AddedToken read = added_of(token);
    const auto at = static_cast<std::size_t>(read.id);
    if (at >= vocabulary.size() || vocabulary[at].empty()) {
      if (read.id != next)
        token.refuse("id", "is " + std::to_string(read.id) + "; of a token that the vocabulary lacks it must be " +
                               std::to_string(next) + ", the next");
      place(vocabulary, next, read.content, token);
      continued.push_back(next++);
    } else if (vocabulary[at] != read.content) {
      token.refuse("id", "is " + std::to_string(read.id) + ", which is that of '" + printable(vocabulary[at]) +
                             "'; ids must differ");
    }
    list.push_back(std::move(read));
  }
  const auto by_id = [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; };
  std::sort(list.begin(), list.end(), by_id);
  for (std::size_t i = 1; i < list.size(); ++i)
    if (list[i - 1].id == list[i].id)
      fields.refuse("added_tokens", "has id " + std::to_string(list[i].id) + " twice; ids must differ");
  if (continued.empty()) return continued;  // the texts of the vocabulary alone differ: they were keys
  std::unordered_set<std::string_view> seen;
  seen.reserve(vocabulary.size());
  for (const std::string& token : vocabulary)
    if (!token.empty() && !seen.insert(token).second)
      fields.refuse("added_tokens", "gives token '" + printable(token) + "' a second id; it must have one");
  return continued;
}

std::vector<TemplatePiece> template_of(const Fields& processor, const char* name) {
  const Json* const pieces = processor.find({name});
  if (!pieces) processor.refuse(name, "is missing");
  if (!pieces->is_array()) processor.refuse_kind(name, *pieces, "an array of pieces");
  std::vector<TemplatePiece> read;
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

void require_id(const Fields& fields, const std::string& field, const Json& id, const std::string& token,
                const std::vector<std::string>& vocabulary) {
  const auto size = static_cast<std::uint64_t>(vocabulary.size());
  if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= size || vocabulary[id.get<std::size_t>()] != token)
    fields.refuse_kind(field, id, "the id of '" + printable(token) + "' in the vocabulary");
}

void require_template_id(const Fields& processor, const std::string& token,
                         const std::vector<std::string>& vocabulary) {
  if (!processor.has("special_tokens")) processor.refuse("special_tokens", "is missing");
  const Fields tokens = processor.inside("special_tokens");
  if (!tokens.has(token.c_str())) tokens.refuse(printable(token), "is missing");
  const Fields entry = tokens.inside(token.c_str());
  const Json* const ids = entry.find({"ids"});
  if (!ids || !ids->is_array() || ids->size() != 1) entry.refuse("ids", "must be an array of one id");
  require_id(entry, "ids", ids->front(), token, vocabulary);
}

}  // namespace multihead::io
