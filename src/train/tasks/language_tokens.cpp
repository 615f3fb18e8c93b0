// SPDX-License-Identifier: Apache-2.0
// Words of the stories to tokens: pairs are merged in the tokenizer's order, within a word and the blank before it.
#include "train/tasks/language_tokens.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>

#include "core/validate.hpp"
#include "multihead/model_files.hpp"

namespace multihead::language {

namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_mark(char c) { return c == '.' || c == ','; }

// The letter that a byte-level vocabulary writes for a blank.
constexpr std::string_view kBlank = "\xc4\xa0";

class Tokens {
 public:
  Tokens() {
    const std::string_view json = tokenizer_json();
    model_ = parse_byte_pair_json(std::as_bytes(std::span(json)), "tokenizer.json");
    for (std::size_t id = 0; id < model_.vocabulary.size(); ++id) {
      std::string text = model_.vocabulary[id];
      for (std::size_t at = 0; (at = text.find(kBlank, at)) != std::string::npos; ++at) text.replace(at, 2, " ");
      if (text.size() == 1) bytes_[static_cast<unsigned char>(text[0])] = static_cast<std::int64_t>(id);
      texts_.push_back(std::move(text));
    }
    for (std::size_t i = 0; i < model_.merges.size(); ++i)
      ranks_[{model_.merges[i].first, model_.merges[i].second}] = i;
  }

  const std::vector<std::string>& texts() const { return texts_; }

  // One word, with the blank before it.
  void add(std::string_view word, std::vector<std::int64_t>& ids) const {
    std::vector<std::int64_t> parts;
    for (const char c : word) parts.push_back(bytes_[static_cast<unsigned char>(c)]);
    while (true) {
      std::size_t best = model_.merges.size();
      for (std::size_t i = 0; i + 1 < parts.size(); ++i)
        if (const auto found = ranks_.find({parts[i], parts[i + 1]}); found != ranks_.end())
          best = std::min(best, found->second);
      if (best == model_.merges.size()) break;
      const BytePairModel::Merge& merge = model_.merges[best];
      for (std::size_t i = 0; i + 1 < parts.size(); ++i)
        if (parts[i] == merge.first && parts[i + 1] == merge.second) {
          parts[i] = merge.merged;
          parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
    }
    ids.insert(ids.end(), parts.begin(), parts.end());
  }

 private:
  BytePairModel model_;
  std::vector<std::string> texts_;
  std::array<std::int64_t, 256> bytes_{};
  std::map<std::pair<std::int64_t, std::int64_t>, std::size_t> ranks_;
};

const Tokens& tokens() {
  static const Tokens all;
  return all;
}

}  // namespace

std::int64_t vocabulary() { return std::ssize(tokens().texts()); }

std::string_view text_of_token(std::int64_t id) { return tokens().texts()[static_cast<std::size_t>(id)]; }

std::vector<std::int64_t> encode(std::string_view text) {
  std::vector<std::int64_t> ids;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin + (text[begin] == ' ' ? 1 : 0);
    const auto kind = end < text.size() && is_letter(text[end]) ? is_letter : is_mark;
    const std::size_t first = end;
    while (end < text.size() && kind(text[end])) ++end;
    if (end == first)
      fail(ErrorCode::bad_option,
           "language: a text has letters, full stops and commas, with single blanks between; byte " +
               std::to_string(first) + " is something else, or ends it after a blank");
    tokens().add(text.substr(begin, end - begin), ids);
    begin = end;
  }
  return ids;
}

std::string decode(std::span<const std::int64_t> ids) {
  std::string text;
  for (const std::int64_t id : ids) text += text_of_token(id);
  return text;
}

}  // namespace multihead::language
