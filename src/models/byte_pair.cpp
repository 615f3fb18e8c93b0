// SPDX-License-Identifier: Apache-2.0
// BytePair: added tokens out of the text, the rest cut into words, and their bytes joined by pairs.
#include "multihead/byte_pair.hpp"

#include <array>
#include <string>
#include <unordered_map>
#include <utility>

#include "models/byte_pair_merges.hpp"
#include "models/byte_pair_words.hpp"
#include "models/wordpiece_added.hpp"
#include "models/wordpiece_unicode.hpp"
#include "multihead/error.hpp"

namespace multihead {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::bad_option, "BytePair: " + what); }

std::string in_quotes(std::string_view text) { return '"' + std::string(text) + '"'; }

// A byte is written as the letter of its own code where that can be seen, else as one of those from U+0100 on.
constexpr bool is_itself(unsigned byte) noexcept {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The byte that a letter stands for, or -1.
int byte_of(char32_t letter) noexcept {
  static const auto others = [] {
    std::array<int, 68> bytes{};
    std::size_t next = 0;
    for (unsigned byte = 0; byte < 0x100; ++byte)
      if (!is_itself(byte)) bytes[next++] = static_cast<int>(byte);
    return bytes;
  }();
  if (letter < 0x100) return is_itself(letter) ? static_cast<int>(letter) : -1;
  return letter < 0x100 + others.size() ? others[letter - 0x100] : -1;
}

// The bytes that a token's letters stand for; the token itself where one stands for none.
std::string bytes_of(std::string_view token) {
  std::string bytes;
  for (char32_t letter : decode_all(token)) {
    const int byte = byte_of(letter);
    if (byte < 0) return std::string(token);
    bytes.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
  }
  return bytes;
}

bool is_written_in_bytes(std::string_view token) {
  for (char32_t letter : decode_all(token))
    if (byte_of(letter) < 0) return false;
  return true;
}

}  // namespace

struct BytePair::State {
  explicit State(const BytePairModel& model);

  void add(const AddedToken& token, const std::unordered_map<std::string_view, std::int64_t>& known);
  void check_ids(const BytePairModel& model) const;
  bool is_token(std::int64_t id) const noexcept {
    return id >= 0 && id < size() && exists[static_cast<std::size_t>(id)];
  }
  std::int64_t size() const noexcept { return static_cast<std::int64_t>(bytes.size()); }

  void encode_words(std::string_view text, std::vector<std::int64_t>& ids) const;
  void encode_word(std::string_view word, std::vector<std::int64_t>& ids) const;

  std::vector<std::string> bytes;  // by id, as decode gives them
  std::vector<bool> exists, special;
  std::unordered_map<std::string, std::int64_t> words, others;  // tokens of words, by their bytes, and all others
  std::array<std::int64_t, 256> of_byte;
  PairMerges merges;
  AddedTokens raw, normalized;  // without a normalizer the two differ in their order alone
  bool any_added = false;
  WordPattern pattern;
  bool prefix_space, whole_words;
  std::vector<std::int64_t> before, after;
};

BytePair::State::State(const BytePairModel& model)
    : bytes(model.vocabulary.size()),
      exists(model.vocabulary.size()),
      special(model.vocabulary.size()),
      merges(model.merges),
      pattern(model.pattern),
      prefix_space(model.prefix_space),
      whole_words(model.whole_words),
      before(model.before),
      after(model.after) {
  std::unordered_map<std::string_view, std::int64_t> known;
  known.reserve(model.vocabulary.size());
  words.reserve(model.vocabulary.size());
  for (std::size_t id = 0; id < model.vocabulary.size(); ++id) {
    const std::string& token = model.vocabulary[id];
    if (token.empty()) continue;
    if (!known.emplace(token, static_cast<std::int64_t>(id)).second)
      refuse("the vocabulary has " + in_quotes(token) + " twice");
    bytes[id] = bytes_of(token), exists[id] = true;
    (is_written_in_bytes(token) ? words : others).emplace(bytes[id], static_cast<std::int64_t>(id));
  }
  for (unsigned byte = 0; byte < 0x100; ++byte) {
    const auto found = words.find(std::string(1, static_cast<char>(static_cast<unsigned char>(byte))));
    if (found == words.end())
      refuse("the vocabulary has no token for byte " + std::to_string(byte) + "; it must have one for each");
    of_byte[byte] = found->second;
  }
  for (const AddedToken& token : model.added) add(token, known);
  check_ids(model);
}

void BytePair::State::add(const AddedToken& token, const std::unordered_map<std::string_view, std::int64_t>& known) {
  const std::string name = "the added token " + in_quotes(token.content) + " with the id " + std::to_string(token.id);
  if (token.content.empty()) refuse(name + " is empty");
  const auto place = known.find(token.content);
  const std::int64_t wanted = place == known.end() ? size() : place->second;
  if (token.id != wanted) refuse(name + " must have the id " + std::to_string(wanted));
  if (place == known.end())
    others.emplace(bytes_of(token.content), token.id), bytes.push_back(bytes_of(token.content)), exists.push_back(true),
        special.push_back(false);
  if (!(token.normalized ? normalized : raw).insert(decode_all(token.content), token)) refuse(name + " stands twice");
  special[static_cast<std::size_t>(token.id)] = token.special;
  any_added = true;
}

