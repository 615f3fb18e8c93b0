// SPDX-License-Identifier: Apache-2.0
// Encodes the texts of a file with the tokenizer of a folder, for tests that compare the tokens.
//
//   tokens_runner FOLDER TEXTS TOKENS
//
// Numbers are int32, little-endian. TEXTS: for each call max_tokens, the bytes of the first text and those of the
// second, each -1 where there is none, then the texts. TOKENS: for each call the number of tokens, then for each of
// them id, begin, end and type.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/model_files.hpp"
#include "multihead/wordpiece.hpp"

namespace {

class Input {
 public:
  explicit Input(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string(path) + " cannot be read");
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  bool ended() const { return at_ == bytes_.size(); }
  std::int32_t number() {
    std::int32_t value = 0;
    std::memcpy(&value, text(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view text(std::size_t size) {
    if (size > bytes_.size() - at_) throw std::runtime_error("the texts end within one");
    at_ += size;
    return std::string_view(bytes_).substr(at_ - size, size);
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

std::vector<multihead::Token> encode(const multihead::WordPiece& tokenizer, Input& input) {
  const std::int32_t most = input.number(), first_size = input.number(), second_size = input.number();
  const std::string_view first = input.text(static_cast<std::size_t>(first_size));
  const std::optional<std::int64_t> max_tokens = most < 0 ? std::nullopt : std::optional<std::int64_t>(most);
  if (second_size < 0) return tokenizer.encode(first, max_tokens);
  return tokenizer.encode(first, input.text(static_cast<std::size_t>(second_size)), max_tokens);
}

void run(char** argv) {
  const multihead::WordPiece tokenizer(multihead::read_wordpiece(argv[1]));
  Input input(argv[2]);
  std::ofstream output(argv[3], std::ios::binary);
  const auto put = [&](auto value) {
    const auto number = static_cast<std::int32_t>(value);
    output.write(reinterpret_cast<const char*>(&number), sizeof number);
  };
  while (!input.ended()) {
    const std::vector<multihead::Token> tokens = encode(tokenizer, input);
    put(tokens.size());
    for (const multihead::Token& token : tokens) put(token.id), put(token.begin), put(token.end), put(token.type);
  }
  if (!output.flush()) throw std::runtime_error(std::string(argv[3]) + " cannot be written");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) throw std::invalid_argument("tokens_runner FOLDER TEXTS TOKENS");
  run(argv);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
