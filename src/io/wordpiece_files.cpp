// SPDX-License-Identifier: Apache-2.0
// A WordPiece tokenizer from its folder: tokenizer.json, or vocab.txt with tokenizer_config.json beside it.
#include "io/wordpiece_files.hpp"

#include <algorithm>
#include <new>
#include <string_view>
#include <unordered_set>

#include "io/json_fields.hpp"
#include "io/mapped_file.hpp"

namespace multihead {

namespace {

using io::Fields;
using io::Json;
using io::Origin;

constexpr const char* kName = "read_wordpiece";

// The tokens that are special wherever they stand in a vocabulary, as BertTokenizer has it.
void add_special(WordPieceModel& model, const std::vector<std::string>& names) {
  for (std::size_t id = 0; id < model.vocabulary.size(); ++id)
    if (std::find(names.begin(), names.end(), model.vocabulary[id]) != names.end())
      model.added.push_back({model.vocabulary[id], static_cast<std::int64_t>(id), true, false, false, false, false});
}

std::vector<std::string> read_lines(std::span<const std::byte> text, const Origin& origin) {
  std::string_view rest(reinterpret_cast<const char*>(text.data()), text.size());
  if (rest.starts_with("\xEF\xBB\xBF")) origin.malformed(0, "a byte order mark; the first token must begin here");
  const bool valid = io::is_utf8(rest);
  std::vector<std::string> tokens;
  tokens.reserve(static_cast<std::size_t>(std::count(rest.begin(), rest.end(), '\n')) + 1);
  std::unordered_set<std::string_view> seen;
  seen.reserve(tokens.capacity());
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    line.remove_suffix(line.size() - (line.find_last_not_of(" \t\r\f\v") + 1));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto refuse = [&](const std::string& rule) {
      origin.malformed("line " + std::to_string(tokens.size() + 1) + ": " + rule);
    };
    if (!valid && !io::is_utf8(line))
      refuse(std::string("'") + io::printable(line) + "' is not UTF-8; a token must be");
    if (line.empty()) refuse("it is empty; each line must be a token");
    if (!seen.insert(line).second)
      refuse("token '" + io::printable(line) + "' stands there already; tokens must differ");
    tokens.emplace_back(line);
  }
  if (tokens.empty()) origin.malformed("it holds no token; it must hold one a line");
  return tokens;
}

// A special token, written as itself or as an object that describes it.
void read_special(const Fields& fields, const char* name, std::string& token) {
  const Json* const value = fields.find({name});
  if (!value) return;
  if (value->is_object())
    token = fields.inside(name).required("content", fields.inside(name).text({"content"}));
  else
    token = *fields.text({name});
}

// Those whose tokenizer is BERT's; that of others reads a vocab.txt otherwise.
constexpr std::string_view kClasses[] = {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer",
                                         "MobileBertTokenizer"};

void check_class(const Fields& fields) {
  const std::string given = fields.text({"tokenizer_class"}).value_or("BertTokenizer");
  const std::string_view plain = std::string_view(given).substr(0, given.size() - (given.ends_with("Fast") ? 4 : 0));
  if (std::find(std::begin(kClasses), std::end(kClasses), plain) == std::end(kClasses))
    throw Error(ErrorCode::unsupported, std::string(fields.origin().function) + ": " +
                                            std::string(fields.origin().file) + ": field 'tokenizer_class' is '" +
                                            io::printable(given) + "'; it must be one of BERT's");
}

void read_tokenizer_config(const Fields& fields, WordPieceModel& model) {
  check_class(fields);
  model.lowercase = fields.flag("do_lower_case").value_or(model.lowercase);
  model.strip_accents = fields.flag("strip_accents");
  model.chinese_chars = fields.flag("tokenize_chinese_chars").value_or(model.chinese_chars);
  std::string pad = "[PAD]", mask = "[MASK]";
  read_special(fields, "unk_token", model.unknown);
  read_special(fields, "cls_token", model.classify);
  read_special(fields, "sep_token", model.separate);
  read_special(fields, "pad_token", pad);
  read_special(fields, "mask_token", mask);
  model.added.clear();
  add_special(model, {pad, model.unknown, model.classify, model.separate, mask});
}

}  // namespace

WordPieceModel io::parse_lines(std::span<const std::byte> text, const Origin& origin) try {
  WordPieceModel model;
  model.vocabulary = read_lines(text, origin);
  add_special(model, {"[PAD]", model.unknown, model.classify, model.separate, "[MASK]"});
  return model;
} catch (const std::bad_alloc&) {
  origin.out_of_memory(text.size());
}

WordPieceModel read_wordpiece(const std::filesystem::path& folder) {
  const auto tokenizer = folder / "tokenizer.json", vocabulary = folder / "vocab.txt";
  const auto settings = folder / "tokenizer_config.json";
  if (io::is_there(tokenizer)) return io::with_file(kName, tokenizer, io::parse_tokenizer);
  if (!io::is_there(vocabulary)) {
    const std::string name = folder.string();
    Origin{kName, name}.missing("it holds neither tokenizer.json nor vocab.txt; it must hold one");
  }
  WordPieceModel model = io::with_file(kName, vocabulary, io::parse_lines);
  if (io::is_there(settings))
    io::with_file(kName, settings, [&](std::span<const std::byte> text, const Origin& origin) {
      const Json json = io::parse_json_file(text, origin);
      read_tokenizer_config(Fields(json, origin), model);
    });
  return model;
}

WordPieceModel parse_vocabulary(std::span<const std::byte> text, const std::string& name) {
  return io::parse_lines(text, Origin{"parse_vocabulary", name});
}

}  // namespace multihead