void BytePair::State::check_ids(const BytePairModel& model) const {
  const auto check = [&](std::int64_t id, const char* what) {
    if (!is_token(id)) refuse(std::string(what) + " has id " + std::to_string(id) + ", which no token has");
  };
  for (std::int64_t id : model.before) check(id, "before");
  for (std::int64_t id : model.after) check(id, "after");
  for (const BytePairModel::Merge& merge : model.merges)
    check(merge.first, "a merge"), check(merge.second, "a merge"), check(merge.merged, "a merge");
}

void BytePair::State::encode_word(std::string_view word, std::vector<std::int64_t>& ids) const {
  if (whole_words)
    if (const auto found = words.find(std::string(word)); found != words.end()) return ids.push_back(found->second);
  std::vector<std::int64_t> tokens;
  tokens.reserve(word.size());
  for (char byte : word) tokens.push_back(of_byte[static_cast<unsigned char>(byte)]);
  merges.join(tokens);
  ids.insert(ids.end(), tokens.begin(), tokens.end());
}

void BytePair::State::encode_words(std::string_view text, std::vector<std::int64_t>& ids) const {
  if (prefix_space && !text.starts_with(' ')) {
    // Without the space in front of it no more is put there.
    const std::string spaced = ' ' + std::string(text);
    return encode_words(spaced, ids);
  }
  const std::vector<PlacedLetter> letters = placed_letters(text);
  for (std::size_t at = 0; at + 1 < letters.size();) {
    const std::size_t end = word_end(pattern, letters, at);
    encode_word(text.substr(letters[at].begin, letters[end].begin - letters[at].begin), ids);
    at = end;
  }
}

BytePair::BytePair(const BytePairModel& model) : state_(std::make_shared<const State>(model)) {}

BytePair::BytePair(const std::filesystem::path& folder) : BytePair(read_byte_pair(folder)) {}

std::vector<std::int64_t> BytePair::encode(std::string_view text, bool added) const {
  std::vector<std::int64_t> ids;
  if (added) ids = state_->before;
  if (!state_->any_added) {
    if (!text.empty()) state_->encode_words(text, ids);
  } else {
    const std::vector<PlacedLetter> letters = placed_letters(text);
    std::u32string codes;
    codes.reserve(letters.size());
    for (std::size_t i = 0; i + 1 < letters.size(); ++i) codes.push_back(letters[i].code);
    const auto put = [&](std::size_t, std::size_t, std::int64_t id) { ids.push_back(id); };
    state_->raw.split(
        codes,
        [&](std::size_t begin, std::size_t end) {
          state_->normalized.split(
              std::u32string_view(codes).substr(begin, end - begin),
              [&](std::size_t first, std::size_t last) {
                const std::size_t from = letters[begin + first].begin, to = letters[begin + last].begin;
                state_->encode_words(text.substr(from, to - from), ids);
              },
              put);
        },
        put);
  }
  if (added) ids.insert(ids.end(), state_->after.begin(), state_->after.end());
  return ids;
}

std::string BytePair::decode(std::span<const std::int64_t> ids, bool special) const {
  std::string all;
  for (std::int64_t id : ids)
    if (const std::string_view own = bytes(id); special || !state_->special[static_cast<std::size_t>(id)]) all += own;
  return all;
}

std::int64_t BytePair::size() const noexcept { return state_->size(); }

std::string_view BytePair::bytes(std::int64_t id) const {
  if (!state_->is_token(id)) refuse("id " + std::to_string(id) + " is none of a token");
  return state_->bytes[static_cast<std::size_t>(id)];
}

bool BytePair::is_token(std::int64_t id) const noexcept { return state_->is_token(id); }

bool BytePair::special(std::int64_t id) const noexcept {
  return id >= 0 && id < size() && state_->special[static_cast<std::size_t>(id)];
}

std::optional<std::int64_t> BytePair::find(std::string_view bytes) const {
  const auto found = state_->words.find(std::string(bytes));
  if (found != state_->words.end()) return found->second;
  const auto added = state_->others.find(std::string(bytes));
  return added == state_->others.end() ? std::nullopt : std::optional(added->second);
}

std::string TextStream::put(std::string_view bytes) {
  waiting_ += bytes;
  std::string text;
  std::size_t at = 0;
  while (at < waiting_.size()) {
    const Decoded next = decode_utf8(waiting_, at);
    const auto first = static_cast<unsigned char>(waiting_[at]);
    const std::size_t whole = first < 0xC2 || first > 0xF4 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (next.bytes < whole && at + next.bytes == waiting_.size()) break;  // the end cuts a letter off
    append_utf8(next.letter, text);
    at += next.bytes;
  }
  waiting_.erase(0, at);
  return text;
}

std::string TextStream::end() {
  std::string text;
  for (char32_t letter : decode_all(waiting_)) append_utf8(letter, text);
  waiting_.clear();
  return text;
}

}  // namespace multihead
