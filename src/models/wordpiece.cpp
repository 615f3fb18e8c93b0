// SPDX-License-Identifier: Apache-2.0
// WordPiece: added tokens out of the text, the rest normalized, split into words, and the words cut into tokens.
#include "multihead/wordpiece.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "models/wordpiece_added.hpp"
#include "models/wordpiece_normalize.hpp"
#include "models/wordpiece_unicode.hpp"
#include "models/wordpiece_vocabulary.hpp"
#include "multihead/error.hpp"

namespace multihead {
namespace {

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::bad_option, "WordPiece: " + what); }

std::string in_quotes(std::string_view text) {
  std::string quoted(1, '"');
  quoted.append(text).push_back('"');
  return quoted;
}

std::size_t room(std::optional<std::int64_t> max_tokens, std::int64_t least) {
  if (!max_tokens) return kAll;
  if (*max_tokens < least)
    refuse("max_tokens is " + std::to_string(*max_tokens) + "; it must be at least " + std::to_string(least) +
           ", the number of tokens that are added");
  return static_cast<std::size_t>(*max_tokens);
}

void shorten(std::vector<Token>& tokens, std::size_t count) {
  if (tokens.size() > count) tokens.resize(count);
}

}  // namespace

struct WordPiece::State {
  explicit State(const WordPieceModel& model);

  void add(const AddedToken& token, std::string_view text);
  std::vector<Token> read(std::string_view text, std::int64_t type) const;
  std::int64_t find(std::string_view text) const noexcept;
  std::int64_t required(std::string_view text, const char* role) const;

  std::string buffer;                   // all texts, one after the other
  std::vector<std::string_view> texts;  // by id
  std::vector<bool> special;            // by id
  TokenTable words, tails, extra;       // tokens, those that go on inside a word, added tokens
  AddedTokens raw, normalized;          // sought before and after normalization
  NormalizeOptions options;
  std::size_t max_letters;
  std::int64_t unknown = -1, classify = -1, separate = -1;
};

WordPiece::State::State(const WordPieceModel& model)
    : words(model.vocabulary.size()),
      tails(model.vocabulary.size()),
      extra(model.added.size()),
      options{model.clean_text, model.chinese_chars, model.strip_accents.value_or(model.lowercase), model.lowercase},
      max_letters(static_cast<std::size_t>(model.max_letters)) {
  if (model.max_letters < 0)
    refuse("max_letters is " + std::to_string(model.max_letters) + "; it must not be negative");
  const std::size_t listed = model.vocabulary.size();
  texts.resize(listed);
  std::size_t bytes = 0;
  for (const std::string& text : model.vocabulary) bytes += text.size();
  for (const AddedToken& token : model.added) bytes += token.content.size();
  buffer.reserve(bytes);  // views of it stay good
  const auto keep = [&](const std::string& text) {
    const std::size_t begin = buffer.size();
    buffer += text;
    return std::string_view(buffer).substr(begin);
  };
  for (std::size_t id = 0; id < listed; ++id) {
    if (model.vocabulary[id].empty()) continue;
    const std::string_view text = texts[id] = keep(model.vocabulary[id]);
    if (!words.insert(text, static_cast<std::int64_t>(id)))
      refuse("the vocabulary has " + in_quotes(text) + " twice, with the ids " + std::to_string(words.find(text)) +
             " and " + std::to_string(id));
    if (text.size() > model.continuing.size() && text.starts_with(model.continuing))
      tails.insert(text.substr(model.continuing.size()), static_cast<std::int64_t>(id));
  }
  unknown = words.find(model.unknown);
  if (unknown < 0) refuse("the vocabulary has no unknown token " + in_quotes(model.unknown));
  special.resize(listed + model.added.size());
  for (const AddedToken& token : model.added) add(token, keep(token.content));
  classify = required(model.classify, "classify");
  separate = required(model.separate, "separate");
  for (std::int64_t id : {unknown, classify, separate}) special[static_cast<std::size_t>(id)] = true;
}

void WordPiece::State::add(const AddedToken& token, std::string_view text) {
  const std::string name = "the added token " + in_quotes(text) + " with the id " + std::to_string(token.id);
  if (text.empty()) refuse(name + " is empty");
  const std::int64_t known = words.find(text), next = static_cast<std::int64_t>(texts.size());
  if (!extra.insert(text, token.id)) refuse(name + " stands twice among the added tokens");
  if (known >= 0 && token.id != known) refuse(name + ": the vocabulary has it with the id " + std::to_string(known));
  if (known < 0 && token.id != next) refuse(name + ": the next free id is " + std::to_string(next));
  if (known < 0) texts.push_back(text);
  const std::u32string pattern = token.normalized ? normalize(decode(text), options).codes : decode_all(text);
  if (!(token.normalized ? normalized : raw).insert(pattern, token))
    refuse(name + ": normalization leaves nothing of it, or the same as of another one");
  special[static_cast<std::size_t>(token.id)] = token.special;
}

