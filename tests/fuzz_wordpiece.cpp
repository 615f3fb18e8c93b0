// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of the tokenizer: whatever the bytes, tokens are known, lie in order inside the text, and keep
// limits.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "multihead/wordpiece.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

multihead::WordPieceModel model() {
  multihead::WordPieceModel small;
  small.vocabulary = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "a",      "##a",     "e",
                      "##e",   "i",     "##b",   "play",  "##ing",  ".",  "中",    "ᄀ",     "\u0301", "##\u0345"};
  for (std::int64_t id = 0; id < 5; ++id)
    small.added.push_back({.content = small.vocabulary[static_cast<std::size_t>(id)], .id = id, .special = true});
  small.added.push_back({.content = "<l>", .id = 21, .single_word = true, .lstrip = true});
  small.added.push_back({.content = "yes", .id = 22, .rstrip = true, .normalized = true});
  return small;
}

void check(const multihead::WordPiece& tokenizer, std::string_view text) {
  const std::vector<multihead::Token> tokens = tokenizer.tokens(text);
  std::size_t begin = 0, end = 0;
  for (const multihead::Token& token : tokens) {
    require(token.id >= 0 && token.id < tokenizer.size() && token.type == 0);
    require(begin <= token.begin && end <= token.end && token.begin < token.end && token.end <= text.size());
    begin = token.begin, end = token.end;
  }
  require(tokenizer.encode(text).size() == tokens.size() + 2);
  for (std::int64_t most : {2, 3, 7}) {
    const std::size_t limit = static_cast<std::size_t>(most);
    require(tokenizer.encode(text, most).size() == std::min(tokens.size() + 2, limit));
    const std::string_view first = text.substr(0, text.size() / 3), second = text.substr(text.size() / 3);
    const std::size_t both = tokenizer.tokens(first).size() + tokenizer.tokens(second).size() + 3;
    require(tokenizer.encode(first, second, most + 1).size() == std::min(both, limit + 1));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const multihead::WordPiece lower(model());
  static const multihead::WordPiece whole([] {
    multihead::WordPieceModel kept = model();
    kept.clean_text = kept.chinese_chars = kept.lowercase = false;
    return kept;
  }());
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(lower, text);
  check(whole, text);
  return 0;
}
