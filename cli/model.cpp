// SPDX-License-Identifier: Apache-2.0
// Which model a subcommand takes, and its tokens as a terminal may show them.
#include "model.hpp"

#include <clocale>
#include <cstdlib>
#include <cwchar>

#include "multihead/error.hpp"

namespace multihead::cli {

namespace {

std::filesystem::path fetched_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value ? value : "");
  };
  const std::filesystem::path cache = variable("XDG_CACHE_HOME");
  return (cache.empty() ? variable("HOME") / ".cache" : cache) / "multihead" / "all-MiniLM-L6-v2";
}

// Steps through UTF-8 by the C library, which also knows how wide a character is: each(bytes, columns), columns -1 for
// what cannot be shown.
template <class Each>
void each_character(std::string_view text, const Each& each) {
  static const bool utf8 = std::setlocale(LC_CTYPE, "C.UTF-8") || std::setlocale(LC_CTYPE, "");
  std::mbstate_t state{};
  while (!text.empty()) {
    wchar_t character = 0;
    const std::size_t taken = utf8 ? std::mbrtowc(&character, text.data(), text.size(), &state) : text.size() + 1;
    const bool whole = taken > 0 && taken <= text.size();
    if (!whole) state = {};
    const std::size_t bytes = whole ? taken : 1;
    const bool ascii = static_cast<unsigned char>(text[0]) < 0x80;
    each(text.substr(0, bytes), whole ? wcwidth(character) : ascii && text[0] >= ' ' && text[0] != 0x7f ? 1 : -1);
    text.remove_prefix(bytes);
  }
}

}  // namespace

std::filesystem::path model_folder(const std::string& given, const std::string& option) {
  const char* named = std::getenv("MULTIHEAD_MODEL");
  const bool has_name = named && *named;
  const std::filesystem::path folder = !given.empty() ? std::filesystem::path(given)
                                       : has_name     ? std::filesystem::path(named)
                                                      : fetched_folder();
  if (std::filesystem::is_directory(folder)) return folder;
  if (given.empty() && !has_name)
    throw Error(ErrorCode::file_missing, "there is no model in " + folder.string() +
                                             ": ./run fetches one, and --model DIR takes another (config.json, "
                                             "model.safetensors, tokenizer.json or vocab.txt)");
  throw Error(ErrorCode::file_missing,
              (given.empty() ? "MULTIHEAD_MODEL" : option) + ": " + folder.string() + " is not a folder");
}

std::vector<Token> tokens_of(const WordPiece& tokenizer, const std::vector<std::string>& texts,
                             std::int64_t max_tokens) {
  std::vector<Token> tokens =
      texts.size() == 2 ? tokenizer.encode(texts[0], std::string_view(texts[1])) : tokenizer.encode(texts[0]);
  if (static_cast<std::int64_t>(tokens.size()) > max_tokens)
    throw Error(ErrorCode::bad_option, "the text has " + std::to_string(tokens.size()) +
                                           " tokens; this model takes at most " + std::to_string(max_tokens));
  return tokens;
}

std::string printable(std::string_view text) {
  // What turns the direction of letters around it, U+202A-202E and U+2066-2069, which have no width.
  const auto turns = [](std::string_view bytes) {
    return bytes.size() == 3 && ((bytes >= "\u202A" && bytes <= "\u202E") || (bytes >= "\u2066" && bytes <= "\u2069"));
  };
  std::string shown;
  each_character(
      text, [&](std::string_view bytes, int columns) { columns < 0 || turns(bytes) ? shown += '?' : shown += bytes; });
  return shown;
}

std::size_t columns_of(std::string_view text) {
  std::size_t sum = 0;
  each_character(text,
                 [&](std::string_view, int columns) { sum += columns < 0 ? 1 : static_cast<std::size_t>(columns); });
  return sum;
}

std::string fitted(std::string_view text, std::size_t columns) {
  const std::size_t whole = columns_of(text);
  if (whole <= columns) return std::string(text) + std::string(columns - whole, ' ');
  std::string cut;
  std::size_t used = 0;
  bool full = columns == 0;
  each_character(text, [&](std::string_view bytes, int wide) {
    const std::size_t next = used + (wide < 0 ? 1 : static_cast<std::size_t>(wide));
    full = full || next + 1 > columns;
    if (!full) cut += bytes, used = next;
  });
  return columns == 0 ? cut : cut + '~' + std::string(columns - used - 1, ' ');
}

}  // namespace multihead::cli