std::int64_t WordPiece::State::find(std::string_view text) const noexcept {
  const std::int64_t id = words.find(text);
  return id >= 0 ? id : extra.find(text);
}

std::int64_t WordPiece::State::required(std::string_view text, const char* role) const {
  const std::int64_t id = find(text);
  if (id < 0) refuse("the vocabulary has no token " + in_quotes(text) + ", which is to " + role);
  return id;
}

namespace {

// What reading one text works with.
class Reader {
 public:
  Reader(const WordPiece::State& state, std::int64_t type)
      : state_(state), type_(type), cutter_(state.words, state.tails) {}

  std::vector<Token> run(std::string_view text) {
    const Letters all = decode(text);
    state_.raw.split(
        all.codes, [&](std::size_t begin, std::size_t end) { normal(normalize(all.part(begin, end), state_.options)); },
        [&](std::size_t begin, std::size_t end, std::int64_t id) { put(all, begin, end, id); });
    return std::move(tokens_);
  }

 private:
  void normal(const Letters& part) {
    state_.normalized.split(
        part.codes, [&](std::size_t begin, std::size_t end) { words(part, begin, end); },
        [&](std::size_t begin, std::size_t end, std::int64_t id) { put(part, begin, end, id); });
  }

  // Words end at white space; a punctuation mark is one by itself.
  void words(const Letters& from, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const bool mark = is_punctuation(from.codes[i]);
      if (!mark && !is_space(from.codes[i])) continue;
      if (begin < i) word(from, begin, i);
      if (mark) word(from, i, i + 1);
      begin = i + 1;
    }
    if (begin < end) word(from, begin, end);
  }

  void word(const Letters& from, std::size_t begin, std::size_t end) {
    const std::size_t count = end - begin;
    if (count <= state_.max_letters && cutter_.cut(std::u32string_view(from.codes).substr(begin, count), pieces_))
      for (const Piece& piece : pieces_) put(from, begin + piece.begin, begin + piece.end, piece.id);
    else
      put(from, begin, end, state_.unknown);
  }

  void put(const Letters& from, std::size_t begin, std::size_t end, std::int64_t id) {
    tokens_.push_back({id, from.places[begin].begin, from.places[end - 1].end, type_});
  }

  const WordPiece::State& state_;
  const std::int64_t type_;
  WordCutter cutter_;
  std::vector<Piece> pieces_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> WordPiece::State::read(std::string_view text, std::int64_t type) const {
  return Reader(*this, type).run(text);
}

WordPiece::WordPiece(const WordPieceModel& model) : state_(std::make_shared<const State>(model)) {}

std::vector<Token> WordPiece::tokens(std::string_view text) const { return state_->read(text, 0); }

std::vector<Token> WordPiece::encode(std::string_view text, std::optional<std::int64_t> max_tokens) const {
  const std::size_t most = room(max_tokens, 2);
  std::vector<Token> tokens = state_->read(text, 0);
  shorten(tokens, most - 2);
  tokens.insert(tokens.begin(), {state_->classify, 0, 0, 0});
  tokens.push_back({state_->separate, text.size(), text.size(), 0});
  return tokens;
}

std::vector<Token> WordPiece::encode(std::string_view first, std::string_view second,
                                     std::optional<std::int64_t> max_tokens) const {
  const std::size_t most = room(max_tokens, 3), left = most - 3;
  std::vector<Token> tokens = state_->read(first, 0), others = state_->read(second, 1);
  if (tokens.size() + others.size() > left) {
    const bool first_is_longer = tokens.size() > others.size();
    std::vector<Token>& longer = first_is_longer ? tokens : others;
    std::vector<Token>& shorter = first_is_longer ? others : tokens;
    shorten(shorter, left / 2);
    shorten(longer, left - shorter.size());
  }
  tokens.insert(tokens.begin(), {state_->classify, 0, 0, 0});
  tokens.push_back({state_->separate, first.size(), first.size(), 0});
  tokens.insert(tokens.end(), others.begin(), others.end());
  tokens.push_back({state_->separate, second.size(), second.size(), 1});
  return tokens;
}

std::int64_t WordPiece::size() const noexcept { return static_cast<std::int64_t>(state_->texts.size()); }

std::string_view WordPiece::text(std::int64_t id) const {
  if (id < 0 || id >= size())
    refuse("text: id is " + std::to_string(id) + "; it must be from 0 to " + std::to_string(size() - 1));
  return state_->texts[static_cast<std::size_t>(id)];
}

bool WordPiece::special(std::int64_t id) const noexcept {
  return id >= 0 && id < size() && state_->special[static_cast<std::size_t>(id)];
}

std::optional<std::int64_t> WordPiece::find(std::string_view token) const noexcept {
  const std::int64_t id = state_->find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

}  // namespace multihead
