// SPDX-License-Identifier: Apache-2.0
// tokenizer.json of a byte-level tokenizer by pairs, held to the forms that GPT-2 and Llama 3 have.
#include <new>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "io/mapped_file.hpp"
#include "io/tokenizer_fields.hpp"
#include "multihead/model_files.hpp"

namespace multihead {

namespace {

using io::Fields;
using io::Json;
using io::Origin;
using io::unsupported;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string type_of(const Fields& fields) { return fields.text({"type"}).value_or("of no type"); }

// The parts of a Sequence, or the part itself.
std::vector<Fields> parts_of(const Fields& fields, const char* name, const char* parts) {
  const Fields outer = fields.inside(name);
  if (type_of(outer) != "Sequence") return {outer};
  const Json* const inner = outer.find({parts});
  if (!inner || !inner->is_array()) outer.refuse(parts, "must be an array of the parts");
  std::vector<Fields> all;
  for (std::size_t i = 0; i < inner->size(); ++i)
    all.emplace_back((*inner)[i], fields.origin(), std::string(name) + "." + parts + "[" + std::to_string(i) + "].");
  return all;
}

WordPattern pattern_of(const Fields& split) {
  const Origin& origin = split.origin();
  if (split.text({"behavior"}).value_or("") != "Isolated" || split.flag("invert").value_or(false))
    unsupported(origin, "its Split must have behavior Isolated and not be inverted");
  if (!split.has("pattern")) split.refuse("pattern", "is missing");
  const std::string text = split.inside("pattern").text({"Regex"}).value_or("");
  if (text == kGpt2Pattern) return WordPattern::gpt2;
  if (text == kLlama3Pattern) return WordPattern::llama3;
  unsupported(origin, "its Split has the pattern " + io::printable(text, 200) + "; it must be GPT-2's or Llama 3's");
}

void read_pre_tokenizer(const Fields& fields, BytePairModel& model) {
  constexpr const char* kRule = "it must be ByteLevel, or a Sequence of Split and ByteLevel";
  if (!fields.has("pre_tokenizer")) unsupported(fields.origin(), std::string("it has no pre_tokenizer; ") + kRule);
  const std::vector<Fields> parts = parts_of(fields, "pre_tokenizer", "pretokenizers");
  const bool split = parts.size() == 2 && type_of(parts[0]) == "Split";
  if ((parts.size() != 1 && !split) || type_of(parts.back()) != "ByteLevel")
    unsupported(fields.origin(), "its pre_tokenizer is " +
                                     io::printable(parts.size() == 1 ? type_of(parts[0]) : "another Sequence") + "; " +
                                     kRule);
  const Fields& bytes = parts.back();
  model.prefix_space = bytes.flag("add_prefix_space").value_or(true);
  const bool cuts = bytes.flag("use_regex").value_or(true);
  model.pattern = split ? pattern_of(parts[0]) : cuts ? WordPattern::gpt2 : WordPattern::none;
  if (split && (cuts || model.prefix_space))
    unsupported(fields.origin(), "its ByteLevel after a Split must have neither use_regex nor add_prefix_space");
}

void read_template(const Fields& processor, BytePairModel& model) {
  bool met = false;
  for (const io::TemplatePiece& piece : io::template_of(processor, "single")) {
    if (piece.is_text) {
      if (met || piece.id != "A") processor.refuse("single", "must have Sequence A once and no other");
      met = true;
      continue;
    }
    io::require_template_id(processor, piece.id, model.vocabulary);
    const Json& id = processor.inside("special_tokens").inside(piece.id.c_str()).find({"ids"})->front();
    (met ? model.after : model.before).push_back(id.get<std::int64_t>());
  }
  if (!met) processor.refuse("single", "must have Sequence A once and no other");
}

// A ByteLevel here moves the places of tokens alone.
void read_post_processor(const Fields& fields, BytePairModel& model) {
  if (!fields.has("post_processor")) return;
  int templates = 0;
  for (const Fields& processor : parts_of(fields, "post_processor", "processors")) {
    const std::string type = type_of(processor);
    if (type == "TemplateProcessing" && templates++ == 0)
      read_template(processor, model);
    else if (type != "ByteLevel")
      unsupported(fields.origin(), "its post_processor is " + io::printable(type) +
                                       "; it must be ByteLevel, one TemplateProcessing, or a Sequence of them");
  }
}

// "a b" or ["a", "b"].
std::pair<std::string, std::string> pair_of(const Fields& bpe, const Json& merge, const std::string& at) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (!merge.is_string()) bpe.refuse_kind(at, merge, "two tokens");
  const std::string text = merge.get<std::string>();
  const std::size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos)
    bpe.refuse(at, "is '" + io::printable(text) + "'; it must be two tokens with one space between them");
  return {text.substr(0, space), text.substr(space + 1)};
}

void read_merges(const Fields& bpe, BytePairModel& model) {
  const Json* const merges = bpe.find({"merges"});
  if (!merges) bpe.refuse("merges", "is missing");
  if (!merges->is_array()) bpe.refuse_kind("merges", *merges, "an array of pairs");
  std::unordered_map<std::string_view, std::int64_t> ids;
  ids.reserve(model.vocabulary.size());
  for (std::size_t id = 0; id < model.vocabulary.size(); ++id)
    if (!model.vocabulary[id].empty()) ids.emplace(model.vocabulary[id], static_cast<std::int64_t>(id));
  std::unordered_set<std::uint64_t> seen;
  seen.reserve(merges->size());
  model.merges.reserve(merges->size());
  for (std::size_t i = 0; i < merges->size(); ++i) {
    const std::string at = "merges[" + std::to_string(i) + "]";
    const auto pair = pair_of(bpe, (*merges)[i], at);
    const auto id = [&](const std::string& token) {
      const auto found = ids.find(token);
      if (found == ids.end()) bpe.refuse(at, "has '" + io::printable(token) + "', which the vocabulary lacks");
      return found->second;
    };
    const std::int64_t first = id(pair.first), second = id(pair.second), merged = id(pair.first + pair.second);
    if (!seen.insert(static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint64_t>(second)).second)
      bpe.refuse(at, "stands there already; pairs must differ");
    model.merges.push_back({first, second, merged});
  }
}

void check_model(const Fields& bpe) {
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!bpe.text({name}).value_or("").empty())
      unsupported(bpe.origin(),
                  std::string("its ") + name + " is '" + io::printable(*bpe.text({name})) + "'; there must be none");
  if (bpe.real({"dropout"}, 0, 1).value_or(0) > 0)
    unsupported(bpe.origin(), "its model has dropout; it must have none");
  if (bpe.flag("byte_fallback").value_or(false))
    unsupported(bpe.origin(), "its byte_fallback is true; a byte-level vocabulary has a token for each byte");
}

BytePairModel tokenizer_of(const Fields& fields) {
  BytePairModel model;
  if (!fields.has("model")) fields.refuse("model", "is missing");
  const Fields bpe = fields.inside("model");
  const std::string type = bpe.text({"type"}).value_or(bpe.has("merges") ? "BPE" : "of no type");
  if (type != "BPE") unsupported(fields.origin(), "its model is " + io::printable(type) + "; it must be BPE");
  if (fields.has("normalizer"))
    unsupported(fields.origin(),
                "its normalizer is " + io::printable(type_of(fields.inside("normalizer"))) + "; there must be none");
  io::part(fields, "decoder", "ByteLevel");
  check_model(bpe);
  read_pre_tokenizer(fields, model);
  model.whole_words = bpe.flag("ignore_merges").value_or(false);
  model.vocabulary = io::read_vocabulary(bpe);
  const std::size_t tokens = model.vocabulary.size();
  read_merges(bpe, model);
  const std::vector<std::int64_t> continued = io::read_added(fields, model.vocabulary, model.added);
  read_post_processor(fields, model);
  // An added token is found in a text as a whole, and is no piece of a word.
  for (std::int64_t id : continued) model.vocabulary[static_cast<std::size_t>(id)].clear();
  model.vocabulary.resize(tokens);
  return model;
}

BytePairModel parse(std::span<const std::byte> text, const Origin& origin) try {
  const Json json = io::parse_json_file(text, origin);
  return tokenizer_of(Fields(json, origin));
} catch (const std::bad_alloc&) {
  origin.out_of_memory(text.size());
}

}  // namespace

BytePairModel read_byte_pair(const std::filesystem::path& folder) {
  return io::with_file("read_byte_pair", folder / "tokenizer.json", parse);
}

BytePairModel parse_byte_pair_json(std::span<const std::byte> text, const std::string& name) {
  return parse(text, Origin{"parse_byte_pair_json", name});
}

}  // namespace multihead
